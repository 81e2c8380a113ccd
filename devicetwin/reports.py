"""What devices say of themselves, by their mapper or by MQTT: readings and states."""

from devicetwin import membership, twin
from devicetwin.anomalies import Anomalies
from devicetwin.changes import Changes
from devicetwin.known import Known
from devicetwin.ports import Clock
from devicetwin.silence import Silence
from devicetwin.twin import Reading


class Reports:
    def __init__(
        self, known: Known, changes: Changes, *, anomalies: Anomalies, silence: Silence, clock: Clock
    ) -> None:
        self._known = known
        self._changes = changes
        self._anomalies = anomalies
        self._silence = silence
        self._clock = clock

    def reported(self, id_: str, read: list[Reading]) -> dict[str, str]:
        """Readings of a device of this node; what of them was refused, and why, by name."""
        self._silence.heard(id_)
        record = self._known.records[id_]
        now = self._clock.wall_ms()
        rows = self._known.rows(id_)
        change = twin.report(record.twins, read, rows, now)
        for reading in read:
            # What a mapper makes up as names is answered and counted, but not kept.
            if reading.name in rows:
                self._changes.refusal(id_, reading.name, change.refused.get(reading.name))
        self._changes.adopt(id_, change)
        if change.changed:
            self._changes.announce(id_, change, event_id="", result=True)
        for reading in read:
            if reading.reported is not None and reading.name not in change.refused:
                self._anomalies.heard(id_, reading.name, reading.reported, reading.anomaly)
        if len(change.refused) < len({reading.name for reading in read}) and not self._known.is_absent(id_):
            alive, tell = membership.heard(self._known.records[id_], now, self._clock.rfc3339())
            self._changes.set_state(id_, alive, tell=tell)
        return change.refused

    def state_reported(self, id_: str, state: str) -> bool:
        """A state of a device of this node; whether that is news."""
        if self._known.is_absent(id_) and state.lower() in membership.UP:
            return False  # its mapper has not noticed yet
        self._silence.heard(id_)
        record, tell = membership.set_state(
            self._known.records[id_], state, self._clock.wall_ms(), self._clock.rfc3339()
        )
        self._changes.set_state(id_, record, tell=tell)
        return tell
