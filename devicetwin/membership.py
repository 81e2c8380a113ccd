"""Which devices belong to this node, and in what state each is.  Pure.

A device belongs here while its Device object is stored or the cloud named it in a membership message; KubeEdge keeps the two
apart, and a device that is in one but not the other works half.  `Record` is what is stored of each, twins included.

States: a device or its mapper may report one.  A device that only sends readings is taken to be online by them (`implicit`).
One whose mapper is gone or hangs, or that promised to tell its state and does not, becomes unknown, until either speaks again.
Source: protocol notes on MQTT sections 8 and 9."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from beehive.apis.devices import STATES, Device
from beehive.apis.twins import MemberDevice
from devicetwin.twin import Twin

UP = ("online", "ok")
STATE_REFRESH_MS = (
    60_000  # an unchanged state goes up this often at most, to keep lastOnlineTime true to a minute
)

SILENT_CYCLES, SILENT_MIN_S = 3, 15.0
"""After how many cycles without a word, and how much time at least, nobody knows how a device is."""


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the edge keeps of one device, as one row.

    member: named by a membership message.  implicit: the state was inferred here, not reported.  told_at: when (ms) it was last
    passed on.  delivered: mapper name and digest of the spec which that mapper confirmed."""

    name: str = ""
    description: str = ""
    member: bool = False
    state: str = ""
    last_online: str = ""
    implicit: bool = False
    told_at: int = 0
    delivered: tuple[str, str] = ("", "")
    twins: dict[str, Twin] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange:
    """added, removed: for MQTT's `membership/updated`.  records: all of them, after."""

    records: dict[str, Record]
    added: dict[str, Record] = field(default_factory=dict)
    removed: dict[str, Record] = field(default_factory=dict)


def _known(record: Record, id_: str, objects: Iterable[str]) -> bool:
    return record.member or id_ in objects


def update(
    records: Mapping[str, Record],
    objects: Iterable[str],
    *,
    added: Iterable[MemberDevice] = (),
    removed: Iterable[MemberDevice] = (),
) -> MemberChange:
    """Take a membership message.  objects: ids of the Device objects stored here; those stay until their object goes.

    Repeating a message changes nothing, and twins, attributes and states survive it (KubeEdge wipes attributes)."""
    after = dict(records)
    new: dict[str, Record] = {}
    for device in added:
        if not is_id(device.id):
            continue
        old = after.get(device.id)
        record = replace(
            old or Record(name=device.id.split("/", 1)[1]),
            member=True,
            description=device.description or (old.description if old is not None else ""),
        )
        after[device.id] = record
        if old is None:
            new[device.id] = record
    gone: dict[str, Record] = {}
    held = frozenset(objects)
    for device in removed:
        old = after.get(device.id)
        if old is None:
            continue
        if device.id in held:
            after[device.id] = replace(old, member=False)
        else:
            gone[device.id] = after.pop(device.id)
    return MemberChange(records=after, added=new, removed=gone)


def detail(
    records: Mapping[str, Record], objects: Iterable[str], devices: Iterable[MemberDevice]
) -> MemberChange:
    """Take the full list of the node's devices: add what is missing, remove what is not listed and has no object."""
    listed = {device.id: device for device in devices}
    unlisted = [MemberDevice(id=id_) for id_, r in records.items() if id_ not in listed and r.member]
    return update(records, objects, added=listed.values(), removed=unlisted)


def object_stored(records: Mapping[str, Record], id_: str, description: str) -> MemberChange:
    """A Device object is here: the device belongs to the node, whatever became of its membership message."""
    old = records.get(id_)
    record = replace(old or Record(name=id_.split("/", 1)[1]), description=description)
    return MemberChange(records={**records, id_: record}, added={} if old is not None else {id_: record})


def object_deleted(records: Mapping[str, Record], id_: str) -> MemberChange:
    """The Device object is gone, and with it the device: the cloud deletes both together."""
    after = dict(records)
    old = after.pop(id_, None)
    return MemberChange(records=after, removed={} if old is None else {id_: old})


def is_id(text: str) -> bool:
    """Whether text is `<namespace>/<name>`, both given."""
    namespace, slash, name = text.partition("/")
    return bool(slash and namespace and name) and "/" not in name and len(text) <= 512


def is_state(text: str) -> bool:
    """Whether KubeEdge's edge would take it for a device state."""
    return text.lower() in STATES


def set_state(record: Record, state: str, now_ms: int, now_text: str) -> tuple[Record, bool]:
    """Take a reported state; the case is kept.  Also says whether the cloud should hear of it.

    now_text: RFC 3339.  Unlike in KubeEdge the time last online survives going offline."""
    up = state.lower() in UP
    last = now_text if up else record.last_online
    changed = record.state != state or record.implicit
    tell = record.state != state or _is_stale(record, now_ms)
    new = replace(
        record, state=state, last_online=last, implicit=False, told_at=now_ms if tell else record.told_at
    )
    return new, tell or changed


def _is_stale(record: Record, now_ms: int) -> bool:
    """Whether the cloud should hear it again; also when the clock was set back since, be it by years."""
    return abs(now_ms - record.told_at) >= STATE_REFRESH_MS


def heard(record: Record, now_ms: int, now_text: str) -> tuple[Record, bool]:
    """A reading came.  A device that reports no state, or was given up, is online by that."""
    if record.state and not record.implicit:
        return record, False
    if record.state == "online" and not _is_stale(record, now_ms):
        return replace(record, last_online=now_text), False
    new = replace(record, state="online", last_online=now_text, implicit=True, told_at=now_ms)
    return new, True


def anew(record: Record) -> Record:
    """The device's mapper has just (re)started: what is heard next is news, be it the state of before."""
    return replace(record, told_at=0)


def lost(record: Record, now_ms: int) -> tuple[Record, bool]:
    """The mapper that runs the device is gone: nobody knows the state now.  It is implicit, so that a reading revives it."""
    if record.state in ("", "unknown"):
        return record, False
    return replace(record, state="unknown", implicit=True, told_at=now_ms), True


def silence_s(device: Device, *, by_mapper: bool = True) -> float | None:
    """How long a device may say nothing before nobody knows its state; None for one that promised no rhythm.

    Only the report of the state is such a promise: readings may come when there is something to tell.  by_mapper: a mapper
    runs it, which takes a cycle that is not given for a second; what speaks MQTT itself may tell its state once, when it
    connects."""
    report = device.state_report
    if not report.report_to_cloud or (report.report_cycle <= 0 and not by_mapper):
        return None
    return max(
        SILENT_CYCLES * (report.report_cycle if report.report_cycle > 0 else 1000) / 1000, SILENT_MIN_S
    )


def silent(
    devices: Mapping[str, Device],
    records: Mapping[str, Record],
    owner: Mapping[str, str],
    heard: dict[str, float],
    now: float,
) -> list[str]:
    """The devices that count as up and have not spoken for as long as they may.

    heard: when each spoke last, seconds; one that never did counts from this look on, and is entered."""
    found = []
    for id_, device in devices.items():
        record = records.get(id_)
        limit_s = silence_s(device, by_mapper=bool(owner.get(id_)))
        if record is None or limit_s is None or record.state.lower() not in UP:
            continue
        if now - heard.setdefault(id_, now) > limit_s:
            found.append(id_)
    return found


def unplugged(record: Record, now_ms: int) -> tuple[Record, bool]:
    """The hardware was pulled out.  The state is implicit, so that a reading revives it."""
    return replace(record, state="offline", implicit=True, told_at=now_ms), True
