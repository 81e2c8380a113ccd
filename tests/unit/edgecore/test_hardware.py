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

    def needs(self) -> list[dict[str, Any]]:
        return [{"protocol": "modbus", "devices": 1, "mappers": []}]

    def found(self) -> Mapping[str, str]:
        return {"default/null": NAME}

    def plugged(self, present: frozenset[str]) -> None:
        self.present.append(present)


def ask(found: Hardware, present: Any) -> dict[str, Any]:
    return asyncio.run(found.answer({"present": present}))


def told(seen: Seen) -> dict[str, Any]:
    text: dict[str, Any] = msgspec.to_builtins(seen)
    return text


def test_nothing_is_concluded_before_it_is_told() -> None:
    cloud, twins = Cloud(), Twins()
    found = Hardware("edge-1", cloud, twins)
    answer = ask(found, None)
    assert (answer["node"], answer["needs"][0]["protocol"]) == ("edge-1", "modbus")
    assert (cloud.sent, twins.present) == ([], [])
    assert "not known yet" in str(found.device("default", "null"))
    assert found.plugged_in() == {"null": 0}


def test_what_comes_and_goes_is_told_once() -> None:
    cloud, twins = Cloud(), Twins()
    found = Hardware("edge-1", cloud, twins)
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
    found = Hardware("edge-1", cloud, Twins())
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
    found = Hardware("edge-1", Cloud(), Twins())
    ask(found, [told(msgspec.structs.replace(SEEN, dev_node=path))])
    assert isinstance(found.device("default", "null"), str)


def test_a_link_is_no_device_node(tmp_path: Any) -> None:
    link = f"/dev/shm/skerry-test-{os.getpid()}"
    os.symlink("/dev/null", link)
    try:
        found = Hardware("edge-1", Cloud(), Twins())
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
    found = Hardware("edge-1", cloud, Twins())
    with pytest.raises(ProtocolError):
        ask(found, present)
    assert cloud.sent == []
