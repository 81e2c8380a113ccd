"""Requests for nodes that another cloudcore holds, passed on to it; and those that others pass on to this one.

Who holds a node stands on its Node object, written with each session.  Cloudcores know each other by the authority that all of
them share: each shows a certificate that only a holder of its key can make.  Between two of them runs one connection with the
frames of our own tunnel, opened when it is needed and closed when it is idle; a stream's path begins with the node's name:

    /nodes/<name>/containerLogs/default/web/c?follow=true

What came from another cloudcore is never passed on again, so a request takes one step at most, whatever the API says."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections.abc import Callable, Iterable

import aiohttp
import msgspec

from beehive import clock, resource, tunnel
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.tunnelpeer import BinaryConnection, Peer, Stream, StreamReset
from cloudcore.cloudhub.upgrade import HUB_PATH
from cloudcore.cloudstream.pipe import Opening, Pipe
from cloudcore.cloudstream.tunnels import Tunnels
from cloudcore.objects import HUB_ANNOTATION, Object, annotation

log = logging.getLogger(__name__)

_PREFIX = "/nodes/"
DIAL_S = 5.0
RETRY_S = 5.0
"""So long after a dial that failed nobody dials again: thousands of nodes may have been there."""
IDLE_S = 60.0
"""A connection without streams is closed after this."""
TICK_S = 5.0
MAX_LINES = 64
"""Connections to other cloudcores at one time."""
OPENER_LIMITS = tunnel.Limits(streams=1024, pool=32 * 1024 * 1024)
HOLDER_LIMITS = tunnel.Limits(streams=1280, pool=32 * 1024 * 1024)

Find = Callable[[str], Object | None]
Line = asyncio.Task[Peer | SkerryError]


class _Socket:
    """A websocket of aiohttp's as a tunnel wants it."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket

    async def recv(self) -> bytes:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            raise ProtocolError("text where a tunnel's frame was due")
        raise Unavailable(f"connection closed: {self._socket.close_code or 'lost'}")

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Unavailable(f"connection closed: {error}") from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code=code, message=reason.encode()[:120])
        await self._session.close()


class Peers:
    """A supervised part: `run` carries the connections to other cloudcores.

    own: where others reach this one, `<address>:<port>`.   find, nodes: Node objects as the API last told them.
    tls: makes the context of a new connection, with our certificate in it."""

    name = "peers"

    def __init__(
        self,
        tunnels: Tunnels,
        *,
        own: str,
        find: Find,
        nodes: Callable[[], Iterable[Object]],
        tls: Callable[[], ssl.SSLContext],
    ) -> None:
        self._tunnels = tunnels
        self._own = own
        self._find = find
        self._nodes = nodes
        self._tls = tls
        self._group: asyncio.TaskGroup | None = None
        self._lines: dict[str, Line] = {}
        self._failed: dict[str, tuple[float, SkerryError]] = {}
        self._peers: set[Peer] = set()

    async def run(self) -> None:
        """Never returns."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            self._group = None

    # -- towards others

    def nodes(self) -> list[str]:
        """Nodes that were connected to another cloudcore last."""
        return [node.name for node in self._nodes() if self._elsewhere(node)]

    def holds(self, node: Object) -> bool:
        """Whether another cloudcore has the node's link."""
        return bool(self._elsewhere(node))

    def piped(self) -> bool:
        return any(peer.piped for peer in self._peers)

    async def open(self, node: str, head: tunnel.Head) -> Opening | None:
        """Ask a node by the cloudcore that holds it; None when no other one does.  Raises Unavailable, ProtocolError."""
        held = self._find(node)
        where = self._elsewhere(held) if held is not None else ""
        if not where:
            return None
        passed = msgspec.structs.replace(head, path=f"{_PREFIX}{node}{head.path}")
        try:
            peer = await self._peer(where)
            return await peer.open(passed)
        except Unavailable as error:
            raise Unavailable(
                f'node "{node}" was last connected to the cloudcore at {where}, which cannot be asked now: {error}'
            ) from error

    def _elsewhere(self, node: Object) -> str:
        where = annotation(node, HUB_ANNOTATION)
        return where if where != self._own and _address(where) is not None else ""

    async def _peer(self, where: str) -> Peer:
        now = clock.monotonic()
        self._failed = {key: held for key, held in self._failed.items() if now - held[0] < RETRY_S}
        line = self._lines.get(where)
        if line is None:
            if where in self._failed:
                raise Unavailable(str(self._failed[where][1]), retry_after_s=RETRY_S)
            if self._group is None:
                raise Unavailable("this cloudcore is starting or stopping", retry_after_s=1.0)
            if len(self._lines) >= MAX_LINES:
                raise Unavailable(f"{MAX_LINES} connections to other cloudcores are open already")
            line = self._lines[where] = self._group.create_task(self._dial(where), name=f"dial {where}")
        # several may wait for one dial; that one of them gives up is no reason to end it
        found = await asyncio.shield(line)
        if isinstance(found, SkerryError):
            raise Unavailable(str(found)) from found
        return found

    async def _dial(self, where: str) -> Peer | SkerryError:
        """The connection, carried from now on; or why there is none, for all who wait for it."""
        line = self._lines[where]
        try:
            connection = await _connect(where, self._tls())
            if self._group is None:
                await connection.close()
                raise Unavailable("this cloudcore stops")
        except SkerryError as error:
            del self._lines[where]
            self._failed[where] = (clock.monotonic(), error)
            return error
        peer = Peer(connection, tunnel.Role.HUB, limits=OPENER_LIMITS)
        self._group.create_task(self._carry(where, line, peer, connection), name=f"cloudcore {where}")
        return peer

    async def _carry(self, where: str, line: Line, peer: Peer, connection: BinaryConnection) -> None:
        log.info("Connected to the cloudcore at %s", where)
        reason = "closed"
        self._peers.add(peer)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._until_idle(where, line, peer), name=f"idle {where}")
                try:
                    await peer.run()
                except SkerryError as error:
                    reason = str(error)
                watch.cancel()
        finally:
            self._peers.discard(peer)
            self._forget(where, line)
            with contextlib.suppress(SkerryError, TimeoutError):
                async with asyncio.timeout(DIAL_S):
                    await connection.close()
        log.info("Disconnected from the cloudcore at %s: %s", where, reason)

    async def _until_idle(self, where: str, line: Line, peer: Peer) -> None:
        used = clock.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            if peer.mux.count:
                used = clock.monotonic()
            elif clock.monotonic() - used > IDLE_S:
                # from here on a new request makes a new connection
                self._forget(where, line)
                peer.fail("idle")
                return

    def _forget(self, where: str, line: Line) -> None:
        if self._lines.get(where) is line:
            del self._lines[where]

    # -- from others

    async def serve(self, connection: BinaryConnection) -> None:
        """Carry the connection of another cloudcore until it ends.  Raises nothing but cancellation."""
        peer = Peer(connection, tunnel.Role.EDGE, handler=self._answer, limits=HOLDER_LIMITS)
        reason = "closed"
        try:
            await peer.run()
        except SkerryError as error:
            reason = str(error)
        finally:
            log.info("Another cloudcore disconnected: %s", reason)
            await connection.close()

    async def _answer(self, stream: Stream) -> None:
        node, head = _addressee(stream.head)
        pipe, answer = await self._tunnels.open_here(node, head)
        try:
            await stream.answer(answer)
            await splice(stream, pipe)
        finally:
            pipe.reset("the client went away")


async def splice(one: Pipe, other: Pipe) -> None:
    """Carry bytes both ways until `other` has ended, or either is reset; what is reset ends the other one with its reason."""
    async with asyncio.TaskGroup() as group:
        down = group.create_task(_copy(one, other), name="splice down")
        failure = await _copy(other, one)
        down.cancel()
    if failure is not None:
        raise failure


async def _copy(source: Pipe, sink: Pipe) -> StreamReset | None:
    """Copy to the end and say so; what broke it off is returned, so that a group does not wrap it."""
    try:
        while data := await source.read():
            await sink.write(data)
        await sink.end()
    except StreamReset as error:
        # wakes the other direction
        sink.reset(str(error))
        return error
    return None


def _addressee(head: tunnel.Head) -> tuple[str, tunnel.Head]:
    node, slash, path = head.path.removeprefix(_PREFIX).partition("/")
    if not head.path.startswith(_PREFIX) or not slash or not resource.is_name(node):
        raise ProtocolError("the path names no node")
    return node, msgspec.structs.replace(head, path=f"/{path}")


def _address(where: str) -> tuple[str, int] | None:
    """The two parts of an address, or None for what is none."""
    host, _, port = where.rpartition(":")
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        return None
    if (version == 6) != (bare != host) or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        return None
    return host, int(port)


async def _connect(where: str, tls: ssl.SSLContext) -> BinaryConnection:
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
    try:
        async with asyncio.timeout(DIAL_S):
            socket = await session.ws_connect(
                f"https://{where}{HUB_PATH}",
                ssl=tls,
                max_msg_size=tunnel.MAX_FRAME + 1,  # aiohttp refuses what is as long as its limit
                compress=0,
            )
    except TimeoutError as error:
        await session.close()
        raise Unavailable(f"no answer in {DIAL_S:g} s") from error
    except (OSError, ssl.SSLError, aiohttp.ClientError) as error:
        await session.close()
        raise Unavailable(str(error) or type(error).__name__) from error
    except BaseException:
        await session.close()
        raise
    return _Socket(session, socket)
