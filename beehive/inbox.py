"""What has come on one stream and was not read yet, on a wire that has no credit.

Such a wire cannot be stopped for one stream alone.  So a stream may hold a little; then who receives waits a moment for its
reader, the other streams with it, and learns when that reader takes nothing at all."""

from __future__ import annotations

import asyncio
from collections import deque

from beehive.tunnelpeer import StreamReset

MAX_HELD = 256 * 1024
STALL_S = 5.0
"""How long a reader whose stream is full may hold up the others."""


class Inbox:
    """One task puts, one gets."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._failure: str | None = None
        self._readable = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, data: bytes) -> bool:
        """Bytes came.  False: the reader has not taken what came before, for too long."""
        try:
            async with asyncio.timeout(STALL_S):
                while self._held > MAX_HELD and self._failure is None:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        if data:
            self._chunks.append(data)
            self._held += len(data)
            self._readable.set()
        return True

    async def get(self) -> bytes:
        """Bytes, at least one; empty after `end`.  Raises StreamReset after `fail`, once all is read."""
        while not self._chunks:
            if self._ended:
                return b""
            self.check()
            self._readable.clear()
            await self._readable.wait()
        data = self._chunks.popleft()
        self._held -= len(data)
        self._room.set()
        return data

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._readable.set()

    def fail(self, reason: str) -> None:
        """The stream is over before its end; the first reason counts."""
        if self._failure is None:
            self._failure = reason
        self._readable.set()
        self._room.set()

    def check(self) -> None:
        """Raises StreamReset after `fail`."""
        if self._failure is not None:
            raise StreamReset(self._failure)

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def failed(self) -> bool:
        return self._failure is not None
