"""The twin part on fakes: what the cloud says and hears, coalescing, failures."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from devicetwin import notes
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import (
    resource_message,
    twin_message,
    until,
)
from tests.unit.devicetwin.world import ID, World, plain, recorded_object, run
from tests.vectors_kubeedge import frames


def test_reports_look_like_a_stock_edges(folder: Path) -> None:
    """U1 and U2 in the recording and ours have the same shape; ours has the model's type."""
    stock = next(m for m in frames("up") if m["route"]["resource"].endswith("edge_updated"))
    state = next(m for m in frames("up") if m["route"]["resource"].endswith("state/update"))

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="21", observed="21")])
        await world.settle()
        sent = world.uplink.latest[f"twin/{ID}"]
        assert msgspec.to_builtins(sent.route) == stock["route"]
        ours = json.loads(bytes(sent.content))["twin"]["temperature"]
        theirs = stock["content"]["twin"]["temperature"]
        assert list(ours) == list(theirs)
        assert ours["metadata"] == {"type": "int"}
        twin.reports.state_reported(ID, "online")
        await world.settle()
        said = world.uplink.latest[f"devicestate/{ID}"]
        assert msgspec.to_builtins(said.route) == state["route"]
        assert plain(json.loads(said.text())) == plain(json.loads(state["content"]))

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
            twin.reports.reported(ID, [Reading(name="temperature", reported=str(count))])
            if count % 50 == 0:
                await asyncio.sleep(0)
        await world.settle()
        assert count > 200
        # One at once, then one per 100 ms, and one state.
        assert len(world.uplink.sent) - before <= 6
        assert world.store.writes - writes <= 6
        assert world.uplink.twin(ID)["temperature"][0] == str(count)

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
        twin.reports.state_reported(ID, "offline")
        twin.reports.reported(ID, [Reading(name="temperature", reported="33")])
        await asyncio.sleep(0.15)
        world.store.broken = False
        await until(lambda: world.uplink.twin(ID).get("temperature") == ("33", None))

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
        twin.reports.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        world.uplink.latest.clear()
        await twin.on_connected()
        await until(lambda: len(world.uplink.latest) == 3)
        assert set(world.uplink.latest) == {f"twin/{ID}", f"devicestate/{ID}", "membership/detail"}
        ask = world.uplink.latest["membership/detail"]
        assert ask.route.operation == "get"
        assert ask.route.resource == "membership/detail"

    run(folder, scenario)


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
