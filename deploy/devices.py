"""Devices as `skerry device` shows and sets them: from the API's objects to lines of a table, and to a verdict.  Pure.

A value that is wanted is checked by the rules that both ends apply (beehive.apis.devices), so that a wrong one is refused
before it is written."""

from __future__ import annotations

import difflib
import fnmatch
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from beehive.apis.devices import check_value
from beehive.apis.hardware import NAME_ANNOTATION
from deploy.errors import TrialError

Object = Mapping[str, Any]
KINDS = "devices,devicemodels,devicestatuses"
KEPT = 12
"""Characters by which the first column, which names the thing, stays wider than the others."""
NARROWEST = 6
"""Characters of a column on a narrow terminal."""
REFUSAL_STANDS_S = 3.0
"""A refusal that was there before a change counts as the answer to it when it is still there so long after: a status is
written at most once a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One property of one device.  None: not known."""

    namespace: str
    device: str
    node: str
    state: str
    property: str
    reading: str | None
    desired: str | None
    unit: str
    read_at: float | None
    """Seconds since 1970; a reading that stays the same is not told again, so this is when it became so."""


@dataclass(frozen=True, slots=True)
class Found:
    """The devices of a cluster, with what belongs to them.  Keys are (namespace, name)."""

    devices: Mapping[tuple[str, str], Object]
    models: Mapping[tuple[str, str], Object]
    statuses: Mapping[tuple[str, str], Object]

    @classmethod
    def of(cls, items: Iterable[Object]) -> Found:
        """From a list of all three kinds."""
        by_kind: dict[str, dict[tuple[str, str], Object]] = {}
        for item in items:
            by_kind.setdefault(item["kind"], {})[key(item)] = item
        return cls(by_kind.get("Device", {}), by_kind.get("DeviceModel", {}), by_kind.get("DeviceStatus", {}))

    def device(self, namespace: str, name: str) -> Object:
        """Raises TrialError when there is none of that name."""
        found = self.devices.get((namespace, name))
        if found is None:
            known = [other for space, other in self.devices if space == namespace]
            raise TrialError(f"there is no device {namespace}/{name}{_near(name, known)}")
        return found

    def model_of(self, device: Object) -> Object | None:
        name = (device["spec"].get("deviceModelRef") or {}).get("name", "")
        return self.models.get((key(device)[0], name))

    def rows(self, namespace: str = "", pattern: str = "", node: str = "") -> list[Row]:
        """One for each property, in the order of the names; an empty namespace, pattern (of names) or node stands for all."""
        return [
            row
            for at, device in sorted(self.devices.items(), key=lambda item: _natural(item[0]))
            if namespace in ("", at[0])
            if not pattern or fnmatch.fnmatchcase(at[1], pattern)
            if node in ("", device["spec"].get("nodeName") or "")
            for row in _rows(device, self.statuses.get(at), self.model_of(device))
        ]


def _natural(at: tuple[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """So that room-2 comes before room-10."""
    parts = re.split(r"(\d+)", at[1])
    return at[0], [(int(part) if part.isdecimal() else -1, part) for part in parts if part]


def key(item: Object) -> tuple[str, str]:
    meta = item["metadata"]
    return meta.get("namespace") or "default", meta["name"]


def _rows(device: Object, status: Object | None, model: Object | None) -> Iterator[Row]:
    namespace, name = key(device)
    state = _status(status).get("state") or "unknown"
    for property_ in properties(device):
        twin = twin_of(status, property_["name"])
        declared = declaration(model, property_["name"])
        reported = twin.get("reported") or {}
        yield Row(
            namespace=namespace,
            device=name,
            node=device["spec"].get("nodeName") or "",
            state=state,
            property=property_["name"],
            reading=reported.get("value"),
            desired=(property_.get("desired") or {}).get("value"),
            unit=declared.get("unit") or "",
            read_at=_time((reported.get("metadata") or {}).get("timestamp")),
        )


def properties(device: Object) -> list[Mapping[str, Any]]:
    return device["spec"].get("properties") or []


def declaration(model: Object | None, name: str) -> Mapping[str, Any]:
    """What the model says of a property; empty when it says nothing."""
    rows = ((model or {}).get("spec") or {}).get("properties") or ()
    return next((row for row in rows if row.get("name") == name), {})


def twin_of(status: Object | None, name: str) -> Mapping[str, Any]:
    twins = _status(status).get("twins") or ()
    return next((twin for twin in twins if twin.get("propertyName") == name), {})


def conditions(status: Object | None) -> list[Mapping[str, str]]:
    return _status(status).get("conditions") or []


def _status(status: Object | None) -> Mapping[str, Any]:
    return (status or {}).get("status") or {}


def _time(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds and milliseconds.isdecimal() else None


# --- to change a value -----------------------------------------------------------------------------------------------


def index_of(device: Object, name: str) -> int:
    """Where a property is in the device.  Raises TrialError when it has none of that name."""
    names = [property_["name"] for property_ in properties(device)]
    if name not in names:
        raise TrialError(f"{key(device)[1]} has no property {name}{_near(name, names)}")
    return names.index(name)


def refusal(declared: Mapping[str, Any], value: str) -> str | None:
    """Why a property cannot be set to a value, as far as its model tells."""
    if declared.get("accessMode") == "ReadOnly":
        return "it can only be read"
    wrong = check_value(value, declared.get("type") or "STRING")
    if wrong:
        return f"the value {wrong}"
    number = _number(value)
    for limit, beyond in (("minimum", -1), ("maximum", 1)):
        bound = _number(str(declared.get(limit) or ""))
        if number is not None and bound is not None and (number - bound) * beyond > 0:
            return f"{value} is {'above' if beyond > 0 else 'below'} the {limit} {declared[limit]}"
    return None


def patch(device: Object, name: str, value: str) -> list[dict[str, Any]]:
    """A JSON patch of one wish that touches nothing else, and fails if the property is meanwhile somewhere else."""
    at = f"/spec/properties/{index_of(device, name)}"
    wish = properties(device)[index_of(device, name)].get("desired")
    change: dict[str, Any] = {"op": "add", "path": f"{at}/desired", "value": {"value": value}}
    if wish is not None:  # what else stands in the wish stays
        change = {"op": "add", "path": f"{at}/desired/value", "value": value}
    return [{"op": "test", "path": f"{at}/name", "value": name}, change]


# --- to call a method ------------------------------------------------------------------------------------------------


def arguments(words: Sequence[str]) -> dict[str, str]:
    """`PROPERTY=VALUE` words by property.  Raises TrialError."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise TrialError(f"{word!r} is not PROPERTY=VALUE")
        found[name] = value
    return found


def call_refusal(device: Object, model: Object | None, method: str, values: Mapping[str, str]) -> str | None:
    """Why a method cannot be called so, as far as the device and its model tell."""
    methods = device["spec"].get("methods") or []
    names = [each.get("name", "") for each in methods]
    if method not in names:
        return f"it has no method {method}{_near(method, names)}"
    takes = methods[names.index(method)].get("propertyNames") or []
    for name, value in values.items():
        if name not in takes:
            return (
                f"it takes {', '.join(takes) or 'nothing'}, not {name}{_near(name, takes) if takes else ''}"
            )
        wrong = refusal({**declaration(model, name), "accessMode": "ReadWrite"}, value)
        if wrong:
            return f"{name}: {wrong}"
    return None


def call_object(
    namespace: str, device: str, method: str, values: Mapping[str, str], timeout_s: int
) -> Object:
    """A DeviceCall under a name that the API chooses."""
    return {
        "apiVersion": "skerry.dev/v1alpha1",
        "kind": "DeviceCall",
        "metadata": {"generateName": f"{device[:40]}-", "namespace": namespace},
        "spec": {
            "deviceName": device,
            "method": method,
            "values": dict(values),
            "timeoutSeconds": timeout_s,
        },
    }


class Verdict(Enum):
    REACHED = "reached"
    REFUSED = "refused"
    WAITING = "waiting"


def verdict(
    before: Object | None, now: Object | None, index: int, name: str, value: str, waited_s: float
) -> tuple[Verdict, str]:
    """Whether the device does what is wanted, and the refusal if not.

    before, now: its DeviceStatus.  A refusal is a condition that names the property."""
    twin = twin_of(now, name)
    reported = (twin.get("reported") or {}).get("value")
    if reported is not None and same(reported, value):
        return Verdict.REACHED, ""
    old, new = _complaints(before, index, name), _complaints(now, index, name)
    fresh = [text for text in new if text not in old or waited_s >= REFUSAL_STANDS_S]
    return (Verdict.REFUSED, "; ".join(fresh)) if fresh else (Verdict.WAITING, "")


def same(one: str, other: str) -> bool:
    """Whether two texts are the same value: 25 is 25.0, True is true."""
    if one == other or one.lower() == other.lower() in ("true", "false"):
        return True
    left, right = _number(one), _number(other)
    return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-6)


def _complaints(status: Object | None, index: int, name: str) -> list[str]:
    at = (f"$.spec.properties[{index}].", f"{name}: ")
    return [
        text
        for condition in conditions(status)
        if condition.get("status") == "False"
        for text in condition.get("message", "").split("; ")
        if text.startswith(at)
    ]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# --- hardware that was found ------------------------------------------------------------------------------------------

CANDIDATES = "devicecandidates"


def candidate(items: Iterable[Object], namespace: str, name: str) -> Object:
    """The candidate of that name; the beginning is enough when only one begins so.  Raises TrialError."""
    here = [item for item in items if key(item)[0] == namespace]
    found = [item for item in here if item["metadata"]["name"] == name] or [
        item for item in here if name and item["metadata"]["name"].startswith(name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(item["metadata"]["name"] for item in found)[:10])
        raise TrialError(f"{name} is the beginning of several: {names}")
    raise TrialError(
        f"there is no candidate {namespace}/{name}{_near(name, [item['metadata']['name'] for item in here])}"
    )


def candidates_table(items: Iterable[Object], width: int | None = None) -> list[str]:
    """Lines of text: a heading, then one for each candidate."""
    heading = ("NAME", "NODE", "PHASE", "ACCEPTED", "SERIAL", "MODEL", "DEVNODE", "DEVICE")
    cells = []
    for item in sorted(items, key=key):
        spec, status = item.get("spec") or {}, item.get("status") or {}
        said = spec.get("accepted")
        accepted = "-" if said is None else "yes" if said else "no"
        texts = (spec.get("nodeName"), status.get("phase"), accepted)
        offer = spec.get("offer")  # what announces itself has a name of its own, and no device node
        what = spec.get("name") if offer else spec.get("model")
        where = f"{len(offer.get('properties') or ())} properties" if offer else spec.get("devNode")
        more = (spec.get("serial"), what, where, status.get("device"))
        cells.append((item["metadata"]["name"], *(_shown(text or None) for text in (*texts, *more))))
    return columns([heading, *cells], width, spare=("SERIAL", "NODE", "DEVNODE", "MODEL"))


def describe_candidate(item: Object) -> list[str]:
    """All that a node says of a piece of hardware, as lines of text."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    said = spec.get("accepted")
    rows = [
        ("Name", "/".join(key(item))),
        ("Node", spec.get("nodeName")),
        ("Rule", spec.get("ruleName")),
        ("Phase", status.get("phase")),
        ("Accepted", "not decided" if said is None else "yes" if said else "no"),
        ("Device", status.get("device")),
        ("Message", status.get("message")),
    ]
    known = (
        "subsystem",
        "name",
        "vendor",
        "product",
        "serial",
        "model",
        "driver",
        "port",
        "devNode",
        "devPath",
    )
    rows += [(name[0].upper() + name[1:], spec.get(name)) for name in (*known, "identity")]
    lines = [f"{name + ':':<13} {printable(str(text))}" for name, text in rows if text]
    offer = spec.get("offer")
    if not offer:
        return lines
    protocol = json.dumps(offer.get("configData") or {}, ensure_ascii=False)
    lines += [f"{'Protocol:':<13} {printable(str(offer.get('protocolName')))} {printable(protocol)}", ""]
    cells = [("PROPERTY", "TYPE", "ACCESS", "UNIT", "RANGE", "READ AT", "SET AT")]
    for row in offer.get("properties") or []:
        config = row.get("config") or {}
        path = config.get("jsonPath")
        read_at = " ".join(text for text in (config.get("topic"), path) if text)
        low, high = row.get("minimum"), row.get("maximum")
        cells.append(
            (
                row.get("name") or "",
                row.get("type") or "STRING",
                "ReadWrite" if row.get("writable") else "ReadOnly",
                row.get("unit") or "-",
                _range(low or "", high or ""),
                printable(read_at) or "-",  # in full: whoever accepts should know
                printable(config.get("commandTopic") or "") or "-",
            )
        )
    lines += columns(cells)
    left = offer.get("left") or []
    return [*lines, *(["", "Not understood:"] if left else []), *(f"  {printable(text)}" for text in left)]


# --- to show -----------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], now: float, *, namespaces: bool, width: int | None = None) -> list[str]:
    """Lines of text: a heading, then one for each property.   width: of the terminal; None when it is none."""
    heading = ("DEVICE", "NODE", "STATE", "PROPERTY", "READING", "DESIRED", "UNIT", "AGE")
    cells = [
        (
            f"{row.namespace}/{row.device}" if namespaces else row.device,
            row.node or "-",
            row.state,
            row.property,
            _shown(row.reading),
            _shown(row.desired),
            row.unit or "-",
            age(row.read_at, now),
        )
        for row in rows
    ]
    return columns([heading, *cells], width, spare=("NODE", "UNIT", "AGE", "STATE"))


def columns(
    lines: Sequence[Sequence[str]], width: int | None = None, *, spare: Sequence[str] = ()
) -> list[str]:
    """Lines of text of a table whose first line is the heading.

    width: where it is too wide for that, columns of `spare` are left out in this order, then the widest become narrower."""
    for name in spare:
        total = sum(max(len(line[i]) for line in lines) + 2 for i in range(len(lines[0]))) - 2
        if width is None or total <= width:
            break
        at = list(lines[0]).index(name)
        lines = [[*line[:at], *line[at + 1 :]] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > NARROWEST:
        widest = max(
            range(len(widths)), key=lambda i: widths[i] - (KEPT if i == 0 and widths[0] > KEPT else 0)
        )
        widths[widest] -= 1
    laid_out = [
        "  ".join(_cut(cell, at).ljust(at) for cell, at in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return laid_out if width is None else [_cut(line, max(width, 1)) for line in laid_out]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def describe(found: Found, device: Object, now: float) -> list[str]:
    """All that is known of one device, as lines of text."""
    namespace, name = key(device)
    status, model = found.statuses.get((namespace, name)), found.model_of(device)
    spec = device["spec"]
    seen = _status(status)
    known_as = (device["metadata"].get("annotations") or {}).get(NAME_ANNOTATION)
    lines = [
        f"Name:         {namespace}/{name}",
        *([f"Known as:     {printable(known_as)}"] if known_as else []),
        f"Node:         {spec.get('nodeName') or 'none'}",
        f"Model:        {(spec.get('deviceModelRef') or {}).get('name') or 'none'}{'' if model else ' (not there)'}",
        f"Protocol:     {(spec.get('protocol') or {}).get('protocolName') or 'none'}",
        f"State:        {seen.get('state') or 'unknown'}",
        f"Last online:  {seen.get('lastOnlineTime') or 'never'}",
        "",
    ]
    cells = [("PROPERTY", "READING", "DESIRED", "UNIT", "TYPE", "ACCESS", "RANGE", "AGE")]
    for row in _rows(device, status, model):
        declared = declaration(model, row.property)
        limits = (str(declared.get("minimum") or ""), str(declared.get("maximum") or ""))
        cells.append(
            (
                row.property,
                _shown(row.reading),
                _shown(row.desired),
                row.unit or "-",
                declared.get("type") or "-",
                declared.get("accessMode") or "-",
                _range(*limits),
                age(row.read_at, now),
            )
        )
    lines += columns(cells)
    if wrong := problems(status):
        lines += ["", "Problems:"]
        lines += [f"  {text}" for text in wrong]
    return lines


def problems(status: Object | None) -> list[str]:
    """What is wrong with a device now, each with its reason."""
    return [
        f"{condition.get('reason', '')}: {condition.get('message', '')}"
        for condition in conditions(status)
        if condition.get("status") == "False"
    ]


def _range(low: str, high: str) -> str:
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else f"up to {high}" if high else "-"


def changes(before: Object | None, after: Object) -> list[str]:
    """What is different between two statuses of one device, as words; readings that only grew older are not."""
    told = []
    was, is_ = _status(before).get("state"), _status(after).get("state")
    if is_ and was != is_:
        told.append(f"is {is_}")
    for twin in _status(after).get("twins") or ():
        new = (twin.get("reported") or {}).get("value")
        old = (twin_of(before, twin["propertyName"]).get("reported") or {}).get("value")
        if new is not None and new != old:
            told.append(f"{twin['propertyName']} {_shown(new)}")
    known = {condition.get("message") for condition in conditions(before)}
    told += [
        condition["message"]
        for condition in conditions(after)
        if condition.get("status") == "False" and condition.get("message") not in known
    ]
    wrong = {condition.get("type") for condition in conditions(before) if condition.get("status") == "False"}
    told += [
        f"no longer: {_gone(before, condition)}"
        for condition in conditions(after)
        if condition.get("status") == "True" and condition.get("type") in wrong
    ]
    return told


def _gone(before: Object | None, now: Mapping[str, str]) -> str:
    return next(each.get("message", "") for each in conditions(before) if each.get("type") == now.get("type"))


def age(at: float | None, now: float) -> str:
    """How long ago: `3s`, `5m`, `2h`, `4d`."""
    if at is None:
        return "-"
    seconds = max(0, int(now - at))
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"


def clock_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def _shown(value: str | None) -> str:
    """On one line, and with nothing that a terminal would obey: what a device says is not ours."""
    if value is None:
        return "-"
    if value == "":
        return '""'
    text = "".join(character if character.isprintable() else "�" for character in value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def printable(text: str) -> str:
    """A text of a device with nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def _near(name: str, known: Sequence[str]) -> str:
    begin = [other for other in known if name and other.startswith(name)]
    near = begin if len(begin) == 1 else difflib.get_close_matches(name, known, n=1)
    if near:
        return f": did you mean {near[0]}?"
    shown = sorted(begin or known)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return f": there are {', '.join(shown[:10])}{more}" if shown else ""
