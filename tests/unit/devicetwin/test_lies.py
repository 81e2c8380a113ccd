"""What a lying device says over MQTT: refused with a code, counted, and nothing of it or of others is different."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from beehive import clock
from devicetwin.dmi import MAX_TWINS
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import MemoryBus, MemoryStore, MemoryUplink, resource_message

ROWS = [
    {"name": "real", "type": "DOUBLE", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
    {"name": "whole", "type": "INT", "accessMode": "ReadWrite"},
    {"name": "flag", "type": "BOOLEAN", "accessMode": "ReadOnly"},
]
GOOD = {"real": "20.5", "whole": "7", "flag": "true"}


def update(name: str, value: object, side: str = "actual") -> bytes:
    return json.dumps({"event_id": "e", "timestamp": 1, "twin": {name: {side: {"value": value}}}}).encode()


def many(count: int) -> bytes:
    return json.dumps({"twin": {f"n{i}": {"actual": {"value": "1"}} for i in range(count)}}).encode()


LIES = {
    "not a number": update("real", "NaN"),
    "infinity": update("real", "+Inf"),
    "minus infinity": update("real", "-Infinity"),
    "more than a double": update("real", "1e999"),
    "2^63": update("whole", str(2**63)),
    "less than -2^63": update("whole", str(-(2**63) - 1)),
    "half of a whole": update("whole", "1.5"),
    "other digits": update("whole", "٣"),
    "a wish out of range": update("real", "101", "expected"),
    "a wish for what is read only": update("flag", "false", "expected"),
    "a number for a text": update("real", 20.5),
    "NaN in JSON": b'{"twin":{"real":{"actual":{"value":NaN}}}}',
    "a million elements": b'{"twin":[' + b"0," * 1_000_000 + b"0]}",
    "a hundred thousand elements": b'{"twin":[' + b"0," * 100_000 + b"0]}",
    "too many names": many(2000),
    "a long value": update("real", "1" * 5000),
    "a long name": update("n" * 129, "1"),
    "a name of a path": update("../../etc/passwd ", "1"),
    "a zero byte": update("text", "a\0b"),
    "broken UTF-8": b'{"twin":{"real":{"actual":{"value":"\xff\xfe"}}}}',
    "half a character": b'{"twin":{"real":{"actual":{"value":"\\ud800"}}}}',
    "deep arrays": b'{"twin":' + b"[" * 100_000,
    "deep objects": b'{"twin":' + b'{"a":' * 40_000,
    "no JSON": b"\x00\x01\x02",
    "nothing": b"",
    "a huge number": b'{"timestamp":' + b"9" * 10_000 + b',"twin":{"real":{"actual":{"value":"1"}}}}',
}


class Edge:
    def __init__(self, folder: Path) -> None:
        self.bus, self.uplink = MemoryBus(), MemoryUplink()
        self.twin = DeviceTwin(
            node_name="edge-1",
            store=MemoryStore(),
            uplink=self.uplink,
            publisher=self.bus,
            dmi_dir=folder,
            clock=clock,
        )

    async def begin(self) -> None:
        await self.twin.load()
        model = {
            "metadata": {"namespace": "default", "name": "m"},
            "spec": {"protocol": "p", "properties": ROWS},
        }
        await self.twin.on_message(resource_message("devicemodel", model))
        for name in ("liar", "honest"):
            device = {
                "metadata": {"namespace": "default", "name": name},
                "spec": {
                    "deviceModelRef": {"name": "m"},
                    "protocol": {"protocolName": "p"},
                    "properties": [{"name": row["name"]} for row in ROWS],
                },
            }
            await self.twin.on_message(resource_message("device", device))
            assert not self.twin.reports.reported(
                f"default/{name}", [Reading(name=n, reported=v) for n, v in GOOD.items()]
            )
        self.twin.texts.waiting.clear()

    def values(self, name: str) -> dict[str, str | None]:
        return {
            n: t.actual.value if t.actual is not None else None
            for n, t in self.twin.known.records[f"default/{name}"].twins.items()
        }

    def wishes(self, name: str) -> dict[str, str]:
        return {
            n: t.expected.value
            for n, t in self.twin.known.records[f"default/{name}"].twins.items()
            if t.expected
        }


def play(story: Any) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="sk") as folder:
            edge = Edge(Path(folder))
            await edge.begin()
            await story(edge)

    asyncio.run(main())


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_answered_counted_and_changes_nothing(lie: str) -> None:
    async def story(edge: Edge) -> None:
        await edge.twin.on_mqtt("$hw/events/device/default/liar/twin/update", LIES[lie])
        ((topic, payload, _),) = edge.twin.texts.waiting
        answer = json.loads(payload)
        assert topic == "$hw/events/device/default/liar/twin/update/result"
        assert answer["code"] == 400
        assert 0 < len(answer["reason"]) <= 256
        assert edge.twin.dropped() == {("mqtt", "refused"): 1}
        for name in ("liar", "honest"):
            assert edge.values(name) == GOOD
            assert edge.wishes(name) == {}
        # and the next word of the same device is heard
        await edge.twin.on_mqtt("$hw/events/device/default/liar/twin/update", update("real", "21"))
        assert edge.values("liar")["real"] == "21"

    play(story)


def test_of_a_key_that_comes_twice_the_last_counts_and_nothing_else_does() -> None:
    text = b'{"twin":{"whole":{"actual":{"value":"1"}},"whole":{"actual":{"value":"2"}}}}'

    async def story(edge: Edge) -> None:
        await edge.twin.on_mqtt("$hw/events/device/default/liar/twin/update", text)
        assert edge.values("liar") == {**GOOD, "whole": "2"}
        assert edge.values("honest") == GOOD

    play(story)


@pytest.mark.parametrize(
    "topic",
    [
        "$hw/events/device/default/" + "x" * 65_498,  # 65,535 bytes with what follows
        "$hw/events/device/default/nobody",
        "$hw/events/device/other/liar",
        "$hw/events/device/default/../honest",
        "$hw/events/device/default/li\ufffdar",
    ],
)
def test_the_topic_of_no_device_reaches_none(topic: str) -> None:
    async def story(edge: Edge) -> None:
        for tail in ("twin/update", "twin/get", "state/update", "twin/cloud_updated"):
            await edge.twin.on_mqtt(f"{topic}/{tail}", update("real", "66"))
        assert edge.values("liar") == edge.values("honest") == GOOD
        assert all(json.loads(payload)["code"] == 404 for _, payload, _ in edge.twin.texts.waiting)

    play(story)


@pytest.mark.parametrize(
    "state", ["disconnected", "ERROR", "", "on" * 100_000, "\ud800", None, 5, ["online"]]
)
def test_a_state_that_is_none_is_counted_and_not_taken(state: object) -> None:
    async def story(edge: Edge) -> None:
        before = edge.twin.known.records["default/liar"].state
        await edge.twin.on_mqtt(
            "$hw/events/device/default/liar/state/update", json.dumps({"state": state}).encode()
        )
        assert edge.twin.known.records["default/liar"].state == before
        assert edge.twin.dropped() == {("mqtt", "refused"): 1}

    play(story)


def test_a_state_that_is_said_again_is_answered_again() -> None:
    async def story(edge: Edge) -> None:
        for _ in range(2):
            await edge.twin.on_mqtt(
                "$hw/events/device/default/liar/state/update", b'{"event_id":"1","state":"ok"}'
            )
        answers = [json.loads(p) for t, p, _ in edge.twin.texts.waiting if t.endswith("/state/update/result")]
        assert [a["device"]["state"] for a in answers] == ["ok", "ok"]

    play(story)


def test_names_that_a_mapper_makes_up_leave_nothing() -> None:
    async def story(edge: Edge) -> None:
        names = [f"n{i}" for i in range(MAX_TWINS)]
        refused = edge.twin.reports.reported("default/liar", [Reading(name=n, reported="1") for n in names])
        assert set(refused) == set(names)
        assert edge.values("liar") == GOOD
        assert not edge.twin.known.bad

    play(story)
