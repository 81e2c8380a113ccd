"""Bytes between a client of the API and a stream of a tunnel.

Three ways: the body of a plain answer; a connection taken over whole after its upgrade; and a websocket whose messages are
bytes of the connection behind it.  None of them understands what it carries."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from aiohttp import web

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream.pipe import Pipe

MAX_WAITING = 256 * 1024
"""Bytes read from a client that its stream has not taken; beyond it the client's connection is not read."""

LEAVE_S = 2.0
"""How long a client may take to read the end."""

GONE_S = 1.0
"""How often it is looked whether a client is still there."""

ANSWER_HEADERS = frozenset({"content-type", "content-encoding", "cache-control"})
UPGRADE_HEADERS = frozenset(
    {"connection", "upgrade", "x-stream-protocol-version", "sec-websocket-accept", "sec-websocket-protocol"}
)


class Taken(web.StreamResponse):
    """The answer of a handler that has taken the connection over: there is nothing more to write."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _RawClient(asyncio.Protocol):
    """A client's connection as raw bytes, in place of aiohttp's protocol, which is told of the end."""

    def __init__(self, before: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        self._before = before
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._reading = True
        self._ended = False
        self._lost = asyncio.Event()
        self._leaving = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        self._chunks.append(data)
        self._held += len(data)
        if self._held > MAX_WAITING and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._readable.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost.set()
        self._readable.set()
        self._writable.set()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read(self) -> bytes:
        """Bytes, at least one; empty when the client has ended."""
        while not self._chunks:
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        if not self._reading and not self._lost.is_set():
            self._reading = True
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Write; waits while the client takes nothing.  Raises Unavailable when it is gone."""
        if self._lost.is_set():
            raise Unavailable("the client went away")
        self._transport.write(data)
        await self._writable.wait()

    async def leave(self) -> None:
        """Close once all is written.

        What the client still sends is read and dropped for a moment: closing a connection with bytes unread resets it, and a
        reset takes away what the client has not read."""
        self._leaving = True
        self._chunks.clear()
        if not self._lost.is_set():
            self._transport.resume_reading()
            self._transport.close()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._lost.wait()
        except TimeoutError:
            pass  # one that does not even say farewell
        finally:
            self._transport.abort()


def body_of(answer: tunnel.Answer) -> list[tuple[str, str]]:
    """Headers of an edge's answer that a client is shown."""
    return [(k, v) for k, v in answer.headers if k.lower() in ANSWER_HEADERS]


async def relay_body(request: web.Request, stream: Pipe, answer: tunnel.Answer) -> web.StreamResponse:
    """Give a plain answer's body to the client as it comes.

    When the stream breaks, the client's connection is cut: that is how it learns that the body is not whole."""
    response = web.StreamResponse(status=answer.status, headers=body_of(answer))
    try:
        await response.prepare(request)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_until_gone(request, stream), name="client watch")
            failure = await _copy(stream, response)
            watch.cancel()
        if failure is not None:
            if request.transport is not None:
                request.transport.abort()
            raise failure
        await response.write_eof()
    finally:
        stream.reset("the client went away")
    return response


async def _copy(stream: Pipe, response: web.StreamResponse) -> StreamReset | ConnectionError | None:
    """Copy to the end; what broke it off is returned, so that a group does not wrap it."""
    try:
        while data := await stream.read():
            await response.write(data)
    except (StreamReset, ConnectionError) as error:
        return error
    return None


async def _until_gone(request: web.Request, stream: Pipe) -> None:
    """End the stream of a client that has gone: a log that is silent would not notice for hours."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(GONE_S)
    stream.reset("the client went away")


async def relay_upgrade(request: web.Request, stream: Pipe, answer: tunnel.Answer) -> web.StreamResponse:
    """Pass the edge's 101 on and carry bytes both ways until either side ends."""
    transport = request.transport
    if transport is None:
        stream.reset("the client went away")
        raise Unavailable("the client went away")
    client = _RawClient(request.protocol, transport)
    transport.set_protocol(client)
    lines = ["HTTP/1.1 101 Switching Protocols"]
    lines += [f"{k}: {v}" for k, v in answer.headers if k.lower() in UPGRADE_HEADERS]
    try:
        await client.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await carry(client, stream)
    except Unavailable:
        pass  # the client is gone, which is one of the ways a stream ends
    except BaseException:
        transport.abort()  # we are stopping
        raise
    finally:
        stream.reset("the client went away")
    await client.leave()
    return Taken(101)


async def carry(client: _RawClient, stream: Pipe) -> None:
    """Both directions at once, until one of the two has nothing more to give."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_from_client(client, stream), name="from the client")
        try:
            while data := await stream.read():
                await client.write(data)
        except Unavailable:
            pass  # StreamReset too: the connection is closed next, which is all a raw client can be told
        up.cancel()


async def _from_client(client: _RawClient, stream: Pipe) -> None:
    try:
        while data := await client.read():
            await stream.write(data)
    except StreamReset:
        return
    # nobody half-closes an upgraded connection: a client that ended is gone
    stream.reset("the client went away")


async def relay_tunnelled(socket: web.WebSocketResponse, stream: Pipe) -> None:
    """Carry the bytes of a stream in the binary messages of a websocket that is open."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_from_socket(socket, stream), name="from the websocket")
        try:
            while data := await stream.read():
                await socket.send_bytes(data)
        except (Unavailable, ConnectionError):
            pass
        up.cancel()
    stream.reset("the client went away")
    with contextlib.suppress(ConnectionError, TimeoutError):
        await socket.close()


async def _from_socket(socket: web.WebSocketResponse, stream: Pipe) -> None:
    try:
        async for message in socket:
            if message.type is not web.WSMsgType.BINARY:
                break
            if message.data:
                await stream.write(message.data)
    except StreamReset:
        return
    stream.reset("the client went away")
