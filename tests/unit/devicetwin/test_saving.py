"""Rows of devices on a disk in memory: what is kept when, and what a start makes of it."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from devicetwin import saving
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import (
    until,
)
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_readings_that_change_are_saved_together_and_wishes_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="0")])
        await world.settle()
        writes = world.store.writes
        for number in range(20):
            twin.reports.reported(ID, [Reading(name="temperature", reported=str(number))])
            await asyncio.sleep(0.01)
        await world.settle()
        assert world.store.writes == writes  # a flash card wears out by the row
        assert world.uplink.twin(ID)["temperature"][0] == "19"
        monkeypatch.setattr(saving, "READINGS_S", 0.01)
        save = asyncio.create_task(twin.saving.run())
        await until(lambda: world.store.writes == writes + 1)
        save.cancel()
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        await world.settle()
        assert world.store.writes == writes + 1

    world = run(folder, scenario)
    # a stop saves what a power cut would lose
    assert b'"20"' in world.store.rows["twin", ID]


def test_after_a_power_cut_the_cloud_keeps_what_is_newer_until_the_device_speaks(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        await world.settle()

    world = run(folder, scenario)

    async def start(speak: bool) -> None:
        world.uplink.latest.clear()
        async with world.running() as twin:
            await twin.on_connected()
            await world.settle()
            if speak:
                assert world.uplink.twin(ID) == {}  # it may have said something newer before the cut
                twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
                await world.settle()
            assert world.uplink.twin(ID)["temperature"][0] == "20"

    asyncio.run(start(speak=False))  # after an orderly stop what is stored is the last word
    del world.store.rows[saving.STOPPED, saving.STOPPED]
    asyncio.run(start(speak=True))


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


@pytest.mark.parametrize("kind", ["twin", "mapper"])
@pytest.mark.parametrize("text", [b"{", b'{"name": "\xff"}', b"[" * 100_000])
def test_what_is_stored_and_cannot_be_read_is_started_anew(folder: Path, kind: str, text: bytes) -> None:
    world = World(folder)
    world.store.rows[kind, "plant/pump"] = text

    async def start() -> None:
        async with world.running() as twin:
            assert list(twin.devices()) == []

    asyncio.run(start())
