"""Devices that were made of found hardware: one whose hardware is not plugged in is offline, whatever its mapper believes."""

from devicetwin import membership
from devicetwin.changes import Changes
from devicetwin.known import Known
from devicetwin.ports import Clock
from devicetwin.reports import Reports


class Presence:
    def __init__(self, known: Known, changes: Changes, reports: Reports, clock: Clock) -> None:
        self._known = known
        self._changes = changes
        self._reports = reports
        self._clock = clock

    def plugged(self, present: frozenset[str]) -> None:
        """The candidates whose hardware is there.  Of a device that is back its mapper speaks, or nobody does."""
        self._known.present = present
        for id_ in self._known.found():
            self.judge(id_)

    def judge(self, id_: str) -> None:
        """Find out anew what the hardware says of a device's state."""
        known = self._known
        if known.present is None or id_ not in known.records:
            return
        state = known.records[id_].state.lower()
        if known.is_absent(id_):
            if state != "offline":
                record, tell = membership.unplugged(known.records[id_], self._clock.wall_ms())
                self._changes.set_state(id_, record, tell=tell)
        elif id_ in known.found() and not known.owner.get(id_) and state != "online":
            self._reports.state_reported(id_, "online")
