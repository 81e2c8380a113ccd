"""One end of a tunnel at work: carries the streams of `tunnel.Mux` over a connection that moves whole binary messages.

The loop that receives never waits for anything else: what must be sent because of a frame goes through a bounded queue, and
the bytes of a stream wait in that stream's own buffer, which its credit bounds.  So one reader that stalls stalls itself."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from beehive import clock, tunnel
from beehive.errors import ProtocolError, SkerryError, Unavailable

log = logging.getLogger(__name__)

MAX_URGENT = 1024
"""Frames that wait because the connection takes none; a peer that makes more of them than this is not ours."""
TICK_S = 1.0
IDLE_CHECK_S = 60.0


class BinaryConnection(Protocol):
    """A connection that moves whole binary messages, in order.

    `recv` and `send` raise Unavailable when it is over, ProtocolError for a message that is not binary or too long
    (`tunnel.MAX_FRAME`).  `send` waits while the peer takes nothing; several tasks may call it, and what they send goes out in
    the order of the calls.  The websocket under it needs no pings of its own."""

    async def recv(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class StreamReset(Unavailable):
    """The stream is over before its end; the text says why."""


class Stream:
    """One stream.  One task may read while another writes."""

    def __init__(self, peer: Peer, number: int, head: tunnel.Head) -> None:
        self.number = number
        self.head = head
        self._peer = peer
        self._inbox: deque[bytes] = deque()
        self._ended = False
        self._failure: str | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._answer: tunnel.Answer | None = None

    async def answered(self, timeout_s: float) -> tunnel.Answer:
        """The edge's answer.  Raises StreamReset, also when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._answer is None:
                    self._check()
                    self._readable.clear()
                    await self._readable.wait()
        except TimeoutError:
            self.reset("no answer in time")
            raise StreamReset(f"node did not answer in {timeout_s:g} s") from None
        return self._answer

    async def answer(self, answer: tunnel.Answer) -> None:
        """Answer the hub.  Raises StreamReset."""
        self._check()
        self._answer = answer
        await self._peer._send(self._peer.mux.answer(self.number, answer, clock.monotonic()))

    async def read(self) -> bytes:
        """Bytes that arrived, at least one; empty at the end.  Raises StreamReset."""
        while not self._inbox:
            if self._ended:
                return b""  # a reset after the end took nothing away
            self._check()
            self._readable.clear()
            await self._readable.wait()
        payload = self._inbox.popleft()
        await self._peer._send(self._peer.mux.consumed(self.number, len(payload)))
        return payload

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes; waits for the peer's credit.  Raises StreamReset."""
        view = memoryview(data)
        mux = self._peer.mux
        while view:
            self._check()
            room = mux.room(self.number)
            if room is None:
                raise StreamReset("the stream is over")
            if room == 0:
                self._writable.clear()
                await self._writable.wait()
                continue
            await self._peer._send(mux.data(self.number, view[:room], clock.monotonic()))
            view = view[room:]

    async def end(self) -> None:
        """No more bytes from us; the peer may go on.  Raises StreamReset."""
        self._check()
        if self._peer.mux.room(self.number) is not None:
            await self._peer._send(self._peer.mux.data(self.number, b"", clock.monotonic(), end=True))

    def reset(self, reason: str) -> None:
        """Give the stream up at once, in both directions.  Harmless when it is over."""
        frame = self._peer.forget(self, reason)
        self._fail(reason)
        if frame is not None:
            self._peer.send_soon(frame)

    @property
    def has_answered(self) -> bool:
        """Whether the answer has been given, by us or by the peer."""
        return self._answer is not None

    @property
    def over(self) -> bool:
        """Whether the stream was reset, by us, by the peer or by the loss of the tunnel."""
        return self._failure is not None

    def _check(self) -> None:
        if self._failure is not None:
            raise StreamReset(self._failure)

    # what the peer's receive loop tells us

    def _answered(self, answer: tunnel.Answer) -> None:
        self._answer = answer
        self._readable.set()

    def _data(self, payload: bytes, *, end: bool) -> None:
        if payload:
            self._inbox.append(payload)
        self._ended = self._ended or end
        self._readable.set()

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._readable.set()
        self._writable.set()


Handler = Callable[[Stream], Awaitable[None]]


class Peer:
    """One end of one tunnel.  `run` serves it until the connection is over; streams live no longer than that.

    handler (edge): serves one stream and may raise SkerryError; the stream is reset when it returns without having ended it."""

    def __init__(
        self,
        connection: BinaryConnection,
        role: tunnel.Role,
        *,
        handler: Handler | None = None,
        limits: tunnel.Limits | None = None,
    ) -> None:
        default = tunnel.HUB_LIMITS if role is tunnel.Role.HUB else tunnel.EDGE_LIMITS
        self.mux = tunnel.Mux(role, limits or default)
        self._connection = connection
        self._handler = handler
        self._streams: dict[int, Stream] = {}
        self._urgent: asyncio.Queue[bytes] = asyncio.Queue(MAX_URGENT)
        self._heard = clock.monotonic()
        self._over: str | None = None

    async def run(self) -> None:
        """Serve the tunnel.  Raises Unavailable when the connection is lost or silent, ProtocolError for a bad peer."""
        self._heard = clock.monotonic()
        reason = "the tunnel to the node was closed"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._flush(), name="tunnel urgent")
                group.create_task(self._watch(), name="tunnel watch")
                await self._receive(group)
        except BaseExceptionGroup as faults:
            first = _first(faults)
            if not isinstance(first, SkerryError):
                raise
            reason = f"the tunnel to the node was lost: {first}"
            raise first from None
        finally:
            self.fail(reason)

    async def open(self, head: tunnel.Head) -> Stream:
        """Open a stream (hub).  Raises Unavailable: tunnel lost, too many streams; ProtocolError: head too long."""
        if self._over is not None:
            raise Unavailable(self._over)
        number, frame = self.mux.open(head, clock.monotonic())
        stream = self._streams[number] = Stream(self, number, head)
        try:
            await self._send(frame)
        except BaseException:
            self.forget(stream, "cancelled")
            raise
        return stream

    @property
    def piped(self) -> bool:
        """Whether a stream is open that is a two-way pipe."""
        return any(stream.head.kind == "upgrade" for stream in self._streams.values())

    def fail(self, reason: str) -> None:
        """Reset every stream here, without telling the peer: it is gone."""
        if self._over is None:
            self._over = reason
        for stream in list(self._streams.values()):
            stream._fail(reason)
        self._streams.clear()

    def forget(self, stream: Stream, reason: str) -> bytes | None:
        """Drop a stream; the frame that tells the peer, when it has to know."""
        if self._streams.pop(stream.number, None) is None:
            return None
        return self.mux.reset(stream.number, reason)

    def send_soon(self, frame: bytes) -> None:
        """Send a small frame without waiting.  Over the bound the connection is given up."""
        try:
            self._urgent.put_nowait(frame)
        except asyncio.QueueFull:
            self.fail("the peer takes nothing")

    async def _send(self, frame: bytes | None) -> None:
        if frame is None:
            return
        if self._over is not None:
            raise StreamReset(self._over)
        try:
            await self._connection.send(frame)
        except Unavailable as error:
            raise StreamReset(f"the tunnel to the node was lost: {error}") from error

    async def _flush(self) -> None:
        while True:
            await self._connection.send(await self._urgent.get())

    async def _watch(self) -> None:
        pinged = idle_checked = clock.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = clock.monotonic()
            if self._over is not None:
                raise Unavailable(self._over)
            if now - self._heard > tunnel.SILENCE_S:
                raise Unavailable(f"nothing heard for {now - self._heard:.0f} s")
            if now - self._heard >= tunnel.PING_S and now - pinged >= tunnel.PING_S:
                pinged = now
                self.send_soon(self.mux.ping())
            if now - idle_checked >= IDLE_CHECK_S:
                idle_checked = now
                for number in self.mux.expired(now):
                    if (stream := self._streams.get(number)) is not None:
                        stream.reset(f"idle for {self.mux.limits.idle_s / 3600:g} h")

    async def _receive(self, group: asyncio.TaskGroup) -> None:
        while True:
            frame = await self._connection.recv()
            now = self._heard = clock.monotonic()
            match self.mux.receive(frame, now):
                case None:
                    pass
                case tunnel.Data(number, payload, end):
                    if (stream := self._streams.get(number)) is not None:
                        stream._data(payload, end=end)
                case tunnel.Writable(number):
                    if (stream := self._streams.get(number)) is not None:
                        stream._writable.set()
                case tunnel.Pinged():
                    self.send_soon(self.mux.pong())
                case tunnel.Opened(number, head):
                    stream = self._streams[number] = Stream(self, number, head)
                    group.create_task(self._serve(stream), name=f"tunnel stream {number}")
                case tunnel.Answered(number, answer):
                    if (stream := self._streams.get(number)) is not None:
                        stream._answered(answer)
                case tunnel.Reset(number, reason):
                    if (stream := self._streams.pop(number, None)) is not None:
                        stream._fail(reason)
                case tunnel.Excess(number):
                    self.send_soon(self.mux.refuse(number, "too many streams"))

    async def _serve(self, stream: Stream) -> None:
        if self._handler is None:
            raise ProtocolError("nobody serves streams here")
        reason = "finished"
        try:
            await self._handler(stream)
        except SkerryError as error:
            # over streams that the hub gave up there is nothing to say
            if not stream.over:
                log.info("Cannot serve %s: %s", stream.head.path.partition("?")[0], error)
            reason = str(error)
        except Exception as error:  # the boundary of one stream: a fault in it must not end the others
            log.exception("Stream %d failed: %s", stream.number, stream.head.path.partition("?")[0])
            reason = f"internal error: {type(error).__name__}"
        finally:
            if not stream.over:
                stream.reset(reason)


def _first(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    """The fault that ended a group: the others are its echoes."""
    first: BaseException = faults
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
