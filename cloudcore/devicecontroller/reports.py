"""What a report changes in a DeviceStatus.  Pure.

Readings are checked against the model: one of the wrong type does not replace the last good one, and shows as a condition.
The type of a twin is the model's: KubeEdge's mappers call everything `string`.  The conditions are ours:

    Valid               whether the Device and its model make sense
    ReadingsAccepted    whether everything that was reported lately could be used
    ReadingsNormal      of a device with rules of `anomalyDetection`: whether all is as they say"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from beehive.apis.devices import (
    API_VERSION,
    Condition,
    Device,
    DeviceModel,
    DeviceStatusStatus,
    Problem,
    Twin,
    check_value,
)
from beehive.apis.twins import StateUpdate, TwinProblem, TwinUpdate, status_twin
from cloudcore.objects import Object

VALID = "Valid"
ACCEPTED = "ReadingsAccepted"
NORMAL = "ReadingsNormal"
MAX_MESSAGE = 1024
MAX_REASON = 64
_NAMED = 8
"""How many problems one condition names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """What is to be different in a status.  None: stays as it is.   twins: by property; they replace those of that name.
    refused: what was wrong with the readings, empty when nothing was.   anomalies: what rules find wrong.
    faults: what is wrong with the device as a whole; a part of `refused`."""

    twins: dict[str, Twin] = field(default_factory=dict)
    state: str | None = None
    last_online: str | None = None
    refused: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] | None = None
    anomalies: tuple[TwinProblem, ...] | None = None
    faults: tuple[TwinProblem, ...] | None = None

    def then(self, later: StatusChange) -> StatusChange:
        """Both, the later one winning."""
        return StatusChange(
            twins={**self.twins, **later.twins},
            state=self.state if later.state is None else later.state,
            last_online=self.last_online if later.last_online is None else later.last_online,
            refused=self.refused if later.refused is None else later.refused,
            problems=self.problems if later.problems is None else later.problems,
            anomalies=self.anomalies if later.anomalies is None else later.anomalies,
            faults=self.faults if later.faults is None else later.faults,
        )


def from_twins(update: TwinUpdate, device: Device, model: DeviceModel | None) -> StatusChange:
    """A U1.  Properties that the device does not have are left out."""
    names = {prop.name for prop in device.spec.properties}
    twins: dict[str, Twin] = {}
    refused: list[str] = []
    faults: tuple[TwinProblem, ...] = ()
    if update.problems is not msgspec.UNSET:
        refused += [
            f"{problem.property}: {problem.message}" if problem.property else problem.message
            for problem in update.problems
        ]
        faults = _bounded([problem for problem in update.problems if not problem.property][:_NAMED])
    for name, twin in (update.twin or {}).items():
        if twin is None or name not in names:
            continue
        row = model.property(name) if model is not None else None
        wrong = (
            check_value(twin.actual.value, row.type) if row and twin.actual and twin.actual.value else None
        )
        if wrong:
            refused.append(f"{name}: the reading {wrong}")
            continue
        found = status_twin(name, twin)
        twins[name] = _typed(found, row.twin_type) if row is not None else found
    anomalies = None
    if update.anomalies is not msgspec.UNSET:
        by_name = {each.property: each for each in update.anomalies if each.property in names}
        anomalies = _bounded(by_name.values())
    return StatusChange(twins=twins, refused=tuple(refused), anomalies=anomalies, faults=faults)


def _bounded(told: Iterable[TwinProblem]) -> tuple[TwinProblem, ...]:
    """In texts of a size: what a node says of a device stays in memory for as long as it says so."""
    return tuple(
        msgspec.structs.replace(each, reason=each.reason[:MAX_REASON], message=each.message[:MAX_MESSAGE])
        for each in told
    )


def _typed(twin: Twin, type_: str) -> Twin:
    changes = {}
    for name in ("reported", "observed_desired"):
        side = getattr(twin, name)
        if side is not None and side.metadata:
            changes[name] = msgspec.structs.replace(side, metadata={**side.metadata, "type": type_})
    return msgspec.structs.replace(twin, **changes)


def from_state(update: StateUpdate) -> StatusChange:
    """A U2.  An empty time keeps the last one: the device went offline."""
    device = update.device
    return StatusChange(
        state=device.state[:64] or None,
        last_online=device.last_online_time[:40] or None,
    )


def apply(status: DeviceStatusStatus, change: StatusChange, device: Device, now: str) -> DeviceStatusStatus:
    """The status after the change.  Twins of properties that the device no longer has go; the order is the device's.

    now: RFC 3339, for conditions that turned."""
    held = {twin.property_name: twin for twin in status.twins}
    held.update(change.twins)
    twins = [held[prop.name] for prop in device.spec.properties if prop.name in held]
    conditions = list(status.conditions)
    if change.problems is not None:
        texts = [str(problem) for problem in change.problems]
        reason = change.problems[0].reason if change.problems else "AsItShouldBe"
        conditions = _set(conditions, VALID, texts, reason, now)
    if change.refused is not None:
        reason = "NotServed" if change.faults else "ReadingRefused" if change.refused else "AllGood"
        conditions = _set(conditions, ACCEPTED, list(change.refused), reason, now)
    if change.anomalies is not None:
        texts = [f"{each.property}: {each.message}" for each in change.anomalies]
        reason = _camel(change.anomalies[0].reason) if change.anomalies else "AsItShouldBe"
        conditions = _set(conditions, NORMAL, texts, reason, now)
    return msgspec.structs.replace(
        status,
        twins=twins,
        state=status.state if change.state is None else change.state,
        last_online_time=status.last_online_time if change.last_online is None else change.last_online,
        conditions=conditions,
    )


def _camel(reason: str) -> str:
    """A condition's reason of what a node says; a node may say anything."""
    return reason[:64] if reason.isascii() and reason.isalnum() and not reason[0].isdigit() else "Anomaly"


def _set(
    conditions: list[Condition], type_: str, wrong: Sequence[str], reason: str, now: str
) -> list[Condition]:
    shown = "; ".join(wrong[:_NAMED]) + (f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else "")
    fresh = Condition(
        type=type_,
        status="False" if wrong else "True",
        reason=reason,
        message=shown[:MAX_MESSAGE],
        last_transition_time=now,
    )
    for i, old in enumerate(conditions):
        if old.type == type_:
            if old.status == fresh.status:
                fresh = msgspec.structs.replace(fresh, last_transition_time=old.last_transition_time)
            return [*conditions[:i], fresh, *conditions[i + 1 :]]
    return [*conditions, fresh]


def creation(device: Object, status: DeviceStatusStatus) -> bytes:
    """A whole DeviceStatus, owned by its Device."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": "Device",
        "name": device.name,
        "uid": device.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return msgspec.json.encode(
        {
            "apiVersion": API_VERSION,
            "kind": "DeviceStatus",
            "metadata": {
                "name": device.name,
                "namespace": device.namespace,
                "ownerReferences": [owner],
            },
            "spec": {},
            "status": status,
        }
    )


def patch(before: DeviceStatusStatus, after: DeviceStatusStatus) -> bytes | None:
    """A merge patch with the fields that differ, lists whole; None when nothing does.  Others' fields are not touched."""
    changed: dict[str, object] = {}
    if before.twins != after.twins:
        changed["twins"] = after.twins
    if before.state != after.state:
        changed["state"] = after.state
    if before.last_online_time != after.last_online_time:
        changed["lastOnlineTime"] = after.last_online_time
    if before.conditions != after.conditions:
        changed["conditions"] = after.conditions
    return msgspec.json.encode({"status": changed}) if changed else None
