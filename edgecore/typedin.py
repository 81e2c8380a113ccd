"""What comes in at a terminal or a pipe, piece by piece, without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
import threading


class TypedIn:
    """Reads a file descriptor in a thread that nobody waits for, since a read there cannot be called back.

    most: pieces that may wait; whoever writes faster than `get` is called is held up.   size: of a piece at most, bytes."""

    def __init__(self, source: int, *, most: int, size: int) -> None:
        self._source = source
        self._size = size
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(most)

    def start(self) -> None:
        """Begin to read; in the event loop that `get` is called in."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="typed in", daemon=True).start()

    async def get(self) -> bytes:
        """The next piece; empty at the end, and then no more."""
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                piece = os.read(self._source, self._size)
            except OSError:
                piece = b""
            self._room.acquire()
            try:
                loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
            except RuntimeError:
                return  # the program has ended, and the loop with it
            if not piece:
                return
