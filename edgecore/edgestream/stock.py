"""The edge's end of KubeEdge's own tunnel, for a cloud that is stock KubeEdge.

What such a cloud asks is answered by the same endpoints as on our own tunnel.  Its wire has no credit: what a pod does not take
holds up the tunnel for a moment, and then its stream is given up.  Logs and metrics have no status there, so a refusal is their
text.  Source: KubeEdge, edge/pkg/edgestream and pkg/stream."""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from beehive import tunnel
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.inbox import Inbox
from beehive.stocktunnel import CONNECTS, Frame, Kind, decode, encode, read_connect
from beehive.tunnelpeer import BinaryConnection, StreamReset
from edgecore.edgestream.ports import Served

log = logging.getLogger(__name__)

MAX_STREAMS = 256
DATA_BYTES = 16 * 1024
"""Of one message: a stock edge sends 256 at a time, and a stock cloud takes up to 1 MiB."""
MAX_REFUSAL = 16 * 1024
PING_S = 5.0
"""As a stock edge pings."""
FIRST_PONG_S = 150.0
"""A stock cloud reads nothing before it has written to the Node, which it tries for two minutes."""
PONG_S = 60.0
"""Nor while one of its clients reads slowly."""


class StockConnection(BinaryConnection, Protocol):
    """A websocket that sends text messages, whatever the bytes."""

    async def ping(self, timeout_s: float) -> None:
        """Ask for a sign of life.  Raises Unavailable when none comes in time."""
        ...


class StockStream:
    """One stream that the cloud asked for; as `ports.Served` has it."""

    def __init__(self, owner: StockTunnel, number: int, head: tunnel.Head) -> None:
        self.head = head
        self.number = number
        self._owner = owner
        self._answer: tunnel.Answer | None = None
        self._refusal = bytearray()
        self.inbox = Inbox()

    @property
    def has_answered(self) -> bool:
        return self._answer is not None

    @property
    def over(self) -> bool:
        return self.inbox.failed

    async def answer(self, answer: tunnel.Answer) -> None:
        self._answer = answer
        if self.head.kind == "upgrade" and answer.status == 101:
            await self._send(_head(answer, answer.headers))

    async def read(self) -> bytes:
        return await self.inbox.get()

    async def write(self, data: bytes | memoryview) -> None:
        assert self._answer is not None, "a stream is answered before it is written to"
        if self.head.kind == "upgrade" and self._answer.status != 101:
            # a client reads a refusal by its length, which is not known before its end
            self._refusal += data[: MAX_REFUSAL - len(self._refusal)]
            return
        for at in range(0, len(data), DATA_BYTES):
            await self._send(bytes(data[at : at + DATA_BYTES]))

    async def end(self) -> None:
        answer = self._answer
        if answer is not None and self.head.kind == "upgrade" and answer.status != 101:
            length = ("Content-Length", str(len(self._refusal)))
            await self._send(_head(answer, [*answer.headers, length]) + bytes(self._refusal))
        self.inbox.check()
        await self._owner.finish(self)

    async def _send(self, data: bytes) -> None:
        self.inbox.check()
        await self._owner.send(encode(self.number, Kind.DATA, data))


class StockTunnel:
    """One tunnel.  handler: answers one stream; see `kubelet.Kubelet.serve`."""

    def __init__(self, connection: StockConnection, handler: Callable[[Served], Awaitable[None]]) -> None:
        self._connection = connection
        self._handler = handler
        self._streams: dict[int, StockStream] = {}

    async def run(self) -> None:
        """Serve it until it is over.  Raises Unavailable, ProtocolError."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ping(), name="stock tunnel ping")
                await self._receive(group)
        except BaseExceptionGroup as faults:
            first: BaseException = faults
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not isinstance(first, SkerryError):
                raise
            raise first from None
        finally:
            for stream in self._streams.values():
                stream.inbox.fail("the tunnel was lost")
            self._streams.clear()

    async def send(self, message: bytes) -> None:
        """Send one message.  Raises StreamReset when the tunnel is over."""
        try:
            await self._connection.send(message)
        except Unavailable as error:
            raise StreamReset(f"the tunnel was lost: {error}") from error

    async def finish(self, stream: StockStream) -> None:
        """The stream is over; the cloud waits for that word."""
        if self._streams.pop(stream.number, None) is not None:
            await self.send(encode(stream.number, Kind.REMOVE_CONNECT))
        stream.inbox.fail("the stream is over")

    async def _ping(self) -> None:
        await self._connection.ping(FIRST_PONG_S)
        while True:
            await asyncio.sleep(PING_S)
            await self._connection.ping(PONG_S)

    async def _receive(self, group: asyncio.TaskGroup) -> None:
        while True:
            frame = decode(await self._connection.recv())
            if frame.kind in CONNECTS:
                await self._connect(frame, group)
            elif frame.kind == Kind.CLOSE_CONNECT:
                raise Unavailable(f"the cloud ended it: {_printable(frame.data)}")
            elif (stream := self._streams.get(frame.connection)) is None:
                continue
            elif frame.kind == Kind.REMOVE_CONNECT:
                del self._streams[frame.connection]
                stream.inbox.fail("the client went away")
            elif frame.kind == Kind.DATA and not await stream.inbox.put(frame.data):
                log.info("A container takes nothing; its stream is given up: %s", _where(stream))
                stream.inbox.fail("the container takes nothing")

    async def _connect(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        try:
            number, head = read_connect(frame)
        except ProtocolError as error:
            log.info("The cloud asks what cannot be read: %s", error)
            await self.send(encode(frame.connection, Kind.REMOVE_CONNECT))
            return
        if number in self._streams or len(self._streams) >= MAX_STREAMS:
            log.info("The cloud asks too much: %d streams are open", len(self._streams))
            await self.send(encode(number, Kind.REMOVE_CONNECT))
            return
        stream = self._streams[number] = StockStream(self, number, head)
        group.create_task(self._serve(stream), name=f"stock stream {number}")

    async def _serve(self, stream: StockStream) -> None:
        try:
            await self._handler(stream)
        except SkerryError as error:
            if not stream.over:
                log.info("Cannot serve %s: %s", _where(stream), error)
        except Exception:  # the boundary of one stream: a fault in it must not end the others
            log.exception("Stream %d failed: %s", stream.number, _where(stream))
        finally:
            try:
                await self.finish(stream)
            except StreamReset:
                log.debug("No word of the end of stream %d: the tunnel is over", stream.number)


def _head(answer: tunnel.Answer, headers: list[tuple[str, str]]) -> bytes:
    """The answer as a kubelet writes it."""
    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _where(stream: StockStream) -> str:
    return stream.head.path.partition("?")[0]


def _printable(text: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200].decode("utf-8", "replace"))
