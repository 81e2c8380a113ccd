"""Requests of local clients over MQTT, and their answers, as KubeEdge's edge gives them.

Source: protocol notes on MQTT."""

import logging
from uuid import uuid4

from devicetwin import documents, membership, twin
from devicetwin.anomalies import Anomalies
from devicetwin.changes import Changes
from devicetwin.documents import Request
from devicetwin.errors import NOT_FOUND, TwinError
from devicetwin.known import Known
from devicetwin.notes import Notes
from devicetwin.ports import Clock
from devicetwin.reports import Reports
from devicetwin.texts import Texts

log = logging.getLogger(__name__)


class Requests:
    """refused: how many requests were not taken."""

    def __init__(
        self,
        known: Known,
        *,
        node_name: str,
        notes: Notes,
        texts: Texts,
        changes: Changes,
        reports: Reports,
        anomalies: Anomalies,
        clock: Clock,
    ) -> None:
        self._known = known
        self._node = node_name
        self._notes = notes
        self._texts = texts
        self._changes = changes
        self._reports = reports
        self._anomalies = anomalies
        self._clock = clock
        self.refused = 0

    async def take(self, topic: str, payload: bytes) -> None:
        """Topics that are not requests about devices are ignored.  Raises: nothing for bad content; that is answered."""
        asked = documents.parse_topic(topic)
        if asked is None:
            log.debug("! no request: %s", topic[:256])
            return
        match asked.request:
            case Request.TWIN_UPDATE:
                await self._update(asked.subject, payload)
            case Request.TWIN_GET:
                self._get(asked.subject, payload)
            case Request.STATE_UPDATE:
                self._state(asked.subject, payload)
            case Request.MEMBERSHIP_GET:
                self._members(payload)
            case Request.TWIN_CLOUD_UPDATED:
                # Every local client can publish there; only the cloud may speak for the cloud.
                self.refused += 1
                log.warning("A local client speaks as the cloud about %s: ignored", asked.subject[:256])

    async def _update(self, id_: str, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.twin_topic(id_, "update/result")
        event_id = ""
        try:
            update = documents.read_update(payload)
            event_id = update.event_id
            record = self._known.records.get(id_)
            if record is None:
                raise TwinError(NOT_FOUND, f"Device {id_} not found while updating twin", reason="NotFound")
            change = twin.request(record.twins, update.twin or {}, self._known.rows(id_), now)
        except TwinError as error:
            self._refuse(topic, event_id, error)
            return
        self._changes.adopt(id_, change)
        if change.desired:
            await self._notes.flush(id_)  # the answer means that the wish is stored
        if id_ in self._known.records:  # not deleted meanwhile
            self._changes.announce(id_, change, event_id=event_id, result=True)
            for name, asked in (update.twin or {}).items():
                if asked is not None and asked.actual is not None and asked.actual.value is not None:
                    self._anomalies.heard(id_, name, asked.actual.value)

    def _get(self, id_: str, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.twin_topic(id_, "get/result")
        event_id = ""
        try:
            event_id = documents.read_base(payload).event_id
            record = self._known.records.get(id_)
            if record is None:
                raise TwinError(NOT_FOUND, f"Device {id_} not found while getting twin", reason="NotFound")
        except TwinError as error:
            self._refuse(topic, event_id, error)
            return
        self._texts.publish(topic, documents.get_result(event_id, now, record.twins))

    def _state(self, id_: str, payload: bytes) -> None:
        try:
            state = documents.read_state(payload).state
        except TwinError as error:
            log.debug("! state of %s: %s", id_, error)
            self.refused += 1
            return
        if id_ in self._known.records and membership.is_state(state):
            if not self._reports.state_reported(id_, state):
                # nothing new for anybody else, but whoever asked waits for the answer
                result = documents.state_result(str(uuid4()), self._clock.wall_ms(), self._known.records[id_])
                self._texts.publish(documents.state_topic(id_), result)
        else:
            self.refused += 1  # KubeEdge's edge does not answer either

    def _members(self, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.membership_topic(self._node, "get/result")
        try:
            event_id = documents.read_base(payload).event_id
        except TwinError as error:
            self._refuse(topic, "", error)
            return
        self._texts.publish(topic, documents.membership_result(event_id, now, self._known.records))

    def _refuse(self, topic: str, event_id: str, error: TwinError) -> None:
        self.refused += 1
        self._texts.publish(topic, documents.error(event_id, self._clock.wall_ms(), error.code, str(error)))
