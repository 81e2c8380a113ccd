"""What the node and its pods use now, for the local API: rates need two readings, and nobody takes any while nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FIRST_S = 1.0
"""Between the two readings of somebody who is the first to ask, or the first for a while."""
FRESH_S = 60.0
"""A reading that old still says what is used now."""


class PodMeasures:
    """The metaserver's `Measures`.   read: a Summary, whose rates are since the reading before it."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], *, monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._last: float | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> tuple[bytes, float]:
        """Raises Unavailable (the runtime)."""
        async with self._lock:
            now = self._monotonic()
            if self._last is None or now - self._last > FRESH_S:
                await self._read()
                self._last = now
            if (left := self._last + FIRST_S - self._monotonic()) > 0:
                await asyncio.sleep(left)
            before, self._last = self._last, self._monotonic()
            return await self._read(), self._last - before
