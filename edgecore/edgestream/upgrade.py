"""A connection to the runtime's streaming server: one HTTP upgrade, then bytes both ways.

Nothing is understood of what flows after the upgrade; SPDY and websockets are the business of the two ends."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from beehive import tunnel
from beehive.errors import ProtocolError, Unavailable
from beehive.tunnelpeer import Stream, StreamReset

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """The runtime's answer, and the connection behind it.  `body`: the error text when it is not 101."""

    answer: tunnel.Answer
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def upgrade(url: str, method: str, headers: list[tuple[str, str]]) -> Upgraded:
    """Connect to a streaming URL of the runtime and ask for the upgrade.

    Raises Unavailable: not reachable, or not on this machine; ProtocolError: no HTTP answer."""
    split = urlsplit(url)
    host, port = split.hostname or "", split.port
    if split.scheme != "http" or port is None or not _is_local(host):
        raise Unavailable("the runtime's streaming server is not plain HTTP on this machine")
    target = split.path + (f"?{split.query}" if split.query else "")
    try:
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"cannot reach the runtime's streaming server: {error or 'no answer'}") from error
    try:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}:{port}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() in FORWARDED]
        writer.write(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode("latin-1"))
        async with asyncio.timeout(ANSWER_S):
            await writer.drain()
            answer = parse_head(await reader.readuntil(b"\r\n\r\n"))
            body = b"" if answer.status == 101 else await _error_body(reader, answer)
    except TimeoutError as error:
        writer.transport.abort()
        raise Unavailable(f"the runtime's streaming server did not answer in {ANSWER_S:g} s") from error
    except (OSError, asyncio.IncompleteReadError) as error:
        writer.transport.abort()
        raise Unavailable("the runtime's streaming server closed the connection") from error
    except asyncio.LimitOverrunError as error:
        writer.transport.abort()
        raise ProtocolError("the runtime's streaming server answered with a head that is too long") from error
    except BaseException:
        writer.transport.abort()
        raise
    return Upgraded(answer=answer, body=body, reader=reader, writer=writer)


def parse_head(head: bytes) -> tunnel.Answer:
    """The status line and headers of an HTTP/1.1 answer.  Raises ProtocolError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = first.split(" ", 2)
    if len(fields) < 2 or not fields[0].startswith("HTTP/1.") or not fields[1].isdecimal():
        raise ProtocolError("the runtime's streaming server does not speak HTTP")
    headers = []
    for line in lines:
        name, found, value = line.partition(":")
        if found:
            headers.append((name.strip(), value.strip()))
    return tunnel.Answer(status=int(fields[1]), headers=headers)


async def _error_body(reader: asyncio.StreamReader, answer: tunnel.Answer) -> bytes:
    length = answer.header("content-length")
    if not length.isdecimal():
        return b""
    return await reader.readexactly(min(int(length), MAX_ERROR_BODY))


async def pipe(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between a stream and a connection until the connection ends or either side gives up.

    Raises nothing: whichever way it ends, both are over then."""
    try:
        async with asyncio.TaskGroup() as group:
            down = group.create_task(_down(stream, writer), name="pipe down")
            try:
                while data := await reader.read(tunnel.MAX_DATA):
                    await stream.write(data)
                await stream.end()
            except (OSError, StreamReset):
                pass  # the other task sees the same end
            down.cancel()
    finally:
        writer.transport.abort()


async def _down(stream: Stream, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, StreamReset):
        writer.transport.abort()


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
