"""Which node has a tunnel here, one each, the newest wins; and the pods that streams are asked of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from beehive import tunnel
from beehive.errors import SkerryError, Unavailable
from beehive.tunnelpeer import BinaryConnection, Peer, Stream
from cloudcore.kube import Kube
from cloudcore.objects import POD, Change

log = logging.getLogger(__name__)

CLOSE_REPLACED = 4001
"""As on the link: another connection of the same node took over."""
ANSWER_S = 30.0
"""How long an edge may take to answer: it may have to ask a busy runtime."""


class Tunnels:
    """The tunnels of all nodes that are connected to this cloudcore."""

    def __init__(self) -> None:
        self._peers: dict[str, tuple[Peer, BinaryConnection]] = {}

    async def serve_tunnel(self, node: str, connection: BinaryConnection) -> None:
        """Carry the tunnel of an identified node until it ends.  Raises nothing but cancellation.

        A second tunnel of a node ends the first at once: that one is a line the node has given up."""
        peer = Peer(connection, tunnel.Role.HUB)
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
        """A Node was deleted: nobody is to reach its machine by that name until it has come again."""
        if change.new is None and change.old is not None:
            entry = self._peers.get(change.old.name)
            if entry is not None:
                entry[0].fail("the node was deleted")

    def connected(self, node: str) -> bool:
        """Whether streams to a node can be opened now."""
        return node in self._peers

    def nodes(self) -> list[str]:
        """The nodes that streams can be opened to now."""
        return list(self._peers)

    async def open(self, node: str, head: tunnel.Head) -> tuple[Stream, tunnel.Answer]:
        """Ask a node.  Raises Unavailable with a sentence for the user; ProtocolError for a request that is too long."""
        entry = self._peers.get(node)
        if entry is None:
            raise Unavailable(f'node "{node}" is not connected, so there is no way to its pods now')
        stream = await entry[0].open(head)
        try:
            return stream, await stream.answered(ANSWER_S)
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
