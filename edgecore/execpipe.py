"""A program in a container with what is piped in and out: what `edgecore exec -i` does once the runtime waits for a client.

The bytes go over SPDY to the runtime's streaming server, since runtimes know the end of what is piped in only there.

Source: Kubernetes, client-go tools/remotecommand/v4.go; kubelet's remotecommand constants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from beehive import spdy
from beehive.errors import Unavailable
from edgecore.terminal import exit_code
from edgecore.typedin import TypedIn

UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "SPDY/3.1"),
    ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
]
READ = 32 * 1024
MAX_WAITING = 16
"""Pieces of input that wait to be sent; what is piped in faster than the program reads is held up."""
SIGPIPE = 128 + 13


@dataclass(slots=True)
class Streams:
    """The pure part: what is piped in to SPDY bytes, SPDY bytes to what comes out.   said: what became of the program."""

    said: bytes = b""
    _spdy: spdy.Client = field(default_factory=spdy.Client)
    _names: dict[int, str] = field(default_factory=dict)
    _stdin: int = 0

    def opening(self) -> bytes:
        """The streams that the runtime waits for; it begins when all have come."""
        out = b""
        for name in ("error", "stdin", "stdout", "stderr"):
            stream, frame = self._spdy.open({"streamtype": name})
            self._names[stream] = name
            if name == "stdin":
                self._stdin = stream
            out += frame
        return out

    def piped_in(self, data: bytes) -> bytes:
        """Nothing says that there is no more."""
        return self._spdy.data(self._stdin, data, fin=not data)

    def receive(self, data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
        """What comes out, as (stdout or stderr, bytes), and what to send back.  Raises ProtocolError."""
        out: list[tuple[str, bytes]] = []
        back = b""
        for event in self._spdy.receive(data):
            if isinstance(event, spdy.Reply):
                back += event.payload
            elif self._names[event.stream] == "error":
                self.said += event.payload
            elif event.payload:
                out.append((self._names[event.stream], event.payload))
        return out, back


async def run(connection: socket.socket, early: bytes, source: int, out: int, err: int) -> int:
    """Carry input and output until the program ends; its exit code.   connection: upgraded to SPDY, with what came early.
    source, out, err: file descriptors.

    Raises: SkerryError (it did not start), Unavailable (the runtime went away), ProtocolError."""
    loop = asyncio.get_running_loop()
    streams, sending = Streams(), asyncio.Lock()
    piped = TypedIn(source, most=MAX_WAITING, size=READ)

    async def send(data: bytes) -> None:
        async with sending:
            await loop.sock_sendall(connection, data)

    async def feed() -> None:
        # when the runtime reads no more, whoever hears it tells what became of the program
        with contextlib.suppress(OSError):
            while True:
                data = await piped.get()
                await send(streams.piped_in(data))
                if not data:
                    return

    await send(streams.opening())
    piped.start()
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(feed(), name="stdin up")
        try:
            await _carry(connection, early, streams, send, {"stdout": out, "stderr": err})
        except BrokenPipeError:
            return SIGPIPE
        finally:
            feeding.cancel()
    return exit_code(streams.said)


async def _carry(
    connection: socket.socket,
    early: bytes,
    streams: Streams,
    send: Callable[[bytes], Awaitable[None]],
    out: Mapping[str, int],
) -> None:
    """Until the runtime says what became of the program.  Raises BrokenPipeError: nobody reads what comes out."""
    loop = asyncio.get_running_loop()
    data = early
    while not streams.said:
        if not data:
            try:
                data = await loop.sock_recv(connection, READ)
            except OSError:
                data = b""
            if not data:
                raise Unavailable("the runtime ended the session without a word about the program")
        shown, back = streams.receive(data)
        data = b""
        if back:
            with contextlib.suppress(OSError):
                await send(back)
        for name, piece in shown:
            view = memoryview(piece)
            while view:
                view = view[await asyncio.to_thread(os.write, out[name], view) :]
