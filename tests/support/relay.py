"""A TCP relay between two ends of a link that makes the line as bad as a test wants, on a kernel without netem.

It delays, throttles, cuts and swallows bytes.  It cannot reorder or lose single packets: TCP would repair both, so what
an application sees of them is delay, and that it can do.  A *blackhole* accepts and forwards nothing while both sockets stay
open, as a mast whose backhaul died does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from types import TracebackType

CHUNK = 64 * 1024


@dataclass(slots=True)
class Line:
    """How bad the line is.  May be changed while connections are open.

    delay_s, jitter_s: one way, each direction.   rate: bytes per second and direction, 0 for no limit; of each connection, or
    `shared` by all of them in turns."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate: float = 0.0
    shared: bool = False
    piece: int = 0
    """At most so many bytes go on at a time, each in a packet of its own; 0 for as many as there are."""
    gather_s: float = 0.0
    """Bytes are held back for so long to go on together, as a proxy with buffers does."""
    blackhole: bool = False
    mute_down: bool = False
    """Only what the far end says is swallowed."""
    refuse: bool = False


@dataclass(slots=True)
class Relay:
    """Listens on loopback and forwards to `host:port`.  Use as an async context manager."""

    host: str
    port: int
    line: Line = field(default_factory=Line)
    listen_port: int = 0
    listen_host: str = "127.0.0.1"
    bytes_up: int = 0
    bytes_down: int = 0
    connections: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _turns: tuple[asyncio.Lock, asyncio.Lock] = field(
        default_factory=lambda: (asyncio.Lock(), asyncio.Lock())
    )
    _rng: random.Random = field(default_factory=lambda: random.Random(0))

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, self.listen_host, self.listen_port)
        self.listen_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        while self._open:
            self.cut()
            await asyncio.sleep(0.01)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every open connection."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.line.refuse:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            onward_reader, onward_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, onward_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, onward_writer, up=True))
                group.create_task(self._pump(onward_reader, writer, up=False))
        finally:
            self._open -= {writer, onward_writer}
            for each in (writer, onward_writer):
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Two loops with a queue between them, so that delay does not lower the throughput."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)

        async def take() -> None:
            due = 0.0
            data = b"x"
            while data:
                try:
                    data = await reader.read(CHUNK)
                    if self.line.gather_s and data:
                        await asyncio.sleep(self.line.gather_s)
                except OSError:
                    data = b""
                # bytes of one connection stay in order, whatever the jitter
                due = max(due, loop.time() + self.line.delay_s + self._rng.random() * self.line.jitter_s)
                await queue.put((due, data))

        async def give() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                while self.line.blackhole or (self.line.mute_down and not up):
                    await asyncio.sleep(0.02)
                if not data:
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                    return
                if self.line.rate and self.line.shared:
                    async with self._turns[up]:
                        await asyncio.sleep(len(data) / self.line.rate)
                elif self.line.rate:
                    await asyncio.sleep(len(data) / self.line.rate)
                if up:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                try:
                    for at in range(0, len(data), self.line.piece or len(data)):
                        writer.write(data[at : at + (self.line.piece or len(data))])
                        if self.line.piece:
                            await asyncio.sleep(0)
                    await writer.drain()
                except OSError:
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            group.create_task(give())
