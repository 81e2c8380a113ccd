"""The topics about devices on the node's MQTT bus, and the JSON that goes over them.  Pure.

Shapes and key order are KubeEdge's, so that its clients read ours and a recorded conversation can be compared text by text.
One deliberate difference: a request that cannot be read is answered on its own topic, not on one with an empty device id.
Source: protocol notes on MQTT sections 2, 5, 6, 8, 9, 11."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import msgspec
from msgspec import Struct

from beehive.apis.decode import ObjectError, decode
from beehive.apis.twins import (
    MemberDevice,
    MembershipUpdate,
    MsgTwin,
    StateDevice,
    StateUpdate,
    TwinProblem,
    TwinUpdate,
)
from devicetwin.anomaly import Turned, Verdict
from devicetwin.errors import BAD_REQUEST, TwinError
from devicetwin.membership import Record, is_id
from devicetwin.twin import Change, Twins, delta, message, upward

T = TypeVar("T")

DEVICE = "$hw/events/device/"
NODE = "$hw/events/node/"
MAX_PAYLOAD_BYTES = 256 * 1024  # a twin/update of 1024 properties with short values; ours


class Request(Enum):
    """What a local client can ask, by the end of the topic."""

    TWIN_UPDATE = "twin/update"
    TWIN_GET = "twin/get"
    TWIN_CLOUD_UPDATED = "twin/cloud_updated"
    STATE_UPDATE = "state/update"
    MEMBERSHIP_GET = "membership/get"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request topic, taken apart.  subject: the device's id, or the node's name for MEMBERSHIP_GET."""

    request: Request
    subject: str


def parse_topic(topic: str) -> Asked | None:
    """Read a topic by its levels; None if it is none of ours to answer.

    KubeEdge looks for the id by text, and loses devices in a namespace such as `device` or `e`."""
    levels = topic.split("/")
    if topic.startswith(DEVICE) and len(levels) == 7:
        id_, tail = f"{levels[3]}/{levels[4]}", "/".join(levels[5:])
        if not is_id(id_) or tail == Request.MEMBERSHIP_GET.value:
            return None
        return next((Asked(request=r, subject=id_) for r in Request if r.value == tail), None)
    if topic.startswith(NODE) and len(levels) == 6 and levels[3] and topic.endswith("/membership/get"):
        return Asked(request=Request.MEMBERSHIP_GET, subject=levels[3])
    return None


def twin_topic(id_: str, tail: str) -> str:
    """`tail`: get/result, update/result, update/document or update/delta."""
    return f"{DEVICE}{id_}/twin/{tail}"


def state_topic(id_: str) -> str:
    return f"{DEVICE}{id_}/state/update/result"


def membership_topic(node: str, tail: str) -> str:
    """`tail`: updated or get/result."""
    return f"{NODE}{node}/membership/{tail}"


# --- requests --------------------------------------------------------------------------------------------------------


class Base(Struct, frozen=True, kw_only=True):
    event_id: str = ""
    timestamp: int = 0


class StateRequest(Struct, frozen=True, kw_only=True):
    event_id: str = ""
    timestamp: int = 0
    state: str = ""


def read_update(payload: bytes) -> TwinUpdate:
    """Raises: TwinError 400."""
    update = _read(payload, TwinUpdate)
    if update.twin is None:
        raise TwinError(BAD_REQUEST, "the update has no twin", reason="BadRequest")
    return update


def read_base(payload: bytes) -> Base:
    """Raises: TwinError 400."""
    return _read(payload, Base)


def read_state(payload: bytes) -> StateRequest:
    """Raises: TwinError 400."""
    return _read(payload, StateRequest)


def _read(payload: bytes, kind: type[T]) -> T:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TwinError(BAD_REQUEST, f"the payload has {len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}")
    try:
        return decode(payload, kind)
    except ObjectError as error:
        raise TwinError(BAD_REQUEST, str(error), reason="BadRequest") from error


# --- answers ---------------------------------------------------------------------------------------------------------


class _Error(Struct, frozen=True, kw_only=True, omit_defaults=True):
    # Required fields are always written; the other two are left out when empty, as Go does.
    event_id: str
    timestamp: int
    code: int = 0
    reason: str = ""


class _Document(Struct, frozen=True, kw_only=True):
    last: MsgTwin | None
    current: MsgTwin | None


class _TwinDocument(Struct, frozen=True, kw_only=True):
    event_id: str
    timestamp: int
    twin: dict[str, _Document]


class _TwinDelta(Struct, frozen=True, kw_only=True):
    event_id: str
    timestamp: int
    twin: dict[str, MsgTwin]
    delta: dict[str, str]


class _Members(Struct, frozen=True, kw_only=True):
    event_id: str
    timestamp: int
    devices: list[MemberDevice]


def error(event_id: str, now_ms: int, code: int, reason: str) -> bytes:
    return msgspec.json.encode(_Error(event_id=event_id, timestamp=now_ms, code=code, reason=reason[:256]))


def update_result(event_id: str, now_ms: int, change: Change) -> bytes:
    return msgspec.json.encode(TwinUpdate(event_id=event_id, timestamp=now_ms, twin=change.touched))


def update_document(event_id: str, now_ms: int, change: Change) -> bytes | None:
    """What changed, before and after; None if nothing did.  (KubeEdge also sends it for values that stayed the same.)"""
    if not change.changed:
        return None
    twin = {
        name: _Document(
            last=message(last) if last is not None else None,
            current=message(change.twins[name]) if name in change.twins else None,
        )
        for name, last in change.changed.items()
    }
    return msgspec.json.encode(_TwinDocument(event_id=event_id, timestamp=now_ms, twin=twin))


def update_delta(event_id: str, now_ms: int, twins: Twins) -> bytes | None:
    """What is wanted and not reached yet; None if nothing is.  Drivers without a mapper take their commands from it."""
    missing = delta(twins)
    if not missing:
        return None
    wished = {n: message(t) for n, t in twins.items() if t.expected is not None and t.expected.value}
    return msgspec.json.encode(_TwinDelta(event_id=event_id, timestamp=now_ms, twin=wished, delta=missing))


def get_result(event_id: str, now_ms: int, twins: Twins) -> bytes:
    twin: dict[str, MsgTwin | None] = {name: message(t) for name, t in sorted(twins.items())}
    return msgspec.json.encode(TwinUpdate(event_id=event_id, timestamp=now_ms, twin=twin))


def state_result(event_id: str, now_ms: int, record: Record) -> bytes:
    """Also what goes to the cloud."""
    device = StateDevice(name=record.name, state=record.state, last_online_time=record.last_online)
    return msgspec.json.encode(StateUpdate(event_id=event_id, timestamp=now_ms, device=device))


def membership_updated(
    event_id: str,
    now_ms: int,
    *,
    added: tuple[str, Record] | None = None,
    removed: tuple[str, Record] | None = None,
) -> bytes:
    """One device comes or goes; the other list is null."""
    update = MembershipUpdate(
        event_id=event_id,
        timestamp=now_ms,
        added_devices=[_member(*added, state=False)] if added is not None else None,
        removed_devices=[_member(*removed, state=False)] if removed is not None else None,
    )
    return msgspec.json.encode(update)


def membership_result(event_id: str, now_ms: int, records: Mapping[str, Record]) -> bytes:
    devices = [_member(id_, record, state=True) for id_, record in sorted(records.items())]
    return msgspec.json.encode(_Members(event_id=event_id, timestamp=now_ms, devices=devices))


def _member(id_: str, record: Record, *, state: bool) -> MemberDevice:
    return MemberDevice(
        id=id_,
        name=record.name,
        description=record.description,
        state=record.state if state else "",
        last_online=record.last_online if state else "",
    )


class _Anomaly(Struct, frozen=True, kw_only=True):
    event_id: str
    timestamp: int
    property: str
    kind: str
    message: str
    over: bool


def anomaly(event_id: str, now_ms: int, turned: Turned) -> bytes:
    """An anomaly begins, or is over.  Ours."""
    return msgspec.json.encode(
        _Anomaly(
            event_id=event_id,
            timestamp=now_ms,
            property=turned.name,
            kind=turned.verdict.kind,
            message=turned.verdict.text,
            over=turned.over,
        )
    )


def anomaly_topic(id_: str) -> str:
    return f"$hw/events/device/{id_}/anomaly"


def edge_updated(
    event_id: str,
    now_ms: int,
    twins: Twins,
    problems: Mapping[str, str],
    anomalies: Mapping[str, Verdict] | None = None,
) -> bytes:
    """U1, for the cloud: every twin of the device, so that the newest message stands for all before it.

    anomalies: None for a device without rules."""
    twin: dict[str, MsgTwin | None] = {name: upward(t) for name, t in sorted(twins.items())}
    return msgspec.json.encode(
        TwinUpdate(
            event_id=event_id,
            timestamp=now_ms,
            twin=twin,
            problems=[
                TwinProblem(
                    property=name[:128], reason="InvalidValue" if name else "NotServed", message=text[:256]
                )
                for name, text in sorted(problems.items())
            ]
            or msgspec.UNSET,
            anomalies=msgspec.UNSET
            if anomalies is None
            else [
                TwinProblem(property=name[:128], reason=verdict.kind, message=verdict.text)
                for name, verdict in sorted(anomalies.items())
            ],
        )
    )


def read_record(data: bytes) -> Record:
    """Raises: msgspec.DecodeError when the row was damaged."""
    return msgspec.json.decode(data, type=Record)


def write_record(record: Record) -> bytes:
    return msgspec.json.encode(record)
