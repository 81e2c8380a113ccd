"""The twin part on fakes: recorded conversations, coalescing, failures."""

import asyncio
import contextlib
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from devicetwin import membership, module, notes
from devicetwin.dmi import Leave, Link, MapperInfo, Tell
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import (
    ManualClock,
    MemoryBus,
    MemoryStore,
    MemoryUplink,
    resource_message,
    twin_message,
    until,
)
from tests.vectors_kubeedge import frames, lines

ID = "vectors/thermo-1"


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.uplink, self.bus = MemoryStore(), MemoryUplink(), MemoryBus()
        self.twin: DeviceTwin

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[DeviceTwin]:
        self.twin = DeviceTwin(
            node_name="vec-edge",
            store=self.store,
            uplink=self.uplink,
            publisher=self.bus,
            dmi_dir=self.folder,
            clock=ManualClock(),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.twin.run())
            try:
                await self.twin._loaded.wait()
                yield self.twin
            finally:
                task.cancel()

    async def put(self, kind: str, obj: dict[str, Any], operation: str = "insert") -> None:
        key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        self.store.rows[kind, key] = msgspec.json.encode(obj)
        await self.twin.on_message(resource_message(kind, obj, operation))

    async def settle(self) -> None:
        """Until nothing is left to do but what waits for its time."""
        await until(lambda: not self.twin._notes and not self.twin._texts)
        await asyncio.sleep(0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sk") as name:
        yield Path(name)


def run(folder: Path, scenario: Callable[[World, DeviceTwin], Awaitable[None]]) -> World:
    world = World(folder)

    async def main() -> None:
        async with world.running() as twin:
            await scenario(world, twin)

    asyncio.run(main())
    return world


def recorded_object(kind: str) -> dict[str, Any]:
    """The object that a real cloud sent in the recording."""
    for message in frames("down"):
        if message["route"]["resource"].split("/")[1:2] == [kind]:
            found: dict[str, Any] = message["content"]
            return found
    raise AssertionError(kind)


def plain(value: Any) -> Any:
    """A recorded or sent document without what differs from run to run."""
    if isinstance(value, dict):
        return {
            k: "T" if k in ("timestamp", "lastOnlineTime", "last_online") else plain(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [plain(v) for v in value]
    return (
        "uuid"
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)
        else value
    )


def test_the_recorded_mqtt_conversation_goes_the_same_way(folder: Path) -> None:
    """Every request of the recording, answered as KubeEdge did but for two stated differences."""
    steps: list[tuple[str, Any]] = []
    answers: list[list[tuple[str, Any]]] = []
    for line in lines("mqtt.jsonl"):
        if line.get("step") == "mapper registers over DMI":
            break
        if "sent_topic" in line:
            sent = line["sent_payload"]
            steps.append((line["sent_topic"], sent if isinstance(sent, str) else json.dumps(sent)))
            answers.append([])
        elif "topic" in line and steps and line["topic"] != steps[-1][0]:
            answers[-1].append((line["topic"], plain(json.loads(line["payload"]))))
    assert len(steps) == 13

    async def scenario(world: World, twin: DeviceTwin) -> None:
        added = next(m for m in frames("down") if m["route"]["resource"] == "membership")["content"]
        await twin.on_message(twin_message("membership", added))
        await world.settle()
        assert plain(world.bus.texts.pop()[1]) == plain(added)
        for (topic, payload), expected in zip(steps, answers, strict=True):
            await twin.on_mqtt(topic, payload.encode())
            await world.settle()
            got = [(t, plain(p)) for t, p in world.bus.texts]
            world.bus.texts.clear()
            if payload == "{not json":
                # KubeEdge answers on a topic with an empty id, where nobody looks.
                assert got[0][0] == "$hw/events/device/vectors/thermo-1/twin/update/result"
                assert got[0][1]["code"] == expected[0][1]["code"]
                continue
            if '"e3"' in payload:  # the same value again: no document of a change that is none
                expected = [e for e in expected if not e[0].endswith("document")]
            for one in (*got, *expected):
                if "code" in one[1]:
                    one[1]["reason"] = "text"
            assert got == expected

    run(folder, scenario)


def test_reports_look_like_a_stock_edges(folder: Path) -> None:
    """U1 and U2 in the recording and ours have the same shape; ours has the model's type."""
    stock = next(m for m in frames("up") if m["route"]["resource"].endswith("edge_updated"))
    state = next(m for m in frames("up") if m["route"]["resource"].endswith("state/update"))

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="21", observed="21")])
        await world.settle()
        sent = world.uplink.latest[f"twin/{ID}"]
        assert msgspec.to_builtins(sent.route) == stock["route"]
        ours = json.loads(bytes(sent.content))["twin"]["temperature"]
        theirs = stock["content"]["twin"]["temperature"]
        assert list(ours) == list(theirs)
        assert ours["metadata"] == {"type": "int"}
        twin.state_reported(ID, "online")
        await world.settle()
        said = world.uplink.latest[f"devicestate/{ID}"]
        assert msgspec.to_builtins(said.route) == state["route"]
        assert plain(json.loads(said.text())) == plain(json.loads(state["content"]))

    run(folder, scenario)


def test_a_state_that_is_said_again_is_sent_and_not_written(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.state_reported(ID, "online")
        await world.settle()
        sent, writes = len(world.uplink.sent), world.store.writes
        for _ in range(3):
            twin._records[ID] = membership.anew(twin._records[ID])  # as after a minute
            twin.state_reported(ID, "online")
            await world.settle()
        assert len(world.uplink.sent) > sent
        assert world.store.writes == writes
        twin.state_reported(ID, "offline")
        await world.settle()
        assert world.store.writes == writes + 1

    run(folder, scenario)


def test_a_device_made_anew_has_nothing_of_the_one_before(folder: Path) -> None:
    """Whether or not its end was heard of: only the UID says that it is another."""

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        for turn, heard in enumerate((True, False)):
            device = recorded_object("device")
            device["metadata"]["uid"] = f"first-{turn}"
            await world.put("device", device)
            info = MapperInfo(name="m", protocol=device["spec"]["protocol"]["protocolName"], address="/x")
            twin.dmi.links["m"] = Link(info, twin, random.Random(0))
            twin._reassign()
            tell = twin.tell("m", ID)
            assert isinstance(tell, Tell)
            twin.told("m", ID, tell.digest)
            twin.reported(ID, [Reading(name="temperature", reported="21")])
            wish = {"event_id": "e", "twin": {"extra": {"expected": {"value": "1"}}}}
            await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", json.dumps(wish).encode())
            assert twin.history(ID)
            if heard:
                await world.put("device", device, "delete")
            device["metadata"]["uid"] = f"second-{turn}"
            await world.put("device", device)
            record = twin._records[ID]
            assert "extra" not in record.twins
            assert not any(t.actual for t in record.twins.values())
            assert record.state == ""
            assert not twin.history(ID)
            # its mapper still runs the one before, and must be told of the change
            tell = twin.tell("m", ID)
            assert isinstance(tell, Tell)
            assert tell.known
            assert not twin.devices()[0]["delivered"]

    run(folder, scenario)


def test_who_promised_to_tell_its_state_and_is_silent_is_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_LOOK_S", 0.01)
    monkeypatch.setattr(membership, "SILENT_CYCLES", 0)
    monkeypatch.setattr(membership, "SILENT_MIN_S", 0.05)

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        promised = recorded_object("device")
        promised["spec"]["stateReport"] = {"reportToCloud": True, "reportCycle": 5000}
        quiet = json.loads(json.dumps(promised))
        quiet["metadata"]["name"] = "quiet"
        del quiet["spec"]["stateReport"]
        for device in (promised, quiet):
            await world.put("device", device)
        for id_ in (ID, "vectors/quiet"):
            twin.state_reported(id_, "online")
        await until(lambda: world.uplink.state(ID) == "unknown")
        assert world.uplink.state("vectors/quiet") == "online"
        twin.reported(ID, [Reading(name="temperature", reported="20")])  # any word revives it
        assert twin._records[ID].state == "online"

    run(folder, scenario)


def test_a_flood_of_readings_becomes_a_trickle_and_the_newest_wins(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        await world.settle()
        before, writes = len(world.uplink.sent), world.store.writes
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.35
        count = 0
        while loop.time() < end:
            count += 1
            twin.reported(ID, [Reading(name="temperature", reported=str(count))])
            if count % 50 == 0:
                await asyncio.sleep(0)
        await world.settle()
        assert count > 200
        # One at once, then one per 100 ms, and one state.
        assert len(world.uplink.sent) - before <= 6
        assert world.store.writes - writes <= 6
        assert world.uplink.twin(ID)["temperature"][0] == str(count)

    run(folder, scenario)


def test_readings_that_change_are_saved_together_and_wishes_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="0")])
        await world.settle()
        writes = world.store.writes
        for number in range(20):
            twin.reported(ID, [Reading(name="temperature", reported=str(number))])
            await asyncio.sleep(0.01)
        await world.settle()
        assert world.store.writes == writes  # a flash card wears out by the row
        assert world.uplink.twin(ID)["temperature"][0] == "19"
        monkeypatch.setattr(module, "READINGS_S", 0.01)
        save = asyncio.create_task(twin._save_late())
        await until(lambda: world.store.writes == writes + 1)
        save.cancel()
        twin.reported(ID, [Reading(name="temperature", reported="20")])
        await world.settle()
        assert world.store.writes == writes + 1

    world = run(folder, scenario)
    # a stop saves what a power cut would lose
    assert b'"20"' in world.store.rows["twin", ID]


def test_after_a_power_cut_the_cloud_keeps_what_is_newer_until_the_device_speaks(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="20")])
        await world.settle()

    world = run(folder, scenario)

    async def start(speak: bool) -> None:
        world.uplink.latest.clear()
        async with world.running() as twin:
            await twin.on_connected()
            await world.settle()
            if speak:
                assert world.uplink.twin(ID) == {}  # it may have said something newer before the cut
                twin.reported(ID, [Reading(name="temperature", reported="20")])
                await world.settle()
            assert world.uplink.twin(ID)["temperature"][0] == "20"

    asyncio.run(start(speak=False))  # after an orderly stop what is stored is the last word
    del world.store.rows[module.STOPPED, module.STOPPED]
    asyncio.run(start(speak=True))


def test_unchanged_readings_write_and_send_nothing(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        sent, writes, texts = len(world.uplink.sent), world.store.writes, len(world.bus.texts)
        for _ in range(100):
            twin.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        assert (len(world.uplink.sent), world.store.writes, len(world.bus.texts)) == (sent, writes, texts)

    run(folder, scenario)


def test_a_full_disk_is_tried_again_and_nothing_is_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "RETRY_S", 0.05)

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        await world.settle()
        world.store.broken = True
        twin.state_reported(ID, "offline")
        twin.reported(ID, [Reading(name="temperature", reported="33")])
        await asyncio.sleep(0.15)
        world.store.broken = False
        await until(lambda: world.uplink.twin(ID).get("temperature") == ("33", None))

    run(folder, scenario)


def test_wishes_set_at_the_edge_reach_the_mapper_and_survive(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        mapper = dmi.Client(str(folder / "dmi.sock"))
        with mapper:
            info = pb.MapperInfo(name="m", protocol="vecproto", address=b"/nowhere")
            request = pb.MapperRegisterRequest(withData=True, mapper=info)
            await until((folder / "dmi.sock").exists)
            answer = await mapper.call(dmi.MANAGER["MapperRegister"], request, timeout_s=30)
        wishes = {p.name: p.desired.value for p in answer.deviceList[0].spec.properties}
        assert wishes == {"temperature": "21", "mode": "eco"}
        assert answer.modelList[0].name == "thermo"
        payload = b'{"event_id": "w", "twin": {"temperature": {"expected": {"value": "44"}}}}'
        await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", payload)
        # The answer means stored, so the row is there at once.
        assert b'"44"' in world.store.rows["twin", ID]
        told = twin.tell("m", ID)
        assert isinstance(told, Tell)
        assert told.device.spec.properties[0].desired.value == "44"

    world = run(folder, scenario)

    async def later() -> None:
        async with world.running() as twin:
            told = twin.tell("m", ID)
            assert isinstance(told, Tell)
            assert told.device.spec.properties[0].desired.value == "44"
            assert told.known

    asyncio.run(later())


def test_a_missing_model_never_takes_a_device_from_its_mapper(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("device", recorded_object("device"))
        await world.settle()
        (shown,) = twin.devices()
        assert "there is no device model" in shown["problems"][""]
        await twin.dmi.server.ready.wait()
        with dmi.Client(str(folder / "dmi.sock")) as mapper:
            info = pb.MapperInfo(name="m", protocol="vecproto", address=b"/nowhere")
            request = pb.MapperRegisterRequest(withData=True, mapper=info)
            answer = await mapper.call(dmi.MANAGER["MapperRegister"], request, timeout_s=30)
        assert not answer.deviceList
        assert isinstance(twin.tell("m", ID), Leave)
        await world.put("devicemodel", recorded_object("devicemodel"))
        assert isinstance(twin.tell("m", ID), Tell)
        await world.put("devicemodel", recorded_object("devicemodel"), "delete")
        assert isinstance(twin.tell("m", ID), Leave)
        await world.put("device", recorded_object("device"), "delete")
        assert twin.tell("m", ID) is None
        assert twin.devices() == []

    run(folder, scenario)


def test_bad_messages_change_nothing(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        before = twin.devices()
        await world.put("device", {**recorded_object("device"), "spec": []})
        wrong = resource_message("device", recorded_object("device"))
        other = msgspec.structs.replace(
            wrong, route=msgspec.structs.replace(wrong.route, resource="vectors/device/other")
        )
        await twin.on_message(other)
        for resource in (
            "membership",
            "membership/detail",
            f"device/{ID}/twin/cloud_updated",
            "device/x/twin/cloud_updated",
        ):
            for content in (None, [], "", {"twin": 5}, {"added_devices": "x"}, {"devices": [1]}):
                await twin.on_message(twin_message(resource, content))
        await twin.on_message(resource_message("pod", recorded_object("device")))
        assert twin.devices() == before

    run(folder, scenario)


def test_damaged_rows_are_left_out_at_start(folder: Path) -> None:
    world = World(folder)
    world.store.rows = {
        ("device", "a/b"): b"{",
        ("devicemodel", "a/b"): b"[]",
        ("twin", "a/b"): b"nonsense",
        ("mapper", "mappers/x"): b"{}",
        ("device", ID): msgspec.json.encode(recorded_object("device")),
        ("devicemodel", "vectors/thermo"): msgspec.json.encode(recorded_object("devicemodel")),
    }

    async def main() -> None:
        async with world.running() as twin:
            assert [d["id"] for d in twin.devices()] == [ID]

    asyncio.run(main())


def test_membership_is_stored_before_the_call_returns_and_survives(folder: Path) -> None:
    added = {"added_devices": [{"id": "plant/pump", "name": "pump"}], "removed_devices": None}

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await twin.on_message(twin_message("membership", added))
        assert ("twin", "plant/pump") in world.store.rows

    world = run(folder, scenario)

    async def later() -> None:
        async with world.running() as twin:
            assert [d["id"] for d in twin.devices()] == ["plant/pump"]
            gone = {"added_devices": None, "removed_devices": [{"id": "plant/pump"}]}
            await twin.on_message(twin_message("membership", gone))
            assert ("twin", "plant/pump") not in world.store.rows

    asyncio.run(later())


def test_on_connecting_everything_is_said_again_and_membership_asked(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        world.uplink.latest.clear()
        await twin.on_connected()
        await until(lambda: len(world.uplink.latest) == 3)
        assert set(world.uplink.latest) == {f"twin/{ID}", f"devicestate/{ID}", "membership/detail"}
        ask = world.uplink.latest["membership/detail"]
        assert ask.route.operation == "get"
        assert ask.route.resource == "membership/detail"

    run(folder, scenario)


def test_a_local_client_cannot_speak_as_the_cloud(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        update = {
            "twin": {
                "temperature": {"expected": {"value": "66"}, "expected_version": {"cloud": 99, "edge": 99}}
            }
        }
        await twin.on_mqtt(f"$hw/events/device/{ID}/twin/cloud_updated", json.dumps(update).encode())
        assert twin.devices()[0]["twins"]["temperature"]["desired"] == "21"
        await twin.on_message(twin_message(f"device/{ID}/twin/cloud_updated", update))
        assert twin.devices()[0]["twins"]["temperature"]["desired"] == "66"

    run(folder, scenario)


def test_history_is_bounded_and_holds_changes_only(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        for value in (1, 1, 2, *range(100)):
            twin.reported(ID, [Reading(name="temperature", reported=str(value))])
        values = [v for _, v in twin.history(ID)["temperature"]]
        assert len(values) == module.HISTORY
        assert values[-1] == "99"

    run(folder, scenario)


def test_the_cloud_hears_of_a_refused_reading_and_of_the_next_good_one(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reported(ID, [Reading(name="temperature", reported="20")])
        twin.reported(
            ID, [Reading(name="temperature", reported="warm"), Reading(name="x" * 9000, reported="1")]
        )

        def said() -> Any:
            message = world.uplink.latest.get(f"twin/{ID}")
            return [] if message is None else json.loads(bytes(message.content)).get("problems")

        await until(lambda: bool(said()))
        assert [p["property"] for p in said()] == ["temperature"]
        assert world.uplink.twin(ID)["temperature"][0] == "20"
        twin.reported(ID, [Reading(name="temperature", reported="20")])
        await until(lambda: said() is None)

    run(folder, scenario)


def test_names_that_a_client_makes_up_and_removes_leave_nothing_in_memory(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        await world.settle()
        before = len(twin._history)
        for n in range(20):
            for sides in ({"actual": {"value": "1"}, "optional": True, "metadata": {"type": "string"}}, None):
                payload = json.dumps(
                    {"event_id": "", "timestamp": 1, "twin": {f"made-up-{n}": sides}}
                ).encode()
                await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", payload)
        assert not [name for name in twin._records[ID].twins if name.startswith("made-up")]
        assert len(twin._history) == before

    run(folder, scenario)


@pytest.mark.parametrize("kind", ["twin", "mapper"])
@pytest.mark.parametrize("text", [b"{", b'{"name": "\xff"}', b"[" * 100_000])
def test_what_is_stored_and_cannot_be_read_is_started_anew(folder: Path, kind: str, text: bytes) -> None:
    world = World(folder)
    world.store.rows[kind, "plant/pump"] = text

    async def start() -> None:
        async with world.running() as twin:
            assert list(twin.devices()) == []

    asyncio.run(start())


def test_one_stored_device_that_meets_a_bug_leaves_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is met at each start: without a boundary the daemon would not come up again."""
    stored = DeviceTwin._object_stored

    def fail(self: DeviceTwin, id_: str) -> None:
        if id_ == "vectors/bad":
            raise OverflowError("a bug")
        stored(self, id_)

    monkeypatch.setattr(DeviceTwin, "_object_stored", fail)
    world = World(folder)
    device = recorded_object("device")
    bad = {**device, "metadata": {**device["metadata"], "name": "bad"}}
    for kind, obj in (("devicemodel", recorded_object("devicemodel")), ("device", bad), ("device", device)):
        key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        world.store.rows[kind, key] = msgspec.json.encode(obj)

    async def main() -> None:
        async with world.running() as twin:
            assert [found["id"] for found in twin.devices()] == [ID]

    asyncio.run(main())


def test_anomalies_reach_local_clients_and_the_cloud(folder: Path) -> None:
    def anomalies(world: World) -> Any:
        content = json.loads(bytes(world.uplink.latest[f"twin/{ID}"].content))
        return (
            [(a["property"], a["reason"]) for a in content["anomalies"]] if "anomalies" in content else None
        )

    async def scenario(world: World, twin: DeviceTwin) -> None:
        device = recorded_object("device")
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        twin.reported(ID, [Reading(name="temperature", reported="99")])
        await world.settle()
        assert anomalies(world) is None  # a device without rules says nothing of them
        ruled = json.loads(json.dumps(device))
        for prop in ruled["spec"]["properties"]:
            if prop["name"] == "temperature":
                prop["pushMethod"] = {"anomalyDetection": {"maximum": 40, "clearAfter": 0}}
        await world.put("device", ruled, "update")
        twin.reported(ID, [Reading(name="temperature", reported="99")])
        await until(lambda: anomalies(world) == [("temperature", "Range")])
        twin.reported(ID, [Reading(name="temperature", reported="20", anomaly="it smells")])
        await until(lambda: anomalies(world) == [("temperature", "Driver")])
        payload = {"event_id": "e", "timestamp": 1, "twin": {"temperature": {"actual": {"value": "50"}}}}
        await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", json.dumps(payload).encode())
        await until(lambda: anomalies(world) == [("temperature", "Range")])
        await world.put("device", device, "update")
        await until(lambda: anomalies(world) == [])
        await world.settle()
        told = [payload for topic, payload in world.bus.texts if topic.endswith("/anomaly")]
        assert [(t["kind"], t["over"]) for t in told] == [
            ("Range", False),
            ("Range", True),
            ("Driver", False),
            ("Driver", True),
            ("Range", False),
        ]
        assert told[0]["message"] == "99 is above 40"

    run(folder, scenario)


def test_missing_readings_are_noticed_without_any(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.01)

    async def scenario(world: World, twin: DeviceTwin) -> None:
        device = recorded_object("device")
        device["spec"]["properties"][0]["pushMethod"] = {"anomalyDetection": {"missingAfter": 30}}
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        await asyncio.sleep(0.05)
        assert not [t for t, _ in world.bus.texts if t.endswith("/anomaly")]
        twin._clock.ahead_s = 31.0  # type: ignore[attr-defined]
        await until(lambda: bool([t for t, _ in world.bus.texts if t.endswith("/anomaly")]))

    run(folder, scenario)
