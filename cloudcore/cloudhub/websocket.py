"""The hub's door: one TLS port for everything that an edge of ours needs.  The only cloud file that knows `websockets`.

    without a client certificate   GET /ca.crt (the authority, DER), GET /succession (which authority follows which), and one
                                   `join` frame on /join
    with one                       the link, and on /tunnel the streams of logs and exec: the node is who the certificate says
    with another cloudcore's       on /hub the streams for nodes that are connected here

Where stock KubeEdge edges may come, their tunnel has a port of its own, as they expect.
A connection that may not come in is closed with an HTTP status and a sentence, not left open and mute."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import State

from beehive import clock, codec, session
from beehive.errors import ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import (
    Group,
    Message,
    Op,
    Source,
    new,
)
from beehive.succession import HEADER, Chain, Trust, read_trust
from beehive.tunnelpeer import BinaryConnection
from cloudcore.cloudhub import upgrade
from cloudcore.cloudhub.allowance import Allowance
from cloudcore.cloudhub.dispatch import Dispatcher, lane_key
from cloudcore.cloudhub.joining import Joiner, Renewer, join_answer, renew_answer
from cloudcore.cloudhub.lanes import Lanes
from cloudcore.cloudhub.nodes import Link, Nodes, authority_text, now
from cloudcore.cloudhub.upgrade import Purpose, Refusal
from cloudcore.cloudstream.stockpeer import StockConnection
from cloudcore.identity.authority import Authority
from cloudcore.identity.revocation import Revocations, Shown, shown
from cloudcore.identity.succession import due

log = logging.getLogger(__name__)

OPEN_S = 10.0
"""For the TLS handshake, and again for the upgrade."""
JOIN_S = 15.0
CLOSE_S = 2.0
WRITE_S = 15.0
"""A write that the edge does not take for so long ends the session."""
PING_AFTER_S = 6.0
"""An edge of ours pings every PING_S; when it did not, the hub asks."""
FRAME_QUEUE = 16
WRITE_BUFFER = 64 * 1024
WRITE_AT_ONCE = 32 * 1024
MAX_UNSENT = codec.MAX_FRAME_BYTES + 1024 * 1024
"""Bytes of one connection that wait for its peer: the largest frame, and more answers to pings, which nothing else bounds,
than anybody needs."""
"""Frames are gathered up to this size for one write: two records of TLS."""
MAX_JOINING = 64
"""Connections without a certificate at one time."""
FRAMES_PER_S, FRAMES_BURST = 500.0, 2000.0
"""What one edge may send; beyond it the hub reads slower."""

Numberer = Callable[[str, str], Awaitable[int]]
"""Takes a node's name, and what its Node is to say of authorities."""
Noter = Callable[[str, str], Awaitable[None]]
"""The same, while a session goes on."""
TunnelServer = Callable[[str, BinaryConnection], Awaitable[None]]
StockServer = Callable[[str, StockConnection], Awaitable[None]]
HubServer = Callable[[BinaryConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """address, port: where to listen (an empty address is every one).   node_limit: links at one time.
    stock_address, stock_port: where the tunnels of stock KubeEdge edges come, if they may."""

    address: str = ""
    port: int = 10000
    node_limit: int = 1000
    stock_address: str = ""
    stock_port: int | None = None


class _Connection(ServerConnection):
    """A connection that notes when bytes last came, so that a ping is as good as a frame."""

    skerry_node = ""
    skerry_ours = False
    skerry_number = 0
    skerry_certificate: Shown | None = None
    skerry_signed_by = ""
    skerry_trusts: Trust | None = None
    skerry_purpose = Purpose.LINK
    skerry_heard = 0.0
    skerry_link: Link | None = None

    def data_received(self, data: bytes) -> None:
        if self.skerry_purpose is Purpose.STOCK_TUNNEL:
            self.skerry_heard = clock.monotonic()
        if self.skerry_link is not None:
            self.skerry_link.session.heard(now())
        super().data_received(data)
        if self.transport.get_write_buffer_size() > MAX_UNSENT and not self.transport.is_closing():
            log.warning("Ending a connection from %s: it takes nothing of what it asks for", _peer(self))
            self.transport.abort()

    async def send_frames(self, frames: list[bytes]) -> None:
        """Write them as text frames with one call to the socket: records of TLS are filled, and the cost of a write is shared.

        Raises ConnectionClosed."""
        async with self.send_context():
            for frame in frames:
                self.protocol.send_text(frame)
            self.transport.write(b"".join(self.protocol.data_to_send()))


class Hub:
    """Accepts edges and carries their links.  `run` is a supervised part."""

    name = "cloudhub"

    def __init__(
        self,
        config: HubConfig,
        *,
        nodes: Nodes,
        dispatcher: Dispatcher,
        authority: Authority,
        tls: ssl.SSLContext,
        join: Joiner,
        renew: Renewer,
        next_number: Numberer,
        note: Noter,
        tunnel: TunnelServer | None = None,
        stock_tunnel: StockServer | None = None,
        other_hub: HubServer | None = None,
        revocations: Revocations | None = None,
        pace_s: float = 0.0,
    ) -> None:
        """pace_s: the shortest time between two writes of one device's status."""
        self._pace_ms = int(pace_s * 1000)
        self._config = config
        self._nodes = nodes
        self._dispatcher = dispatcher
        self._authority = authority
        self._tls = tls
        self._join = join
        self._renew = renew
        self._next_number = next_number
        self._note = note
        self._hubs: set[_Connection] = set()
        self._tunnel = tunnel
        self._stock_tunnel = stock_tunnel
        self._other_hub = other_hub
        self._tunnels: dict[str, _Connection] = {}
        self._revocations = revocations
        if revocations is not None:
            revocations.on_change.append(self._recheck)
        self._joining = 0
        self.frames_in = self.frames_out = self.bad_frames = self.refused = 0
        self.port = self.stock_port = 0
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Raises Refused when the port cannot be had."""
        async with contextlib.AsyncExitStack() as stack:
            self.port = await self._listen(stack, self._config.address, self._config.port)
            log.info("The hub listens on %s:%d", self._config.address or "*", self.port)
            if self._config.stock_port is not None and self._stock_tunnel is not None:
                address = self._config.stock_address
                self.stock_port = await self._listen(stack, address, self._config.stock_port)
                log.info("Tunnels of KubeEdge's edges come to %s:%d", address or "*", self.stock_port)
            self.listening.set()
            while True:
                await asyncio.sleep(1.0)
                self._nodes.tick(now(), ping_after_s=PING_AFTER_S)

    async def _listen(self, stack: contextlib.AsyncExitStack, address: str, port: int) -> int:
        """Listen until the stack is left.  Returns the port; raises Refused."""
        try:
            server: Server = await serve(
                self._handle,
                address or None,
                port,
                ssl=self._tls,
                ssl_handshake_timeout=OPEN_S,
                ssl_shutdown_timeout=CLOSE_S,
                backlog=1024,
                process_request=self._on_request,
                process_response=self._on_response,
                create_connection=_Connection,
                # nothing is kept between messages: a compressor with its window would cost more than all else of a link
                extensions=[
                    ServerPerMessageDeflateFactory(
                        server_no_context_takeover=True,
                        client_no_context_takeover=True,
                        server_max_window_bits=12,
                        client_max_window_bits=12,
                        compress_settings={"memLevel": 5, "level": 3},
                    )
                ],
                compression=None,
                server_header=None,
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
                ping_interval=None,
                max_size=codec.MAX_FRAME_BYTES,
                max_queue=FRAME_QUEUE,
                write_limit=WRITE_BUFFER,
                logger=_library_log,
            )
        except OSError as error:
            raise Refused(
                f"cannot listen on {address or '*'}:{port}: {error.strerror or error}; is another cloudcore running?",
                reason="PortInUse",
            ) from error

        async def leave() -> None:
            server.close(code=session.CLOSE_RESTART, reason="the hub stops")
            await server.wait_closed()

        stack.push_async_callback(leave)
        return int(next(iter(server.sockets)).getsockname()[1])

    # -- upgrade -------------------------------------------------------------------------------------------------

    async def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, _Connection), "serve made a connection of another class"
        purpose = upgrade.purpose_of(request.path.split("?", 1)[0])
        if purpose is Purpose.CA:
            return _file("application/pkix-cert", self._authority.der)
        if purpose is Purpose.SUCCESSION:
            return _file("application/json", self._authority.chain)
        refusal = await self._admit(connection, purpose, request)
        if refusal is not None:
            return connection.respond(refusal.status, refusal.text + "\n")
        connection.skerry_purpose = purpose
        connection.protocol.max_message_size = upgrade.MESSAGE_BYTES[purpose]
        connection.skerry_ours = purpose is Purpose.LINK and _is_ours(request)
        if not connection.skerry_ours:
            # what flows in tunnels is compressed already or too quick to be
            connection.protocol.available_extensions = None
        return None

    async def _admit(self, connection: _Connection, purpose: Purpose, request: Request) -> Refusal | None:
        """Why it may not come in.  One that may is told apart by what is noted on the connection."""
        certificate = connection.transport.get_extra_info("peercert")
        if purpose is Purpose.JOIN:
            connection.skerry_trusts = read_trust(_first(request, HEADER))
            return _TOO_MANY if self._joining >= MAX_JOINING else None
        served = {
            Purpose.HUB: self._other_hub,
            Purpose.TUNNEL: self._tunnel,
            Purpose.STOCK_TUNNEL: self._stock_tunnel,
        }.get(purpose, self) is not None
        if purpose is Purpose.HUB:
            unserved = upgrade.use_refusal(purpose, "", served=served, linked=False)
            refusal = unserved or upgrade.hub_refusal(certificate)
            if refusal is not None:
                return refusal
            connection.skerry_signed_by = self._signed_by(connection)
            revoked = self._authority.refusal("", connection.skerry_signed_by)
            return Refusal(http.HTTPStatus.FORBIDDEN, revoked) if revoked else None
        name = upgrade.node_of(certificate)
        if isinstance(name, Refusal):
            return name
        claimed = _first(request, upgrade.name_header(purpose))
        refusal = upgrade.claim_refusal(purpose, claimed, name)
        if refusal is not None:
            log.warning("Node %s claimed to be %r from %s", name, claimed[:80], _peer(connection))
            return refusal
        try:
            revoked = await self._refusal(connection, name)
        except SkerryError as error:
            return _must_wait(name, error)
        if revoked:
            log.warning("Node %s refused from %s: %s", name, _peer(connection), revoked)
            return Refusal(http.HTTPStatus.FORBIDDEN, revoked)
        linked = self._nodes.get(name) is not None
        use = _first(request, session.HEADER_USE)
        refusal = upgrade.use_refusal(purpose, use, served=served, linked=linked)
        if refusal is not None:
            return refusal
        if purpose is Purpose.LINK:
            if len(self._nodes) >= self._config.node_limit and not linked:
                log.warning(
                    "Node %s refused: the limit of %d nodes is reached", name, self._config.node_limit
                )
                return Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "the node limit is reached")
            try:
                connection.skerry_trusts = read_trust(_first(request, HEADER)) if _is_ours(request) else None
                said = authority_text(connection.skerry_trusts, connection.skerry_signed_by)
                connection.skerry_number = await self._next_number(name, said)
            except SkerryError as error:
                return _must_wait(name, error)
        connection.skerry_node = name
        connection.skerry_heard = clock.monotonic()
        return None

    async def _refusal(self, connection: _Connection, name: str) -> str:
        """Why its certificate counts no more; empty if it does.  Raises Unavailable, PkiError."""
        connection.skerry_signed_by = self._signed_by(connection)
        if refusal := self._authority.refusal(name, connection.skerry_signed_by):
            return refusal
        if self._revocations is None:
            return ""
        await self._revocations.known()
        connection.skerry_certificate = shown(connection.transport.get_extra_info("peercert"))
        return self._revocations.refusal(name, connection.skerry_certificate)

    def _signed_by(self, connection: _Connection) -> str:
        return self._authority.issuer(connection.transport.get_extra_info("ssl_object").getpeercert(True))

    def authority_changed(self) -> None:
        """Nodes are told who follows whom, and what is open by an authority that counts no more is ended."""
        for link in self._nodes:
            if refusal := self._authority.refusal(link.node, link.signed_by):
                log.warning("Ending the link of node %s: %s", link.node, refusal)
                link.close(session.CLOSE_REVOKED, refusal[:120])
            else:
                self._tell_succession(link)
        for node, connection in list(self._tunnels.items()):
            if self._authority.refusal(node, connection.skerry_signed_by):
                connection.transport.abort()
        for connection in list(self._hubs):
            if self._authority.refusal("", connection.skerry_signed_by):
                connection.transport.abort()

    def _tell_succession(self, link: Link) -> None:
        statements = due(self._authority.held, link.trusts) if link.trusts is not None else []
        if statements:
            link.reply(
                new(
                    source=Source.CLOUDHUB,
                    group=Group.HUB,
                    operation=Op.SUCCESSION,
                    resource=f"null/node/{link.node}",
                    content=Chain(statements=statements),
                )
            )

    async def _trusts(self, link: Link, message: Message) -> None:
        """The node said which authorities it trusts now."""
        before, link.trusts = link.authority, read_trust(message.text())
        if link.authority == before:
            return  # of a fleet that heard of another end of the window nothing has to be written
        log.info("Node %s trusts the authority %s", link.node, link.trusts.newest[:16] or "?")
        try:
            await self._note(link.node, link.authority)
        except SkerryError as error:
            log.warning(
                "Cannot note which authority node %s trusts until its next session: %s", link.node, error
            )

    def _recheck(self) -> None:
        """Something was revoked: end what is open by it."""
        assert self._revocations is not None, "nobody else calls this"
        for link in self._nodes:
            refusal = link.certificate and self._revocations.refusal(link.node, link.certificate)
            if refusal:
                log.warning("Ending the link of node %s: %s", link.node, refusal)
                link.close(session.CLOSE_REVOKED, refusal[:120])
        for node, connection in list(self._tunnels.items()):
            certificate = connection.skerry_certificate
            if certificate and self._revocations.refusal(node, certificate):
                connection.transport.abort()

    def _on_response(self, connection: ServerConnection, request: Request, response: Response) -> None:
        del request
        assert isinstance(connection, _Connection), "serve made a connection of another class"
        self.refused += response.status_code in (401, 403)
        if connection.skerry_ours and response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers[session.HEADER_PROTOCOL] = str(session.PROTOCOL_VERSION)
            response.headers[session.HEADER_SESSION] = str(connection.skerry_number)
            response.headers[session.HEADER_PACE] = str(self._pace_ms)

    # -- a joining machine -----------------------------------------------------------------------------------------

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Connection), "serve made a connection of another class"
        if connection.skerry_purpose is Purpose.JOIN:
            if self._joining >= MAX_JOINING:  # others were quicker to come through the upgrade
                await connection.close(session.CLOSE_RESTART, "too many join at once")
                return
            self._joining += 1
            try:
                await self._serve_join(connection)
            finally:
                self._joining -= 1
        elif connection.skerry_purpose is Purpose.HUB:
            assert self._other_hub is not None, "the upgrade was refused"
            self._hubs.add(connection)
            try:
                await self._other_hub(_Binary(connection))
            finally:
                self._hubs.discard(connection)
        elif connection.skerry_purpose in (Purpose.TUNNEL, Purpose.STOCK_TUNNEL):
            self._tunnels[connection.skerry_node] = connection
            try:
                await self._serve_tunnel(connection)
            finally:
                if self._tunnels.get(connection.skerry_node) is connection:
                    del self._tunnels[connection.skerry_node]
        else:
            await self._serve_node(connection)

    async def _serve_tunnel(self, connection: _Connection) -> None:
        if connection.skerry_purpose is Purpose.STOCK_TUNNEL:
            assert self._stock_tunnel is not None, "the upgrade was refused"
            await self._stock_tunnel(connection.skerry_node, _Stock(connection))
        else:
            assert self._tunnel is not None, "the upgrade was refused"
            await self._tunnel(connection.skerry_node, _Binary(connection))

    async def _serve_join(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(JOIN_S):
                message = codec.decode(await connection.recv(decode=False), limit=codec.MAX_JOIN_BYTES)
                if message.route.operation != Op.JOIN:
                    await connection.close(session.CLOSE_POLICY, "only a join frame is welcome here")
                    return
                answer = await join_answer(self._join, message, _host(connection), connection.skerry_trusts)
                await connection.send(codec.encode(answer), text=True)
        except ProtocolError as error:
            await connection.close(session.CLOSE_BAD_FRAME, str(error)[:120])
        except TimeoutError:
            await connection.close(session.CLOSE_SILENT, "no join frame came")
        except ConnectionClosed:
            return

    # -- a node --------------------------------------------------------------------------------------------------------

    async def _serve_node(self, connection: _Connection) -> None:
        peer = session.HubSession(
            node=connection.skerry_node,
            ours=connection.skerry_ours,
            number=connection.skerry_number,
            opened_at=now(),
        )
        link = Link(
            peer,
            address=_peer(connection),
            certificate=connection.skerry_certificate,
            signed_by=connection.skerry_signed_by,
            trusts=connection.skerry_trusts,
        )
        peer.opened(now())
        connection.skerry_link = link
        if not self._nodes.open(link):
            await connection.close(session.CLOSE_REPLACED, "a newer session exists")
            return
        log.info(
            "Node %s connected from %s: session %d%s",
            link.node,
            link.address,
            peer.number,
            "" if peer.ours else ", KubeEdge's protocol",
        )
        # who connected while the authority changed was judged by what was before
        if refusal := self._authority.refusal(link.node, link.signed_by):
            link.close(session.CLOSE_REVOKED, refusal[:120])
        else:
            self._tell_succession(link)
        reason = "connection lost"
        try:
            async with asyncio.TaskGroup() as group:
                lanes = Lanes[session.Forward](group, lambda command: self._dispatcher.forward(link, command))
                group.create_task(self._write(connection, link), name=f"write {link.node}")
                await self._read(connection, link, lanes)
                raise _Over("connection lost")
        except* (_Over, ConnectionClosed) as faults:
            reason = next((str(fault) for fault in faults.exceptions if isinstance(fault, _Over)), reason)
        except* (TimeoutError, OSError) as faults:
            reason = str(faults.exceptions[0]) or "it takes nothing any more"
        except* Exception as faults:
            # the boundary of one connection: a fault in it ends this one only
            log.exception("The link of node %s failed", link.node, exc_info=faults)
            reason = "a fault in the hub"
        finally:
            self._nodes.closed(link)
            peer.close(session.CLOSE_POLICY, "over")
            if connection.state is not State.CLOSED and link.closing is None:
                connection.transport.abort()
        log.info("Node %s disconnected: session %d, %s", link.node, peer.number, reason)

    async def _read(self, connection: _Connection, link: Link, lanes: Lanes[session.Forward]) -> None:
        allowance = Allowance(FRAMES_PER_S, FRAMES_BURST, now())
        while True:
            data = await connection.recv(decode=False)
            current = now()
            self.frames_in += 1
            pause_s = allowance.take(current)
            try:
                message = codec.decode(data)
            except ProtocolError as error:
                self.bad_frames += 1
                log.warning("Node %s sent a bad frame: %s", link.node, str(error)[:256])
                self._dispatcher.perform(link, link.session.bad_frame(str(error)))
                continue
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s < %s %s", link.node, message.route.operation, message.route.resource)
            if message.route.operation == Op.RENEW and link.ours:
                link.reply(await renew_answer(self._renew, message, link.node, link.certificate, link.trusts))
                continue
            if message.route.operation == Op.SUCCESSION and link.ours:
                await self._trusts(link, message)
                continue
            for command in self._dispatcher.perform(
                link, link.session.handle_frame(message, current), message
            ):
                await lanes.submit(lane_key(command.message), command)
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _write(self, connection: _Connection, link: Link) -> None:
        while True:
            if link.closing is not None:
                closing = link.closing
                await connection.close(closing.code, closing.reason)
                raise _Over(f"closed with {closing.code}: {closing.reason}")
            if link.ping_due:
                link.ping_due = False
                async with asyncio.timeout(WRITE_S):
                    await connection.ping()
            frames = _frames(link)
            if frames:
                async with asyncio.timeout(WRITE_S):
                    await connection.send_frames(frames)
                self.frames_out += len(frames)
                continue
            link.wake.clear()
            await link.wake.wait()


def _frames(link: Link) -> list[bytes]:
    """The next frames to write together: a big one goes alone, so that nothing waits long behind it."""
    frames: list[bytes] = []
    size = 0
    while size < WRITE_AT_ONCE and (message := link.take(now())) is not None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s > %s %s", link.node, message.route.operation, message.route.resource)
        frames.append(codec.encode(message))
        size += len(frames[-1])
    return frames


class _Binary:
    """A connection as a tunnel wants it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def recv(self) -> bytes:
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as closed:
            raise Unavailable(f"connection closed: {closed}") from closed

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.send(data)
        except ConnectionClosed as closed:
            raise Unavailable(f"connection closed: {closed}") from closed

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)


class _Stock(_Binary):
    """A connection as the tunnel of a stock edge wants it: text messages, whatever the bytes."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self._stock = connection

    @property
    def heard(self) -> float:
        return self._stock.skerry_heard

    async def send(self, data: bytes) -> None:
        try:
            await self._stock.send(data, text=True)
        except ConnectionClosed as closed:
            raise Unavailable(f"connection closed: {closed}") from closed


_TOO_MANY = Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many join at once")


def _is_ours(request: Request) -> bool:
    return _first(request, session.HEADER_PROTOCOL).isdecimal()


def _must_wait(node: str, error: SkerryError) -> Refusal:
    log.info("Node %s must wait: %s", node, error)
    return Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "the API is away; try again")


class _Over(Exception):
    """Ends the task group of a connection; the text is the reason."""


def _file(kind: str, content: bytes) -> Response:
    headers = Headers()
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(content))
    headers["Connection"] = "close"
    return Response(http.HTTPStatus.OK, "OK", headers, content)


def _first(request: Request, name: str) -> str:
    """A header's first value: a stock edge that redials sends some twice."""
    values = request.headers.get_all(name)
    return values[0] if values else ""


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?"


def _host(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if isinstance(address, tuple) else ""


_library_log = logging.getLogger("cloudcore.cloudhub.websocket.library")
# It tells of each port scan with a traceback; what matters is told above.
_library_log.setLevel(logging.CRITICAL)
