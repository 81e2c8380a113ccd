"""The edge's websocket: dial a hub, exchange frames, measure whether it still answers.  The only file that knows `websockets`.

What leaves this file are bytes, and our errors instead of the library's."""

from __future__ import annotations

import asyncio
import socket as std_socket
import ssl
from collections.abc import Mapping
from urllib.request import getproxies_environment, proxy_bypass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.proxy import parse_proxy
from websockets.typing import Subprotocol

from beehive import clock, stocktunnel, tunnel
from beehive.codec import MAX_FRAME_BYTES
from beehive.errors import ProtocolError, Refused, Unavailable, system_words

OPEN_S = 10.0
"""How long one dial may take, name look-up and TLS included.  A stock edge allows 30 s; ours has other addresses to try."""

CLOSE_S = 2.0
"""How long a farewell may take on a link that may be dead."""

_WAITING = 64  # frames read and not yet taken, the hub's window


UNSENT_BYTES = 128 * 1024
"""Two frames of a tunnel: a second at 1 Mbit/s."""

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name: `dial` then looks only whether a certificate is over."""

OVER = "Over"
"""The reason of a refusal because a certificate is over, as far as this machine's clock says."""

UNTRUSTED = "UntrustedHub"
"""The reason of a refusal because of who signed the hub's certificate, or of what is wrong with it."""

_NOT_YET, _OVER = 9, 10  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED

_MAX_REASON_BYTES = 120  # RFC 6455, 5.5: 125 with the code

_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; Python has no name for it


class Unreachable(Unavailable):
    """Nobody answered at the address: the network or the hub is away, and asking again soon costs nobody anything."""


class Closed(Unavailable):
    """The connection is over.  `code`: the peer's close code, 1006 when it just vanished."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"link closed: {text or 'connection lost'} ({code})")
        self.code = code


class _Dial(connect):
    """Without redirects: where the hub is, the operator says.  Following one would also read an address from a stranger."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Socket:
    """One open connection.  Reading and writing may go on in two tasks."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def header(self, name: str) -> str:
        """A header of the hub's answer, or an empty string."""
        response = self._connection.response
        return (response.headers.get(name, "") if response else "")[:256]

    def hub_ends(self) -> float:
        """When the hub's certificate is over (Unix seconds)."""
        return _ends(self._connection.transport.get_extra_info("ssl_object"))

    async def send(self, frame: bytes) -> None:
        """Write one frame as text.  Returns when the socket took it.  Raises: Closed."""
        try:
            await self._connection.send(frame, text=True)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def send_binary(self, data: bytes) -> None:
        """Write one binary message.  Several tasks may call it; what they send keeps their order.  Raises: Closed."""
        try:
            await self._connection.send(data)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def receive(self) -> bytes:
        """The next frame, text or binary.  Raises: Closed."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def ping(self, timeout_s: float) -> None:
        """Ask for a sign of life.  Raises: Closed, also when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await (await self._connection.ping())
        except ConnectionClosed as closed:
            raise _closed(closed) from closed
        except TimeoutError as late:
            raise Closed(1006, f"no answer to a ping in {timeout_s:.0f} s") from late

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say farewell if possible, and end the connection in any case within CLOSE_S."""
        fitting = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self._connection.close(code, fitting)

    def keep_queue_short(self, unsent_bytes: int) -> None:
        """Let the kernel queue no more than so much that is not on its way: what is written later then overtakes nothing but
        that, however large the buffers of a slow line have grown."""
        handle = self._connection.transport.get_extra_info("socket")
        handle.setsockopt(std_socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, unsent_bytes)

    def abort(self) -> None:
        """End the connection without a word."""
        self._connection.transport.abort()


class Binary:
    """A connection as a tunnel wants it (beehive.tunnelpeer.BinaryConnection)."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def recv(self) -> bytes:
        return await self._socket.receive()

    async def send(self, data: bytes) -> None:
        await self._socket.send_binary(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code, reason)


class Text(Binary):
    """A connection as the tunnel of a stock cloud wants it: text messages, whatever the bytes."""

    async def send(self, data: bytes) -> None:
        await self._socket.send(data)

    async def ping(self, timeout_s: float) -> None:
        """Ask for a sign of life.  Raises: Closed, also when none comes in time."""
        await self._socket.ping(timeout_s)


async def dial_stock_tunnel(address: str, *, tls: ssl.SSLContext, headers: Mapping[str, str]) -> Text:
    """Open the tunnel of a stock cloud, at a port of its own.  Raises as `dial`."""
    url = f"wss://{address}{stocktunnel.PATH}"
    socket = await dial(url, tls=tls, headers=headers, bulk=True, limit=stocktunnel.MAX_FRAME)
    socket.keep_queue_short(UNSENT_BYTES)
    return Text(socket)


async def dial_tunnel(address: str, *, tls: ssl.SSLContext, headers: Mapping[str, str]) -> Binary:
    """Open the second connection to a hub, for streams.  Raises as `dial`."""
    socket = await dial(f"wss://{address}/tunnel", tls=tls, headers=headers, bulk=True)
    socket.keep_queue_short(UNSENT_BYTES)
    return Binary(socket)


async def dial_channels(url: str, protocol: str) -> Binary:
    """Open a websocket of the runtime's streaming server, on this machine.  Raises: Unavailable."""
    host = url.removeprefix("http://").split("/")[0].rpartition(":")[0].strip("[]")
    if not url.startswith("http://") or host not in ("127.0.0.1", "::1", "localhost"):
        raise Unavailable("the runtime's streaming server is not plain HTTP on this machine")
    try:
        connection = await connect(
            "ws://" + url.removeprefix("http://"),
            subprotocols=[Subprotocol(protocol)],
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            ping_interval=None,
        )
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise Unavailable(f"cannot reach the runtime's streaming server: {error}") from error
    return Binary(Socket(connection))


async def dial(
    url: str,
    *,
    tls: ssl.SSLContext,
    headers: Mapping[str, str],
    open_s: float = OPEN_S,
    bulk: bool = False,
    limit: int = tunnel.MAX_FRAME,
    any_time: bool = False,
) -> Socket:
    """Connect, through the environment's proxy if it names one.  bulk: for a tunnel's frames, which are not compressed, and no
    longer than `limit`.   any_time: the hub's certificate may be over; only to find out what time it is.

    Raises: Unavailable (not reachable, not now), Refused (the hub or its certificate is not for us), ProtocolError."""
    hub = url.split("/")[2]
    proxy = proxy_for(hub)
    try:
        connection = await _Dial(
            url,
            ssl=tls,
            additional_headers=dict(headers),
            user_agent_header=None,
            extensions=None
            if bulk
            else [
                # half the default window: the saving stays, a quarter of the memory
                ClientPerMessageDeflateFactory(
                    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
                )
            ],
            compression=None,
            proxy=proxy,
            open_timeout=open_s,
            close_timeout=CLOSE_S,
            ping_interval=None,
            max_size=limit if bulk else MAX_FRAME_BYTES,
            max_queue=_WAITING,
        )
    except ssl.SSLCertVerificationError as error:
        raise Refused(untrusted(hub, error), reason=UNTRUSTED) from error
    except InvalidStatus as error:
        status = error.response.status_code
        text = f"cannot connect to {hub}: the hub answered {status} {error.response.reason_phrase}"
        body = bytes(error.response.body or b"")[:200].decode("utf-8", "replace").strip()
        text = f"{text}: {body}" if body else text
        raise (Refused(text) if status in (400, 401, 403, 404) else Unavailable(text)) from error
    except ProxyError as error:
        raise Unavailable(f"cannot connect to {hub} through the proxy: {error}") from error
    except (InvalidHandshake, InvalidURI, EOFError) as error:
        raise ProtocolError(f"cannot connect to {hub}: {error or 'it closed the connection'}") from error
    except TimeoutError as error:
        raise Unreachable(f"cannot connect to {hub}: no answer in {open_s:.0f} s") from error
    except ssl.SSLError as error:
        raise Unavailable(f"cannot connect to {hub}: {error.reason or error}") from error
    except OSError as error:
        raise Unreachable(f"cannot connect to {hub}: {system_words(error)}") from error
    socket = Socket(connection)
    try:
        if any_time:
            return socket
        refuse_expired(hub, connection.transport.get_extra_info("ssl_object"))
    except Refused:
        socket.abort()
        raise
    return socket


def refuse_expired(hub: str, tls: ssl.SSLObject | None) -> None:
    """What NO_CHECK_TIME left unchecked and must not be.  Raises: Refused."""
    if tls is None or not tls.context.verify_flags & NO_CHECK_TIME:
        return
    if clock.wall().timestamp() >= _ends(tls):
        raise Refused(f"cannot trust the hub at {hub}: its certificate has expired", reason=OVER)


def _ends(tls: ssl.SSLObject) -> float:
    return ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))


def untrusted(hub: str, error: ssl.SSLCertVerificationError) -> str:
    """Why a hub's certificate is not trusted, for people."""
    text = f"cannot trust the hub at {hub}: {error.verify_message}"
    if error.verify_code in (_NOT_YET, _OVER):
        text += f"; this machine's clock says {clock.machine():%Y-%m-%d %H:%M} UTC: if that is wrong, set it"
    return text


async def knock(address: str, timeout_s: float) -> None:
    """Find out whether anybody answers at `host:port`, more cheaply than by dialling.  Raises: Unreachable.

    Behind a proxy this says nothing, so it does nothing."""
    if _named_proxy(address) is not None:
        return
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError as error:
        raise Unreachable(f"cannot connect to {address}: no answer in {timeout_s:.0f} s") from error
    except OSError as error:
        raise Unreachable(f"cannot connect to {address}: {system_words(error)}") from error
    writer.transport.abort()


def _named_proxy(hub: str) -> str | None:
    """The proxy that the environment names for `host:port`, if it does.

    One for everything (all_proxy) counts last, and not if it is a SOCKS proxy: those are set for other programs, too."""
    named = getproxies_environment()
    if not named or proxy_bypass(hub):
        return None
    every = named.get("all")
    return (
        named.get("wss")
        or named.get("https")
        or (every if every and every.startswith(("http://", "https://")) else None)
    )


def proxy_for(hub: str) -> str | None:
    """The same, if it can be used.  Raises: Refused.  The text does not repeat what the environment says, which may hold a
    password."""
    named = _named_proxy(hub)
    if named is None:
        return None
    try:
        scheme = parse_proxy(named).scheme
    except (InvalidProxy, ValueError) as error:
        raise Refused(
            "cannot use the proxy that the environment names (https_proxy): it is not http://host:port"
        ) from error
    if scheme not in ("http", "https"):
        raise Refused(f"cannot use the proxy that the environment names: {scheme} is not supported, http is")
    return named


def _closed(closed: ConnectionClosed) -> Closed:
    received = closed.rcvd
    if received is None:
        return Closed(1006, "")
    return Closed(received.code, received.reason[:120])
