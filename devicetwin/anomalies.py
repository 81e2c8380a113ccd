"""Telling of readings that are possible and still not right, when that begins and when it is over.

What is wrong `anomaly` judges; this gives it the readings and the time, and tells the log, local clients and the cloud."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from uuid import uuid4

from beehive.apis.devices import Device
from devicetwin import anomaly, documents
from devicetwin.anomaly import Rule, Turned, Verdict, Watch
from devicetwin.notes import TWIN, Notes
from devicetwin.ports import Clock
from devicetwin.texts import Texts

log = logging.getLogger(__name__)

WATCH_S = 1.0  # how often is looked whether readings are missing


class Anomalies:
    def __init__(self, *, notes: Notes, texts: Texts, clock: Clock) -> None:
        self._notes = notes
        self._texts = texts
        self._clock = clock
        self._watch = Watch()
        self._watching = asyncio.Event()  # there is something to look at

    def take(self, id_: str, good: Device) -> None:
        """Take the rules of a device; what was wrong by others is not any more."""
        if self._watch.set_rules(id_, rules(good), self._clock.monotonic()):
            self._notes.add(id_, TWIN)
        if self._watch:
            self._watching.set()

    def forget(self, id_: str) -> None:
        self._watch.forget(id_)

    def heard(self, id_: str, name: str, value: str, driver: str = "") -> None:
        """A reading of a property.   driver: what its driver says is wrong with it."""
        if self._watch:
            self._tell(self._watch.heard(id_, name, value, self._clock.monotonic(), driver))

    def standing(self, id_: str) -> Mapping[str, Verdict] | None:
        """What is wrong with a device's properties now; None when it never had a rule."""
        return self._watch.standing(id_)

    async def run(self) -> None:
        """Look for readings that are missing.  Never returns."""
        while True:
            await self._watching.wait()
            while self._watch:
                self._tell(self._watch.look(self._clock.monotonic()))
                await asyncio.sleep(WATCH_S)
            self._watching.clear()

    def _tell(self, turned: Iterable[Turned]) -> None:
        for each in turned:
            verdict = each.verdict
            if each.over:
                log.info("Device %s, %s: as it should be again (%s)", each.id, each.name, verdict.kind)
            else:
                log.warning("Device %s, %s: %s: %s", each.id, each.name, verdict.kind, verdict.text)
            text = documents.anomaly(str(uuid4()), self._clock.wall_ms(), each)
            self._texts.publish(documents.anomaly_topic(each.id), text, qos=1)
            self._notes.add(each.id, TWIN)


def rules(device: Device) -> dict[str, Rule]:
    """What the properties of a device ask to be looked at, by name."""
    found = {}
    for prop in device.spec.properties:
        settings = prop.push_method.anomaly_detection if prop.push_method is not None else None
        rule = anomaly.rule_of(settings) if settings else None
        if rule is not None:
            found[prop.name] = rule
    return found
