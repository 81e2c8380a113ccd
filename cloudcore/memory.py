"""Gives memory back after many connections ended together.  The only cloud file that talks to the C library.

A connection's buffers are large and short-lived: without limits glibc keeps what they leave in its arenas, one for each thread,
and Python's collector seldom looks at what is old.  Elsewhere than on glibc this only collects."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable

LOOK_S = 2.0
MANY = 16
"""Sessions that began since the last time make it worth the work."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of mallopt(3)."""


def limit() -> None:
    """At the start: few arenas, and big blocks go back to the kernel as soon as they are free."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 2)
        libc.mallopt(M_MMAP_THRESHOLD, 64 * 1024)
        libc.mallopt(M_TRIM_THRESHOLD, 128 * 1024)


def tidy() -> None:
    """Collect, and give back what is free."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Tidier:
    """A supervised part: tidies when a storm of sessions is over.   opened: how many sessions there were since the start."""

    name = "memory"

    def __init__(self, opened: Callable[[], int]) -> None:
        self._opened = opened

    async def run(self) -> None:
        # what was made at the start stays: a collection need not look at it each time
        gc.collect()
        gc.freeze()
        done = seen = self._opened()
        while True:
            await asyncio.sleep(LOOK_S)
            count = self._opened()
            if count == seen and count - done >= MANY:
                done = count
                tidy()
            seen = count
