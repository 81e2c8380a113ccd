"""What follows from a change of a device's twins or state: it is taken over, and noted what is to be said and kept of it."""

import logging
from collections.abc import Callable
from uuid import uuid4

from msgspec.structs import replace

from devicetwin import documents
from devicetwin.known import Known
from devicetwin.membership import Record
from devicetwin.notes import SAVE, STATE, TWIN, Notes
from devicetwin.ports import Clock
from devicetwin.saving import Saving
from devicetwin.texts import Texts
from devicetwin.twin import Change

log = logging.getLogger(__name__)


class Changes:
    """on_wish: told of a device whose wishes are others now; must not block."""

    def __init__(
        self,
        known: Known,
        *,
        notes: Notes,
        texts: Texts,
        saving: Saving,
        clock: Clock,
        on_wish: Callable[[str], None],
    ) -> None:
        self._known = known
        self._notes = notes
        self._texts = texts
        self._saving = saving
        self._clock = clock
        self._on_wish = on_wish

    def adopt(self, id_: str, change: Change, *, tell_cloud: bool = True) -> None:
        """Take over a change of a device's twins, and note what is to be done about it."""
        known = self._known
        known.records[id_] = replace(known.records[id_], twins=change.twins)
        if tell_cloud and id_ in known.unsure:
            # what it says may be what is stored, and yet not what the cloud heard last
            known.unsure.discard(id_)
            self._notes.add(id_, TWIN)
        if not change.changed:
            return
        known.remember(id_, change)
        # wishes are durable at once; what a device said it says again, and a flash card is not worn out by it
        all_known = all(before is not None for before in change.changed.values())
        if change.desired or not all_known:
            self._notes.add(id_, SAVE)
        else:
            self._saving.later(id_)
        self._notes.add(id_, TWIN if tell_cloud else 0)
        if change.desired:
            self._on_wish(id_)

    def announce(self, id_: str, change: Change, *, event_id: str, result: bool) -> None:
        """Tell local clients of a change, in KubeEdge's order."""
        if not self._texts.heard:
            return
        now = self._clock.wall_ms()
        if result:
            answer = documents.update_result(event_id, now, change)
            self._texts.publish(documents.twin_topic(id_, "update/result"), answer)
        document = documents.update_document(event_id, now, change)
        if document is not None:
            self._texts.publish(documents.twin_topic(id_, "update/document"), document)
        delta = documents.update_delta(str(uuid4()), now, self._known.records[id_].twins)
        if delta is not None:
            # A driver takes commands from it: it must not be lost between here and the broker.
            self._texts.publish(documents.twin_topic(id_, "update/delta"), delta, qos=1)

    def set_state(self, id_: str, record: Record, *, tell: bool) -> None:
        """Take over a device's state.   tell: whether it is news."""
        old = self._known.records[id_]
        self._known.records[id_] = record
        if old.state != record.state:
            log.info("Device %s is %s", id_, record.state)
        if not tell:
            return
        # said again only so that the cloud knows the hour: not worth a write each minute and device on a flash card
        again = (old.state, old.implicit) == (record.state, record.implicit)
        self._notes.add(id_, STATE if again else SAVE | STATE)
        self._texts.publish(
            documents.state_topic(id_), documents.state_result(str(uuid4()), self._clock.wall_ms(), record)
        )

    def refusal(self, id_: str, name: str, why: str | None) -> None:
        """Remember what is wrong with a value (or with the device, name ""), or that nothing is; tell the cloud when that
        changes."""
        bad = self._known.bad.get(id_, {})
        if why == bad.get(name):
            return
        rest = {n: text for n, text in bad.items() if n != name}
        if why is not None:
            rest[name] = why
        if rest:
            self._known.bad[id_] = rest
        else:
            del self._known.bad[id_]
        if why is not None and (name not in bad or not name):
            log.warning(
                "Device %s, %s: refused, the last good value stays: %s", id_, name or "all of it", why
            )
        self._notes.add(id_, TWIN)
