"""How many sandboxes and containers are being started at once.

A start is work for every core, so more of them at once than a few for each core makes all of them later.  But one that hangs
(a dead network plugin, a stuck disk) must not hold back the others: it loses its place after a while and goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

# A start on a slow board takes a second or two; what takes longer waits for something that is not a core.
PATIENCE_S = 5.0
# Getting a pod ready for its sandbox is a few files, and this process's own work: done for all pods at once, the first is ready
# when the last is, and the runtime idles until then.  What takes longer waits for something else.
PREPARING, PREPARING_PATIENCE_S = 2, 0.25


def parallel(configured: int) -> int:
    """So many at once; 0 means what suits this machine."""
    return configured if configured > 0 else max(4, 2 * (os.cpu_count() or 1))


class Starts:
    """First come, first served."""

    def __init__(self, places: int, patience_s: float = PATIENCE_S) -> None:
        self._places = asyncio.Semaphore(places)
        self._patience_s = patience_s

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place while something starts, or for as long as patience lasts."""
        leave = await self.take()
        try:
            yield
        finally:
            leave()

    async def take(self) -> Callable[[], None]:
        """A place; it is left by calling what is returned, which may be called again, or when patience is over."""
        await self._places.acquire()
        held = [True]

        def leave() -> None:
            timer.cancel()
            if held:
                held.clear()
                self._places.release()

        timer = asyncio.get_running_loop().call_later(self._patience_s, leave)
        return leave
