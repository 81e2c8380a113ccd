"""The twin of one device: what is wanted, what is, and what follows from a change of either.  Pure.

A device's twins are a mapping from property name to `Twin`.  Every function here takes the mapping and returns a `Change` with
the next one; nothing is changed in place and nothing here knows a clock, a topic or a mapper.

Who writes what
  expected   the desired value.  From the Device's spec (`desire`), or from a local client (`request`).  The later one counts,
             where the cloud only speaks when its value *changes*: what is set at the edge stays until somebody edits the spec.
  actual     the reading.  From a mapper (`report`) or a local client (`request`).  Never starts anything at the device.
  observed   the desired value as the mapper last echoed it.  It never becomes `expected`, so an echo that is late cannot undo a
             newer wish.  KubeEdge writes the echo over the wish.

Versions count as in KubeEdge: a local change adds one to `edge`, a change from the cloud's spec one to `cloud`; an unchanged
value adds nothing and is not written (KubeEdge writes every sample).  A value of the wrong type is refused; the last good one
stays.
Source: protocol notes on MQTT sections 6 and 7."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from beehive.apis.devices import MAX_PROPERTIES, Device, ModelProperty, check_value, parse_bool
from beehive.apis.twins import MsgTwin, TwinValue, TwinVersion, TypeMetadata, ValueMetadata
from devicetwin.errors import BAD_REQUEST, TwinError

# A twin's type -> the model type whose rule checks its text.  KubeEdge knows the first four.
CHECKS = {
    "int": "INT",
    "integer": "INT",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "string": "STRING",
    "double": "DOUBLE",
    "bytes": "BYTES",
    "stream": "STREAM",
}
DELETED = "deleted"
_KEY = re.compile(r"[A-Za-z0-9\-_.,:/@#]{1,128}")


class Side(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value with the time it was set (ms since 1970, this edge's clock) and its versions."""

    value: str = ""
    at: int = 0
    cloud: int = 0
    edge: int = 0


class Twin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One property.  `spec`: the desired value last taken from the Device's spec, or None."""

    type: str = "string"
    optional: bool = True
    expected: Side | None = None
    actual: Side | None = None
    observed: Side | None = None
    spec: str | None = None


Twins = Mapping[str, Twin]
Rows = Mapping[str, ModelProperty]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a mapper says of one property: the value read, and the desired value it works towards.  None: not said.

    anomaly: what its driver finds wrong with it, empty for nothing."""

    name: str
    reported: str | None
    observed: str | None = None
    anomaly: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of the twins.

    twins: all of them, after.  touched: what the request gave, as it is now (None: removed); for the answer.
    changed: names whose values are different now, with the twin before; empty means nothing to store or send.
    desired: names whose wish is different now, so a mapper must hear of it.  refused: name -> why."""

    twins: dict[str, Twin]
    touched: dict[str, MsgTwin | None] = field(default_factory=dict)
    changed: dict[str, Twin | None] = field(default_factory=dict)
    desired: frozenset[str] = frozenset()
    refused: dict[str, str] = field(default_factory=dict)


# --- local clients ---------------------------------------------------------------------------------------------------


def request(twins: Twins, asked: Mapping[str, MsgTwin | None], rows: Rows, now_ms: int) -> Change:
    """Do what a local client asks on `twin/update`: all of it or nothing.

    rows: the model's properties; they rule types, ranges and who may write.  A null removes an optional twin.
    Raises: TwinError 400."""
    for name, twin in asked.items():
        if not _KEY.fullmatch(name):
            raise TwinError(
                BAD_REQUEST,
                f"the name of a twin has characters or a length that is not allowed: {name[:64]!r}",
            )
        if twin is not None:
            _check(name, twin, twins.get(name), rows.get(name))
    after = dict(twins)
    touched: dict[str, MsgTwin | None] = {}
    changed: dict[str, Twin | None] = {}
    desired: set[str] = set()
    for name, twin in asked.items():
        old = after.get(name)
        if twin is None:
            if old is not None and old.optional:
                del after[name]
                touched[name] = None
                changed[name] = old
            continue
        new = _edit(old or Twin(type=_type(twin, old, rows.get(name))), twin, now_ms)
        after[name] = new
        touched[name] = message(
            new, expected=_value(twin.expected) is not None, actual=_value(twin.actual) is not None
        )
        if old is None or not same(old, new):
            changed[name] = old
        if _wish(old) != _wish(new):
            desired.add(name)
    if len(after) > max(MAX_PROPERTIES, len(twins)):
        raise TwinError(BAD_REQUEST, f"a device has {MAX_PROPERTIES} twins at most")
    return Change(twins=after, touched=touched, changed=changed, desired=frozenset(desired))


def _edit(old: Twin, asked: MsgTwin, now_ms: int) -> Twin:
    new = old
    expected, actual = _value(asked.expected), _value(asked.actual)
    if expected is not None:
        new = replace(new, expected=_next(old.expected, _canonical(expected, old.type), now_ms, edge=1))
    if actual is not None:
        new = replace(new, actual=_next(old.actual, _canonical(actual, old.type), now_ms, edge=1))
    if asked.optional is False:  # the way back is not offered by KubeEdge either
        new = replace(new, optional=False)
    return new


def _next(old: Side | None, value: str, now_ms: int, *, cloud: int = 0, edge: int = 0) -> Side:
    """The side with this value; an unchanged value only becomes fresher."""
    if old is not None and old.value == value:
        return replace(old, at=now_ms)
    before = old or Side()
    return Side(value=value, at=now_ms, cloud=before.cloud + cloud, edge=before.edge + edge)


def _check(name: str, asked: MsgTwin, old: Twin | None, row: ModelProperty | None) -> None:
    type_ = _type(asked, old, row)
    check = CHECKS.get(type_)
    if check is None:
        raise TwinError(
            BAD_REQUEST, f"the type of {name} is not allowed: {type_[:64]!r}", reason="UnknownType"
        )
    expected, actual = _value(asked.expected), _value(asked.actual)
    if actual is not None:
        wrong = check_value(actual, check)
        if wrong:
            raise TwinError(BAD_REQUEST, f"the actual value of {name} {wrong}")
    if expected:  # an empty wish is no wish, and fits every type
        if row is not None and not row.writable:
            raise TwinError(BAD_REQUEST, f"{name} is read only", reason="ReadOnly")
        low, high = (row.minimum, row.maximum) if row is not None else ("", "")
        wrong = check_value(expected, check, minimum=low, maximum=high)
        if wrong:
            raise TwinError(BAD_REQUEST, f"the expected value of {name} {wrong}")


def _type(asked: MsgTwin, old: Twin | None, row: ModelProperty | None) -> str:
    """The type in force: the stored one, else the model's, else what the request says."""
    if old is not None:
        return old.type
    if row is not None:
        return row.twin_type
    return (asked.metadata.type if asked.metadata is not None else "") or "string"


def _value(side: TwinValue | None) -> str | None:
    return side.value if side is not None else None


def _wish(twin: Twin | None) -> str:
    return twin.expected.value if twin is not None and twin.expected is not None else ""


def _canonical(value: str, type_: str) -> str:
    """One spelling of a boolean, so that True and true are not a change."""
    if type_ == "boolean" and value:
        return "true" if parse_bool(value) else "false"
    return value


# --- mappers ---------------------------------------------------------------------------------------------------------


def report(twins: Twins, readings: Iterable[Reading], rows: Rows, now_ms: int) -> Change:
    """Take what a mapper read.  Each property for itself: a bad one is refused, the others count."""
    after = dict(twins)
    read: dict[str, None] = {}
    changed: dict[str, Twin | None] = {}
    refused: dict[str, str] = {}
    for reading in readings:
        row = rows.get(reading.name)
        if row is None:
            refused[reading.name] = "is not a property of the device's model"
            continue
        old = after.get(reading.name)
        new = old or Twin(type=row.twin_type)
        if reading.reported is not None:
            wrong = check_value(reading.reported, CHECKS[row.twin_type])
            if wrong:
                refused[reading.name] = wrong
                continue
            value = _canonical(reading.reported, row.twin_type)
            new = replace(new, actual=_next(new.actual, value, now_ms, edge=1))
        if reading.observed is not None and check_value(reading.observed, "STRING") is None:
            new = replace(new, observed=_next(new.observed, reading.observed, now_ms, edge=1))
        after[reading.name] = new
        read[reading.name] = None
        if old is None or not same(old, new):
            changed.setdefault(reading.name, old)
    # nobody is told of readings of which none is another
    touched: dict[str, MsgTwin | None] = {name: message(after[name]) for name in read} if changed else {}
    return Change(twins=after, touched=touched, changed=changed, refused=refused)


# --- the cloud -------------------------------------------------------------------------------------------------------


def desire(twins: Twins, device: Device, rows: Rows, now_ms: int, *, keep: Collection[str] = ()) -> Change:
    """Bring the wishes in line with a Device's spec (the deliverable one: what is bad is already left out).

    A wish is taken over when the spec's value is another than the last one taken; until then the edge's own stands.
    Twins of properties that left the spec go.  keep: properties whose new wish is bad; the last good one stays.
    Doing it again changes nothing."""
    after = dict(twins)
    changed: dict[str, Twin | None] = {}
    desired: set[str] = set()
    names = {prop.name for prop in device.spec.properties}
    for name, old in twins.items():
        row = rows.get(name)
        if old.spec is not None and name not in names:
            del after[name]
            changed[name] = old
        elif row is not None and row.twin_type != old.type:
            after[name] = _retyped(old, row)
            changed[name] = old
    for prop in device.spec.properties:
        row = rows.get(prop.name)
        text = prop.desired.value if prop.desired is not None else ""
        old_ = after.get(prop.name)
        if row is None or prop.name in keep or text == ((old_.spec if old_ is not None else None) or ""):
            continue
        base = old_ or Twin(type=row.twin_type)
        wish = _canonical(text, row.twin_type)
        new = replace(base, spec=text, expected=_next(base.expected, wish, now_ms, cloud=1))
        after[prop.name] = new
        changed.setdefault(prop.name, old_)
        if _wish(old_) != _wish(new):
            desired.add(prop.name)
    return Change(twins=after, changed=changed, desired=frozenset(desired))


def _retyped(old: Twin, row: ModelProperty) -> Twin:
    """The twin under the model's type; a value that does not fit it is forgotten."""
    check = CHECKS[row.twin_type]

    def keep(side: Side | None) -> Side | None:
        if side is None or (side.value and check_value(side.value, check)):
            return None
        return replace(side, value=_canonical(side.value, row.twin_type))

    return replace(old, type=row.twin_type, expected=keep(old.expected), actual=keep(old.actual))


def cloud_update(twins: Twins, asked: Mapping[str, MsgTwin | None], rows: Rows, now_ms: int) -> Change:
    """Take `twin/cloud_updated`, which carries versions: each side only if the cloud has seen what is here.

    `refused` names what the cloud must rebase on (send it `edge_updated`); it counts as changed there, not here.
    Source: protocol notes on MQTT section 7.2.  KubeEdge's cloud never sends it; ours may."""
    after = dict(twins)
    changed: dict[str, Twin | None] = {}
    desired: set[str] = set()
    refused: dict[str, str] = {}
    for name, twin in asked.items():
        if twin is None or not _KEY.fullmatch(name):
            continue
        old = after.get(name)
        if twin.metadata is not None and twin.metadata.type == DELETED:
            if (
                old is not None
                and _may(old.expected, twin.expected_version)
                and _may(old.actual, twin.actual_version)
            ):
                del after[name]
                changed[name] = old
            continue
        try:
            _check(name, twin, old, rows.get(name))
            new = _adopt(old or Twin(type=_type(twin, None, rows.get(name))), twin, now_ms)
        except TwinError as error:
            refused[name] = str(error)
            continue
        after[name] = new
        if old is None or not same(old, new):
            changed[name] = old
        if _wish(old) != _wish(new):
            desired.add(name)
    return Change(twins=after, changed=changed, desired=frozenset(desired), refused=refused)


def _adopt(old: Twin, asked: MsgTwin, now_ms: int) -> Twin:
    new = old
    for key, value, version in (
        ("expected", _value(asked.expected), asked.expected_version),
        ("actual", _value(asked.actual), asked.actual_version),
    ):
        if value is None:
            continue
        side: Side | None = getattr(old, key)
        if version is None or not _may(side, version):
            raise TwinError(409, "the cloud's version is older than the edge's", reason="Conflict")
        text = _canonical(value, old.type)
        new = replace(new, **{key: Side(value=text, at=now_ms, cloud=version.cloud, edge=version.edge)})
    return new


def _may(side: Side | None, version: TwinVersion | None) -> bool:
    if side is None or version is None:
        return True
    return side.cloud <= version.cloud and side.edge <= version.edge


def skip(twins: Twins, versions: int) -> dict[str, Twin]:
    """The twins with versions of readings that nobody can have seen."""

    def on(side: Side | None) -> Side | None:
        return replace(side, edge=side.edge + versions) if side is not None else None

    return {
        name: replace(twin, actual=on(twin.actual), observed=on(twin.observed))
        for name, twin in twins.items()
    }


# --- looking at twins ------------------------------------------------------------------------------------------------


def same(a: Twin, b: Twin) -> bool:
    """Whether two states of a twin differ in nothing but how fresh they are."""

    return (
        _same_side(a.actual, b.actual)
        and _same_side(a.observed, b.observed)
        and _same_side(a.expected, b.expected)
        and (a.type, a.optional, a.spec) == (b.type, b.optional, b.spec)
    )


def _same_side(a: Side | None, b: Side | None) -> bool:
    if a is b:
        return True
    return a is not None and b is not None and a.value == b.value and a.edge == b.edge and a.cloud == b.cloud


def delta(twins: Twins) -> dict[str, str]:
    """Name -> desired value, for each property that is not there yet."""
    return {name: _wish(twin) for name, twin in twins.items() if _wish(twin) and not reached(twin)}


def reached(twin: Twin) -> bool:
    """Whether the reading is what is wanted; numbers are compared as numbers."""
    if twin.actual is None:
        return False
    want, have = _wish(twin), twin.actual.value
    if want == have:
        return True
    if CHECKS.get(twin.type) not in ("INT", "FLOAT", "DOUBLE"):
        return False
    try:
        return float(want) == float(have)
    except ValueError:
        return False


def message(twin: Twin, *, expected: bool = True, actual: bool = True, versions: bool = False) -> MsgTwin:
    """The twin as peers write it, with the sides asked for."""
    want = twin.expected if expected else None
    have = twin.actual if actual else None
    return MsgTwin(
        expected=_side(want),
        actual=_side(have),
        optional=twin.optional,
        metadata=TypeMetadata(type=twin.type),
        expected_version=_version(want) if versions else None,
        actual_version=_version(have) if versions else None,
    )


def upward(twin: Twin) -> MsgTwin:
    """The twin for the cloud, where `expected` means: the desired value as it was seen to be in force at the device."""
    seen: Side | None = twin.expected
    if twin.observed is not None:
        seen = twin.observed
    elif twin.spec is not None and not reached(twin):
        seen = None
    return message(replace(twin, expected=seen), versions=True)


def _side(side: Side | None) -> TwinValue | None:
    if side is None:
        return None
    return TwinValue(value=side.value, metadata=ValueMetadata(timestamp=side.at))


def _version(side: Side | None) -> TwinVersion | None:
    return TwinVersion(cloud=side.cloud, edge=side.edge) if side is not None else None
