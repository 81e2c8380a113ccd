"""A connection to the runtime's streaming server: one HTTP upgrade, then bytes both ways.

Nothing is understood of what flows after the upgrade; SPDY and websockets are the business of the two ends."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from beehive import tunnel
from beehive.errors import ProtocolError, Unavailable
from beehive.tunnelpeer import StreamReset
from edgecore.edgestream.ports import Served

DIAL_S = 10.0
ANSWER_S = 30.0
MAX_HEAD = 16 * 1024
MAX_ERROR_BODY = 16 * 1024

FORWARDED = frozenset(
    {
        "connection",
        "upgrade",
        "x-stream-protocol-version",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)
"""Request headers that take part in an upgrade.  The others, credentials among them, are not the runtime's business."""

_TARGET = re.compile("/[\x21-\x7e]*")
_NOWHERE = ipaddress.IPv4Address(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """The runtime's answer, and the connection behind it.  `early`: what came with the answer, or the error's text."""

    answer: tunnel.Answer
    early: bytes
    connection: socket.socket


async def upgrade(url: str, method: str, headers: list[tuple[str, str]]) -> Upgraded:
    """Connect to a streaming URL of the runtime and ask for the upgrade.

    Raises Unavailable: not reachable, or not on this machine; ProtocolError: no HTTP answer."""
    host, port, netloc, target = _local_address(url)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {netloc}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() in FORWARDED]
    request = ("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode("latin-1")
    connection = await _connect(host, port)
    try:
        async with asyncio.timeout(ANSWER_S):
            answer, early = await _ask(connection, request)
    except TimeoutError as error:
        connection.close()
        raise Unavailable(f"the runtime's streaming server did not answer in {ANSWER_S:g} s") from error
    except OSError as error:
        connection.close()
        raise Unavailable(f"the runtime's streaming server broke off: {error}") from error
    except BaseException:
        connection.close()
        raise
    return Upgraded(answer=answer, early=early, connection=connection)


async def _connect(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> socket.socket:
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(DIAL_S):
            await asyncio.get_running_loop().sock_connect(connection, (str(host), port))
    except (OSError, TimeoutError) as error:
        connection.close()
        raise Unavailable(f"cannot reach the runtime's streaming server: {error or 'no answer'}") from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _ask(connection: socket.socket, request: bytes) -> tuple[tunnel.Answer, bytes]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, request)
    got = b""
    while b"\r\n\r\n" not in got:
        if len(got) > MAX_HEAD:
            raise ProtocolError("the runtime's streaming server answered with a head that is too long")
        data = await loop.sock_recv(connection, MAX_HEAD)
        if not data:
            raise Unavailable("the runtime's streaming server closed the connection")
        got += data
    head, _, rest = got.partition(b"\r\n\r\n")
    answer = tunnel.read_head(head, "the runtime's streaming server")
    if answer.status != 101:
        length = answer.header("content-length")
        wanted = min(int(length), MAX_ERROR_BODY) if length.isdecimal() and len(length) < 10 else 0
        while len(rest) < wanted and (data := await loop.sock_recv(connection, wanted)):
            rest += data
        rest = rest[:wanted]
    return answer, rest


async def pipe(stream: Served, connection: socket.socket, early: bytes) -> None:
    """Carry bytes between a stream and a connection until the connection ends or the hub gives up.

    The two directions fail apart: a runtime that reads no more may have said its last words already, and they must arrive.
    That is why this works on the socket: asyncio's streams drop what was not read when a write fails."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        down = group.create_task(_down(stream, connection), name="pipe down")
        try:
            data = early
            while data or (data := await _receive(loop, connection)):
                await stream.write(data)
                data = b""
            await stream.end()
        except StreamReset:
            pass  # the hub has forgotten it: there is nobody to tell
        down.cancel()


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    """Bytes; empty at the end.  Go closes with a reset when it leaves bytes unread, so a reset is an end, too."""
    try:
        return await loop.sock_recv(connection, tunnel.MAX_DATA)
    except OSError:
        return b""


async def _down(stream: Served, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await stream.read():
            await loop.sock_sendall(connection, data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the runtime reads no more; the credit that is not given stops the hub
    except StreamReset:
        # wakes the reading direction too
        _shut(connection)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is down already


def _local_address(url: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, str, str]:
    """Address, port, `Host` header and request target of a streaming URL.  Raises Unavailable for what no runtime names."""
    try:
        split = urlsplit(url)
        host = ipaddress.ip_address(split.hostname or "")
        port = split.port
    except ValueError:
        port, host, split = None, _NOWHERE, urlsplit("")
    target = split.path + (f"?{split.query}" if split.query else "")
    if split.scheme != "http" or port is None or not host.is_loopback or not _TARGET.fullmatch(target):
        raise Unavailable("the runtime's streaming server is not plain HTTP on this machine")
    return host, port, split.netloc, target
