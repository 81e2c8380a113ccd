"""Devices that promised to tell their state and do not: after a while nobody knows how they are."""

import asyncio
import logging

from devicetwin import membership
from devicetwin.changes import Changes
from devicetwin.known import Known
from devicetwin.ports import Clock

log = logging.getLogger(__name__)

LOOK_S = 5.0


class Silence:
    def __init__(self, known: Known, changes: Changes, clock: Clock) -> None:
        self._known = known
        self._changes = changes
        self._clock = clock
        self._heard: dict[str, float] = {}  # when a device spoke last, be it by its mapper

    def heard(self, id_: str) -> None:
        """The device spoke, or its mapper of it."""
        self._heard[id_] = self._clock.monotonic()

    def forget(self, id_: str) -> None:
        self._heard.pop(id_, None)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(LOOK_S)
            known = self._known
            for id_ in membership.silent(
                known.devices, known.records, known.owner, self._heard, self._clock.monotonic()
            ):
                log.warning("Device %s is silent, and was to tell its state", id_)
                lost, tell = membership.lost(known.records[id_], self._clock.wall_ms())
                self._changes.set_state(id_, lost, tell=tell)
