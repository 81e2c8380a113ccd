"""The tunnel of one stock KubeEdge edge at work.

Its wire has no credit: what a client does not take piles up here.  So a stream may hold a little; then the whole tunnel waits a
moment, and if the client still takes nothing, its stream is given up and the others go on."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Protocol

from beehive import clock, tunnel
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.inbox import Inbox
from beehive.stocktunnel import Kind, decode, encode
from beehive.tunnelpeer import MAX_URGENT, BinaryConnection, StreamReset
from cloudcore.cloudstream import stock

log = logging.getLogger(__name__)

MAX_STREAMS = 256
SILENCE_S = 20.0
"""A stock edge pings every 5 s."""
TICK_S = 1.0
IDLE_S = 4 * 3600.0
"""As on our own tunnel."""
WRITE_BYTES = 16 * 1024
"""Of one message to the edge: it queues 128 of them for each stream."""


class StockConnection(BinaryConnection, Protocol):
    """A websocket that sends text messages, whatever the bytes."""

    @property
    def heard(self) -> float:
        """When bytes last came, pings included (clock.monotonic)."""
        ...


class StockStream:
    """One stream; as `pipe.Opening` has it."""

    def __init__(self, peer: StockPeer, number: int, head: tunnel.Head) -> None:
        self.number = number
        self.touched = clock.monotonic()
        self._peer = peer
        self.head = head
        self._reader = stock.AnswerReader() if head.kind == "upgrade" else None
        self._inbox = Inbox()
        self._changed = asyncio.Event()
        # a log that is followed may say nothing for hours; anything else has an answer or an end soon
        self._answer = stock.plain_answer(head) if stock.follows(head) else None

    async def answered(self, timeout_s: float) -> tunnel.Answer:
        try:
            async with asyncio.timeout(timeout_s):
                while self._answer is None:
                    self._inbox.check()
                    if self._inbox.ended:
                        raise StreamReset("the edge ended the stream without an answer")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.reset("no answer in time")
            raise StreamReset(f"node did not answer in {timeout_s:g} s") from None
        return self._answer

    async def read(self) -> bytes:
        return await self._inbox.get()

    async def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            self._inbox.check()
            if self._inbox.ended:
                raise StreamReset("the stream is over")
            part, view = bytes(view[:WRITE_BYTES]), view[WRITE_BYTES:]
            self.touched = clock.monotonic()
            await self._peer.send(encode(self.number, Kind.DATA, part))

    async def end(self) -> None:
        """The wire cannot end one direction alone."""
        self._inbox.check()

    def reset(self, reason: str) -> None:
        self._peer.forget(self)
        self.fail(reason)

    @property
    def over(self) -> bool:
        return self._inbox.failed

    # what the peer's receive loop tells us

    async def took(self, data: bytes) -> bool:
        """Bytes came.  False: the client has not taken what came before, for too long."""
        self.touched = clock.monotonic()
        if self._reader is not None:
            data = self._reader.feed(data)
            self._answer = self._reader.answer
        elif self._answer is None:
            self._answer = stock.plain_answer(self.head)
        self._changed.set()
        kept_up = await self._inbox.put(data)
        if self._reader is not None and self._reader.over:
            self._inbox.end()
        return kept_up

    @property
    def ended(self) -> bool:
        return self._inbox.ended

    def end_of_edge(self) -> None:
        """The edge said that this stream is over."""
        self._inbox.end()
        if self._reader is None and self._answer is None:
            self._answer = stock.plain_answer(self.head)  # an empty page is a page
        self._changed.set()

    def fail(self, reason: str) -> None:
        self._inbox.fail(reason)
        self._changed.set()


class StockPeer:
    """The hub's end; as `pipe.Way` has it.  numbers: connect ids, of which no two streams of a hub have the same."""

    def __init__(self, node: str, connection: StockConnection, numbers: Iterator[int] | None = None) -> None:
        self._node = node
        self._connection = connection
        self._numbers = numbers or itertools.count(1)
        self._streams: dict[int, StockStream] = {}
        self._urgent: asyncio.Queue[bytes] = asyncio.Queue(MAX_URGENT)
        self._over: str | None = None
        self._strangers = 0

    async def run(self) -> None:
        reason = "the tunnel to the node was closed"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._flush(), name="stock tunnel urgent")
                group.create_task(self._watch(), name="stock tunnel watch")
                await self._receive()
        except BaseExceptionGroup as faults:
            first: BaseException = faults
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not isinstance(first, SkerryError):
                raise
            reason = f"the tunnel to the node was lost: {first}"
            raise first from None
        finally:
            self.fail(reason)

    async def open(self, head: tunnel.Head) -> StockStream:
        if self._over is not None:
            raise Unavailable(self._over)
        if len(self._streams) >= MAX_STREAMS:
            raise Unavailable(f"node has {len(self._streams)} streams open already", retry_after_s=5.0)
        number = next(self._numbers)
        message = stock.connect(number, head)
        stream = self._streams[number] = StockStream(self, number, head)
        try:
            await self.send(message)
        except BaseException:
            stream.reset("cancelled")
            raise
        return stream

    def fail(self, reason: str) -> None:
        if self._over is None:
            self._over = reason
        for stream in list(self._streams.values()):
            stream.fail(reason)
        self._streams.clear()

    @property
    def piped(self) -> bool:
        return any(stream.head.kind == "upgrade" for stream in self._streams.values())

    @property
    def count(self) -> int:
        """Streams that are not over."""
        return len(self._streams)

    def forget(self, stream: StockStream) -> None:
        """Drop a stream and tell the edge, unless it told us."""
        if self._streams.pop(stream.number, None) is None:
            return
        try:
            self._urgent.put_nowait(encode(stream.number, Kind.REMOVE_CONNECT))
        except asyncio.QueueFull:
            self.fail("the edge takes nothing")

    async def send(self, message: bytes) -> None:
        """Send one message.  Raises StreamReset when the tunnel is over."""
        if self._over is not None:
            raise StreamReset(self._over)
        try:
            await self._connection.send(message)
        except Unavailable as error:
            raise StreamReset(f"the tunnel to the node was lost: {error}") from error

    async def _flush(self) -> None:
        while True:
            await self._connection.send(await self._urgent.get())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = clock.monotonic()
            if self._over is not None:
                raise Unavailable(self._over)
            if now - self._connection.heard > SILENCE_S:
                raise Unavailable(f"nothing heard for {now - self._connection.heard:.0f} s")
            for stream in list(self._streams.values()):
                if now - stream.touched > IDLE_S:
                    stream.reset(f"idle for {IDLE_S / 3600:g} h")

    async def _receive(self) -> None:
        while True:
            frame = decode(await self._connection.recv())
            stream = self._streams.get(frame.connection)
            if stream is None:
                self._strangers += 1
                if self._strangers == 1 and frame.kind == Kind.DATA:
                    # once: what was on its way when a stream was given up is normal
                    log.debug(
                        "Node %s: message for stream %d, which is not open", self._node, frame.connection
                    )
            elif frame.kind == Kind.DATA:
                await self._data(stream, frame.data)
            elif frame.kind == Kind.REMOVE_CONNECT:
                del self._streams[frame.connection]
                stream.end_of_edge()

    async def _data(self, stream: StockStream, data: bytes) -> None:
        try:
            kept_up = await stream.took(data)
        except ProtocolError as error:
            stream.reset(str(error))
            return
        if not kept_up:
            log.info("Node %s: a client that reads nothing is given up", self._node)
            stream.reset("the client reads too slowly for this edge")
        elif stream.ended:
            self.forget(stream)
