"""Devices as `skerry device` shows and sets them."""

from __future__ import annotations

from typing import Any

import pytest

from deploy import devices
from deploy.devices import Found, Verdict
from deploy.errors import TrialError

AT_MS = 1_000_000


def thermostat() -> dict[str, Any]:
    return {
        "kind": "Device",
        "metadata": {"name": "t", "namespace": "default"},
        "spec": {
            "nodeName": "edge-1",
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "virtual"},
            "properties": [
                {"name": "temperature"},
                {"name": "target", "desired": {"value": "21", "metadata": {"by": "me"}}},
            ],
        },
    }


MODEL: dict[str, Any] = {
    "kind": "DeviceModel",
    "metadata": {"name": "m", "namespace": "default"},
    "spec": {
        "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "unit": "celsius"},
            {
                "name": "target",
                "type": "FLOAT",
                "accessMode": "ReadWrite",
                "minimum": "5",
                "maximum": "35",
            },
        ]
    },
}


def status(target: str | None = None, complaint: str = "", state: str = "online") -> dict[str, Any]:
    twins = []
    if target is not None:
        reported = {"value": target, "metadata": {"timestamp": str(AT_MS), "type": "float"}}
        twins.append({"propertyName": "target", "reported": reported})
    conditions = [{"type": "Valid", "status": "True", "message": ""}]
    if complaint:
        conditions = [{"type": "Valid", "status": "False", "reason": "OutOfRange", "message": complaint}]
    return {
        "kind": "DeviceStatus",
        "metadata": {"name": "t", "namespace": "default"},
        "status": {"state": state, "twins": twins, "conditions": conditions},
    }


def test_the_table() -> None:
    other = thermostat()
    other["metadata"] = {"name": "t", "namespace": "lab"}
    found = Found.of([thermostat(), MODEL, status("20.5"), other])
    lines = [line.split() for line in devices.table(found.rows(), AT_MS / 1000 + 7, namespaces=True)]
    assert lines == [
        ["DEVICE", "NODE", "STATE", "PROPERTY", "READING", "DESIRED", "UNIT", "AGE"],
        ["default/t", "edge-1", "online", "temperature", "-", "-", "celsius", "-"],
        ["default/t", "edge-1", "online", "target", "20.5", "21", "-", "7s"],
        ["lab/t", "edge-1", "unknown", "temperature", "-", "-", "-", "-"],
        ["lab/t", "edge-1", "unknown", "target", "-", "21", "-", "-"],
    ]
    assert {row.namespace for row in found.rows("lab")} == {"lab"}


def test_what_a_device_says_cannot_command_the_terminal() -> None:
    found = Found.of([thermostat(), status("\x1b[2J\n" + "x" * 100)])
    (line,) = [
        line for line in devices.table(found.rows(), AT_MS / 1000, namespaces=False) if "target" in line
    ]
    assert line.isprintable()
    assert len(line) < 120


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, "-"),
        ({"minimum": "5"}, "from 5"),
        ({"maximum": "35"}, "up to 35"),
        ({"minimum": "5", "maximum": "35"}, "5 to 35"),
    ],
)
def test_the_range_of_a_property(limits: dict[str, str], text: str) -> None:
    model = {**MODEL, "spec": {"properties": [{"name": "target", "type": "FLOAT", **limits}]}}
    found = Found.of([thermostat(), model])
    heading, *lines = [
        line
        for line in devices.describe(found, found.device("default", "t"), 0.0)
        if line.startswith(("PROPERTY", "target"))
    ]
    assert lines[0][heading.index("RANGE") : heading.index("AGE")].strip() == text


def test_describe_says_what_is_wrong() -> None:
    found = Found.of([thermostat(), MODEL, status("20.5", complaint="target: too hot")])
    text = "\n".join(devices.describe(found, found.device("default", "t"), AT_MS / 1000))
    assert "5 to 35" in text
    assert "OutOfRange: target: too hot" in text
    assert "(not there)" not in text
    assert devices.problems(found.statuses["default", "t"]) == ["OutOfRange: target: too hot"]
    alone = Found.of([thermostat()])
    assert "m (not there)" in "\n".join(devices.describe(alone, alone.device("default", "t"), 0.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_age(seconds: float, text: str) -> None:
    assert devices.age(1000.0, 1000.0 + seconds) == text


def test_a_name_that_is_not_there() -> None:
    found = Found.of([thermostat()])
    with pytest.raises(TrialError, match=r"no device default/tt: did you mean t\?"):
        found.device("default", "tt")
    with pytest.raises(TrialError, match=r"no property targt: did you mean target\?"):
        devices.index_of(thermostat(), "targt")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("target", "25", None),
        ("target", "35", None),
        ("target", "35.1", "35.1 is above the maximum 35"),
        ("target", "-1", "-1 is below the minimum 5"),
        ("target", "warm", "the value is not a FLOAT: 'warm'"),
        ("temperature", "20", "it can only be read"),
        ("unheard-of", "any text", None),
    ],
)
def test_what_the_model_refuses(name: str, value: str, why: str | None) -> None:
    assert devices.refusal(devices.declaration(MODEL, name), value) == why


def test_a_patch_changes_one_value_and_nothing_beside_it() -> None:
    test, change = devices.patch(thermostat(), "target", "25")
    assert test == {"op": "test", "path": "/spec/properties/1/name", "value": "target"}
    assert change == {"op": "add", "path": "/spec/properties/1/desired/value", "value": "25"}
    (_, first) = devices.patch(thermostat(), "temperature", "25")
    assert first == {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "25"}}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("25", "25.0", True),
        ("True", "true", True),
        ("1", "true", False),
        ("a", "A", False),
        ("25", "26", False),
    ],
)
def test_the_same_value(one: str, other: str, *, equal: bool) -> None:
    assert devices.same(one, other) is equal


def judge(before: dict[str, Any] | None, now: dict[str, Any] | None, waited_s: float = 0.5) -> Verdict:
    return devices.verdict(before, now, 1, "target", "25", waited_s)[0]


def test_the_verdict() -> None:
    assert judge(None, None) is Verdict.WAITING
    assert judge(status("21"), status("21")) is Verdict.WAITING
    assert judge(status("21"), status("25.0")) is Verdict.REACHED
    complaint = "$.spec.properties[1].desired.value: is above the maximum 35"
    assert judge(status("21"), status("21", complaint)) is Verdict.REFUSED
    elsewhere = "$.spec.properties[0].desired.value: is above the maximum 35; temperature: broken"
    assert judge(status("21"), status("21", elsewhere)) is Verdict.WAITING


def test_an_old_refusal_counts_only_when_it_stays() -> None:
    old = status("21", "target: is above the maximum 35")
    assert judge(old, old, 0.5) is Verdict.WAITING
    assert judge(old, old, devices.REFUSAL_STANDS_S) is Verdict.REFUSED


def test_changes_are_told_once() -> None:
    assert devices.changes(None, status("21")) == ["is online", "target 21"]
    assert devices.changes(status("21"), status("21")) == []
    after = status("22", "target: too hot", state="offline")
    assert devices.changes(status("21"), after) == ["is offline", "target 22", "target: too hot"]
    assert devices.changes(after, after) == []
    assert devices.changes(after, status("22", state="offline")) == ["no longer: target: too hot"]


def test_a_candidate_in_full() -> None:
    item = {
        "metadata": {"name": "zigbee-1", "namespace": "default"},
        "spec": {
            "nodeName": "edge-1",
            "subsystem": "mqtt",
            "name": "Lamp\x1b[2J",
            "identity": "0x1",
            "offer": {
                "protocolName": "mqtt",
                "configData": {"availabilityMode": "all"},
                "properties": [
                    {
                        "name": "on",
                        "type": "BOOLEAN",
                        "writable": True,
                        "config": {"topic": "t", "jsonPath": "$.a", "commandTopic": "c"},
                    },
                    {
                        "name": "level",
                        "type": "INT",
                        "minimum": "0",
                        "maximum": "254",
                        "config": {"topic": "t"},
                    },
                ],
                "left": ["odd: its template is not understood"],
            },
        },
        "status": {"phase": "Present"},
    }
    text = "\n".join(devices.describe_candidate(item))
    assert "\x1b" not in text
    for line in (
        "Accepted:     not decided",
        "0 to 254",
        "t $.a",
        "odd: its template",
        "Phase:        Present",
    ):
        assert line in text
    assert "2 properties" in devices.candidates_table([item])[1]


def many() -> Found:
    items: list[dict[str, Any]] = [MODEL]
    for n in (10, 2, 1):
        made = thermostat()
        made["metadata"] = {"name": f"room-{n}", "namespace": "default"}
        made["spec"]["nodeName"] = f"edge-{n % 2}"
        items.append(made)
    return Found.of(items)


def test_many_devices_are_in_a_natural_order_and_can_be_chosen() -> None:
    found = many()
    assert [row.device for row in found.rows()][::2] == ["room-1", "room-2", "room-10"]
    assert {row.device for row in found.rows(pattern="room-1*")} == {"room-1", "room-10"}
    assert {row.device for row in found.rows(node="edge-1")} == {"room-1"}
    assert found.rows(pattern="hall*") == []
    with pytest.raises(TrialError, match=r"there are room-1, room-10, room-2$"):
        found.device("default", "x")
    with pytest.raises(TrialError, match="did you mean room-2"):
        found.device("default", "room-2x")


@pytest.mark.parametrize("width", [None, 200, 70, 50, 30, 8, 1])
def test_a_table_fits_a_narrow_terminal(width: int | None) -> None:
    lines = devices.table(many().rows(), 0.0, namespaces=False, width=width)
    assert len(lines) == 7
    if width is None or width == 200:
        assert "NODE" in lines[0]
    else:
        assert all(len(line) <= max(width, 2) for line in lines)
    if width == 30:
        assert lines[1].split()[:2] == ["room-1", "tempe…"]
