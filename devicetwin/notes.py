"""Notes of what is to be done for a device, worked off at a bounded pace.

A device that was quiet is served at once; one that is noted again and again is served once per `pace_s`, with all its notes
together.  So a flood of readings becomes a trickle of rows and messages, and the newest counts.  Devices that are due together
are served together, so that their rows share a commit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from beehive.errors import SkerryError
from devicetwin.ports import Clock

log = logging.getLogger(__name__)

# What a note says is to be done for a device.
SAVE, TWIN, STATE = 1, 2, 4

BATCH = 64
RETRY_S = 1.0  # after the work failed


class Notes:
    """`run` never returns.  work(id, what): does all of `what` (bits) for a device; a SkerryError from it means try again.

    quiet: bits that do not count for the pace when nothing else is noted with them."""

    def __init__(
        self, work: Callable[[str, int], Awaitable[None]], clock: Clock, *, pace_s: float, quiet: int = 0
    ) -> None:
        self._quiet = quiet
        self._work = work
        self._clock = clock
        self._pace_s = pace_s
        self._open: dict[str, int] = {}
        self._next: dict[str, float] = {}  # not before this
        self._locks: dict[str, asyncio.Lock] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, id_: str, what: int) -> None:
        if what:
            self._open[id_] = self._open.get(id_, 0) | what
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open:
                now = self._clock.monotonic()
                due = [i for i in self._open if self._next.get(i, now) <= now]
                if not due:
                    await asyncio.sleep(max(min(self._next[i] for i in self._open) - now, 0.001))
                    continue
                async with asyncio.TaskGroup() as group:
                    for id_ in due[:BATCH]:
                        group.create_task(self.flush(id_))
            now = self._clock.monotonic()
            self._next = {i: at for i, at in self._next.items() if at > now}

    async def flush(self, id_: str) -> None:
        """Do what is noted for a device now, whatever the pace.  One at a time per device, so that rows keep their order."""
        lock = self._locks.setdefault(id_, asyncio.Lock())
        async with lock:
            what = self._open.pop(id_, 0)
            if what & ~self._quiet:
                self._next[id_] = self._clock.monotonic() + self._pace_s
            if what:
                try:
                    await self._work(id_, what)
                except SkerryError as error:
                    log.error("Cannot store or send what changed of %s, trying again: %s", id_, error)
                    self.add(id_, what)
                    self._next[id_] = self._clock.monotonic() + RETRY_S
                except Exception:
                    # the boundary of one device (P9): tried again it would meet the same fault, and end all the others
                    log.exception("Cannot store or send what changed of %s", id_)
        # Without a waiter nobody else knows this lock; the next to come makes a new one.
        if not lock.locked() and self._locks.get(id_) is lock and id_ not in self._open:
            del self._locks[id_]
