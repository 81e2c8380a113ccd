"""Watches for hardware that rules want, and tells of it.

The decisions are the tracker's; this is the loop around it: events in, changes out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from mappers.udev.found import Found
from mappers.udev.rules import Rule
from mappers.udev.tracker import Change, Tracker
from mappers.udev.udev import Hardware, source

log = logging.getLogger(__name__)

RESYNC_S = 60.0

Tell = Callable[[Change], Awaitable[None]]


class Watcher:
    """`run` never returns.  Raises: Unavailable if hardware cannot be watched here."""

    def __init__(
        self,
        rules: Sequence[Rule],
        tell: Tell,
        *,
        settle_s: float = 0.5,
        grace_s: float = 5.0,
        resync_s: float = RESYNC_S,
        events_from: str = "",
    ) -> None:
        self._tell = tell
        self._resync_s = resync_s
        self._source = events_from or source()
        self._subsystems = frozenset(rule.patterns["subsystem"].lower() for rule in rules)
        self._wake = asyncio.Event()
        self._lost = False
        self.tracker = Tracker(rules, settle_s=settle_s, grace_s=grace_s)
        self.ready = asyncio.Event()
        self.settled = False
        """For whoever waits until what was there at the start has been told."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # a pattern such as `tty*` cannot be left to the kernel's filter
        plain = all(name.replace("_", "").replace("-", "").isalnum() for name in self._subsystems)
        hardware = Hardware(self._subsystems if plain else frozenset(), source=self._source)
        with hardware.watch(self._on_event, self._on_loss):
            self.tracker.sync(hardware.list(), loop.time())
            log.info("Watching %s, events from the %s", ", ".join(sorted(self._subsystems)), self._source)
            self.ready.set()
            next_sync = loop.time() + self._resync_s
            while True:
                if self._lost or loop.time() >= next_sync:
                    self._lost = False
                    next_sync = loop.time() + self._resync_s
                    self.tracker.sync(hardware.list(), loop.time())
                for change in self.tracker.take(loop.time()):
                    await self._tell(change)
                due = self.tracker.next_due()
                await self._sleep_until(min(next_sync, due if due is not None else next_sync))

    async def _sleep_until(self, when: float) -> None:
        try:
            async with asyncio.timeout_at(when):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _on_event(self, action: str, found: Found) -> None:
        log.debug("< %s %s", action, found.path)
        now = asyncio.get_running_loop().time()
        if action == "remove":
            self.tracker.gone(found.path, now)
        else:
            self.tracker.see(found, now)
            if action == "move" and (old := found.properties.get("DEVPATH_OLD")):
                self.tracker.gone(old, now)
        self._wake.set()

    def _on_loss(self) -> None:
        self._lost = True
        self._wake.set()
