"""Which node has a tunnel here, one each, the newest wins; and the pods that streams are asked of."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from beehive import tunnel
from beehive.errors import SkerryError, Unavailable
from beehive.tunnelpeer import BinaryConnection, Peer
from cloudcore.cloudstream.pipe import Opening, Pipe, Way
from cloudcore.cloudstream.stockpeer import StockConnection, StockPeer
from cloudcore.kube import Kube
from cloudcore.objects import POD, Change, Object

log = logging.getLogger(__name__)

CLOSE_REPLACED = 4001
"""As on the link: another connection of the same node took over."""
ANSWER_S = 30.0
"""How long an edge may take to answer: it may have to ask a busy runtime."""


class Elsewhere(Protocol):
    """The nodes whose tunnels other cloudcores hold."""

    def nodes(self) -> list[str]:
        """Those that have been connected elsewhere last."""
        ...

    def holds(self, node: Object) -> bool:
        """Whether another one has the node's link."""
        ...

    def piped(self) -> bool:
        """Whether a two-way pipe by another cloudcore is open."""
        ...

    async def open(self, node: str, head: tunnel.Head) -> Opening | None:
        """Ask a node by the cloudcore that holds it; None when that is nobody else.  Raises as `Way.open`."""
        ...


class Tunnels:
    """The tunnels of all nodes that are connected to this cloudcore, and the way to those that are connected to another."""

    def __init__(self) -> None:
        self._peers: dict[str, tuple[Way, BinaryConnection]] = {}
        self._numbers = itertools.count(1)
        self._elsewhere: Elsewhere | None = None
        self.on_pipe: Callable[[], None] = lambda: None
        """Called before a two-way pipe is opened."""

    def bind(self, elsewhere: Elsewhere) -> None:
        """Pass requests for nodes that are not here on, from now on."""
        self._elsewhere = elsewhere

    async def serve_tunnel(self, node: str, connection: BinaryConnection) -> None:
        """Carry the tunnel of an identified node until it ends.  Raises nothing but cancellation.

        A second tunnel of a node ends the first at once: that one is a line the node has given up."""
        await self._carry(node, Peer(connection, tunnel.Role.HUB), connection)

    async def serve_stock(self, node: str, connection: StockConnection) -> None:
        """The same for a stock KubeEdge edge."""
        await self._carry(node, StockPeer(node, connection, self._numbers), connection)

    async def _carry(self, node: str, peer: Way, connection: BinaryConnection) -> None:
        old = self._peers.get(node)
        self._peers[node] = (peer, connection)
        if old is not None:
            old[0].fail("the node has connected anew")
        log.info("Node %s: tunnel for logs and exec is up", node)
        reason, code = "closed", 1000
        try:
            await peer.run()
        except SkerryError as error:
            reason, code = str(error), 1011
        finally:
            current = self._peers.get(node)
            if current is not None and current[0] is peer:
                del self._peers[node]
            else:
                code = CLOSE_REPLACED
            log.info("Node %s: tunnel for logs and exec ended: %s", node, reason)
            await connection.close(code, reason[:120])

    def on_node(self, change: Change) -> None:
        """A Node was deleted: nobody is to reach its machine by that name until it has come again.  Or its link went to another
        cloudcore: that one is asked for it from now on, so its tunnel has to follow."""
        node = change.new or change.old
        entry = self._peers.get(node.name) if node is not None else None
        if entry is None:
            return
        if change.new is None:
            entry[0].fail("the node was deleted")
        elif self._elsewhere is not None and self._elsewhere.holds(change.new):
            entry[0].fail("the node is connected to another cloudcore now")

    def connected(self, node: str) -> bool:
        """Whether streams to a node can be opened here now."""
        return node in self._peers

    def nodes(self) -> list[str]:
        """The nodes that can be asked now, here or by another cloudcore."""
        elsewhere = self._elsewhere.nodes() if self._elsewhere is not None else []
        return list(dict.fromkeys([*self._peers, *elsewhere]))

    def piped(self) -> bool:
        """Whether a two-way pipe is open."""
        elsewhere = self._elsewhere is not None and self._elsewhere.piped()
        return elsewhere or any(way.piped for way, _ in self._peers.values())

    async def open(self, node: str, head: tunnel.Head) -> tuple[Pipe, tunnel.Answer]:
        """Ask a node, wherever it is connected.

        Raises Unavailable with a sentence for the user; ProtocolError for a request that is too long; Refused for what this
        node cannot be asked."""
        if node in self._peers or self._elsewhere is None:
            return await self.open_here(node, head)
        if head.kind == "upgrade":
            self.on_pipe()
        stream = await self._elsewhere.open(node, head)
        if stream is None:
            return await self.open_here(node, head)
        # the other cloudcore gives up first, and says why
        return await _answered(stream, ANSWER_S + 5.0)

    async def open_here(self, node: str, head: tunnel.Head) -> tuple[Pipe, tunnel.Answer]:
        """Ask a node whose tunnel ends here; nobody else is asked."""
        entry = self._peers.get(node)
        if entry is None:
            raise Unavailable(f'node "{node}" is not connected, so there is no way to its pods now')
        if head.kind == "upgrade":
            self.on_pipe()
        return await _answered(await entry[0].open(head), ANSWER_S)


async def _answered(stream: Opening, timeout_s: float) -> tuple[Pipe, tunnel.Answer]:
    try:
        return stream, await stream.answered(timeout_s)
    except BaseException:
        stream.reset("cancelled")
        raise


class PodReader:
    """Reads pods from the API.  Its client comes later than the control plane that asks it."""

    def __init__(self) -> None:
        self._client: Kube | None = None

    def bind(self, client: Kube) -> None:
        """Read with this client from now on."""
        self._client = client

    async def get(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The Pod.  Raises NotFound, Unavailable, Refused."""
        if self._client is None:
            raise Unavailable("the control plane is starting", retry_after_s=1.0)
        found = await self._client.get(POD, name, namespace)
        return msgspec.json.decode(found.raw, type=dict[str, Any])
