"""Gives memory back after many connections ended together.  The only cloud file that talks to the C library.

A connection's buffers are large and short-lived: without limits glibc keeps what they leave in its arenas, one for each thread,
and Python's collector seldom looks at what is old.  Elsewhere than on glibc this only collects.

The limits have a price: each block of 64 KiB and more is fetched from the kernel and given back, page by page.  Links do not
feel it, but the bytes of exec and port-forward go through blocks of that size, and most of their time went there.  So while
something is piped, blocks are kept."""

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
    _mallopt(M_ARENA_MAX, 2)
    frugal()


def frugal() -> None:
    """Big blocks go back to the kernel as soon as they are free."""
    _mallopt(M_MMAP_THRESHOLD, 64 * 1024)
    _mallopt(M_TRIM_THRESHOLD, 128 * 1024)


def roomy() -> None:
    """Blocks of the size that pipes use are kept for the next one."""
    _mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
    _mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024)


def _mallopt(what: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(what, value)


def tidy() -> None:
    """Collect, and give back what is free."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Tidier:
    """A supervised part: tidies when a storm of sessions or the last pipe is over.

    opened: how many sessions there were since the start.   piped: whether bytes of an exec, attach or port-forward may flow."""

    name = "memory"

    def __init__(self, opened: Callable[[], int], piped: Callable[[], bool]) -> None:
        self._opened = opened
        self._piped = piped
        self._roomy = False

    def expect(self) -> None:
        """A pipe begins."""
        if not self._roomy:
            self._roomy = True
            roomy()

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
            if self._roomy and not self._piped():
                self._roomy = False
                frugal()
                tidy()
