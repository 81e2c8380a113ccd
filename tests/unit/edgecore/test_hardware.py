"""What is plugged in, as edgecore believes it: nothing until it is told, everything when it is, device nodes only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from beehive.apis import hardware
from beehive.apis.hardware import MAX_SEEN, Report, Seen
from beehive.errors import ProtocolError
from beehive.message import Message
from edgecore.edged.claims import HostDevice
from edgecore.hardware import Hardware
from tests.fakes.edged import FakeState

SEEN = Seen(rule_name="nulls", identity="virtual/mem/null", dev_node="/dev/null")
NAME = hardware.object_name("edge-1", SEEN)


class Cloud:
    def __init__(self) -> None:
        self.ours = True
        self.sent: list[list[Seen]] = []

    async def known(self, kind: str, namespace: str = "") -> list[msgspec.Raw]:
        return [msgspec.Raw(b'{"kind":"HardwareRule"}')]

    async def send(self, message: Message, *, coalesce: str) -> None:
        self.sent.append(msgspec.json.decode(bytes(message.content), type=Report).seen)


class Twins:
    def __init__(self) -> None:
        self.present: list[frozenset[str]] = []
        self.accepted = {"default/null": NAME}
        self.faults: Mapping[str, str] = {}
        self.loaded = asyncio.Event()
        self.loaded.set()

    def needs(self) -> list[dict[str, Any]]:
        return [{"protocol": "modbus", "devices": 1, "mappers": []}]

    def found(self) -> Mapping[str, str]:
        return self.accepted

    def undriven(self, faults: Mapping[str, str]) -> None:
        self.faults = faults

    def plugged(self, present: frozenset[str]) -> None:
        self.present.append(present)


def ask(found: Hardware, present: Any) -> dict[str, Any]:
    return asyncio.run(found.answer({"present": present}))


def told(seen: Seen) -> dict[str, Any]:
    text: dict[str, Any] = msgspec.to_builtins(seen)
    return text


def test_nothing_is_concluded_before_it_is_told() -> None:
    cloud, twins = Cloud(), Twins()
    found = Hardware("edge-1", cloud, twins, FakeState())
    answer = ask(found, None)
    assert (answer["node"], answer["needs"][0]["protocol"]) == ("edge-1", "modbus")
    assert (cloud.sent, twins.present) == ([], [])
    assert "not known yet" in str(found.device("default", "null"))
    assert found.plugged_in() == {"null": 0}


def test_what_comes_and_goes_is_told_once() -> None:
    cloud, twins = Cloud(), Twins()
    found = Hardware("edge-1", cloud, twins, FakeState())
    changed: list[tuple[str, str]] = []
    found.changed.append(lambda *where: changed.append(where))
    for _ in range(3):
        ask(found, [told(SEEN)])
    assert cloud.sent == [[SEEN]]
    assert twins.present == [frozenset({NAME})]
    assert changed == [("default", "null")]
    assert found.device("default", "null") == HostDevice(path="/dev/null", major=1, minor=3)
    assert found.plugged_in() == {"null": 1}
    ask(found, [])
    assert cloud.sent[-1] == []
    assert "not plugged in" in str(found.device("default", "null"))
    assert "made of found hardware" in str(found.device("other", "null"))


def test_each_session_hears_it_and_a_stock_hub_never() -> None:
    cloud = Cloud()
    found = Hardware("edge-1", cloud, Twins(), FakeState())
    asyncio.run(found.greet())
    assert cloud.sent == []
    ask(found, [told(SEEN)])
    asyncio.run(found.greet())
    assert cloud.sent == [[SEEN], [SEEN]]
    cloud.ours = False
    asyncio.run(found.greet())
    ask(found, [])
    assert len(cloud.sent) == 2


@pytest.mark.parametrize(
    "path", ["", "/dev", "/dev/../etc/passwd", "/etc/passwd", "/dev/none-such", "null", "/dev/fd"]
)
def test_only_a_device_node_below_dev_is_given(path: str) -> None:
    found = Hardware("edge-1", Cloud(), Twins(), FakeState())
    ask(found, [told(msgspec.structs.replace(SEEN, dev_node=path))])
    assert isinstance(found.device("default", "null"), str)


def test_a_link_is_no_device_node(tmp_path: Any) -> None:
    link = f"/dev/shm/skerry-test-{os.getpid()}"
    os.symlink("/dev/null", link)
    try:
        found = Hardware("edge-1", Cloud(), Twins(), FakeState())
        ask(found, [told(msgspec.structs.replace(SEEN, dev_node=link))])
        assert isinstance(found.device("default", "null"), str)
    finally:
        os.unlink(link)


@pytest.mark.parametrize(
    "present",
    [
        7,
        [7],
        [{}],
        [{"ruleName": "x"}],
        [{**{"ruleName": "x", "identity": "y" * 513}}],
        [told(SEEN)] * (MAX_SEEN + 1),
    ],
)
def test_what_is_no_report_is_refused(present: Any) -> None:
    cloud = Cloud()
    found = Hardware("edge-1", cloud, Twins(), FakeState())
    with pytest.raises(ProtocolError):
        ask(found, present)
    assert cloud.sent == []


def test_what_is_said_of_drivers_goes_to_the_twins() -> None:
    twins = Twins()
    found = Hardware("edge-1", Cloud(), twins, FakeState())
    asyncio.run(found.answer({"present": None, "faults": {"knx": "no driver"}}))
    assert twins.faults == {"knx": "no driver"}
    with pytest.raises(ProtocolError):
        asyncio.run(found.answer({"faults": {"knx": 7}}))


def chip(number: int, place: str = "platform/soc/fe200000.gpio") -> Seen:
    return Seen(
        rule_name="pins",
        identity=f"{place}/gpiochip",
        former=f"{place}/gpiochip{number}",
        dev_node=f"/dev/gpiochip{number}",
    )


def earlier(number: int) -> Seen:
    """As an earlier version told it."""
    return msgspec.structs.replace(chip(number), identity=chip(number).former, former="")


def test_a_device_of_an_earlier_version_stays_that_device_when_the_kernel_counts_otherwise() -> None:
    old = hardware.object_name("edge-1", earlier(0))
    state, cloud, twins = FakeState(), Cloud(), Twins()
    twins.accepted = {"default/pins": old}
    ask(Hardware("edge-1", cloud, twins, state), [told(chip(0)), told(SEEN)])
    assert cloud.sent[-1] == [earlier(0), SEEN]
    # the machine was restarted, and another chip came up before it
    found = Hardware("edge-1", cloud, twins, state)
    other = chip(0, "platform/soc/fe804000.i2c/gpio@20")
    ask(found, [told(other), told(chip(1))])
    mine = cloud.sent[-1][1]
    assert (mine.identity, mine.dev_node) == (earlier(0).identity, "/dev/gpiochip1")
    assert hardware.object_name("edge-1", mine) == old
    assert cloud.sent[-1][0] == msgspec.structs.replace(other, former="")
    assert found.plugged_in() == {"pins": 1}
    # while it is away it is remembered
    ask(found, [])
    ask(found, [told(chip(2))])
    assert hardware.object_name("edge-1", cloud.sent[-1][0]) == old
    # its Device was deleted: from now on it is what it is
    twins.accepted = {}
    ask(found, [told(chip(2))])
    assert cloud.sent[-1] == [msgspec.structs.replace(chip(2), former="")]
    assert state.rows["identities"] == b"{}"


def test_an_earlier_identity_is_of_one_thing_only() -> None:
    """After a restart the number may be another's, and what has a Device by its identity of today keeps that."""
    twins, cloud = Twins(), Cloud()
    twins.accepted = {
        "default/a": hardware.object_name("edge-1", earlier(0)),
        "default/b": hardware.object_name("edge-1", chip(0, "elsewhere")),
    }
    moved = msgspec.structs.replace(chip(0, "elsewhere"), former=earlier(0).identity)
    third = msgspec.structs.replace(chip(0, "third"), former=earlier(0).identity)
    found = Hardware("edge-1", cloud, twins, FakeState())
    ask(found, [told(moved), told(chip(0)), told(third)])
    assert [seen.identity for seen in cloud.sent[-1]] == [
        "elsewhere/gpiochip",
        earlier(0).identity,
        "third/gpiochip",
    ]


@pytest.mark.parametrize("kept", [b"{", b"[]", b'{"a": "b"}', b"\xff"])
def test_what_was_kept_and_cannot_be_used_is_started_anew(kept: bytes) -> None:
    state, cloud = FakeState(), Cloud()
    state.rows["identities"] = kept
    ask(Hardware("edge-1", cloud, Twins(), state), [told(chip(0))])
    assert cloud.sent[-1] == [msgspec.structs.replace(chip(0), former="")]
