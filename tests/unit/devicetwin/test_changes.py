"""What is said and kept of a change, and what is not."""

import json
from pathlib import Path
from typing import Any

from devicetwin import membership
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import until
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_a_state_that_is_said_again_is_sent_and_not_written(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.state_reported(ID, "online")
        await world.settle()
        sent, writes = len(world.uplink.sent), world.store.writes
        for _ in range(3):
            twin.known.records[ID] = membership.anew(twin.known.records[ID])  # as after a minute
            twin.reports.state_reported(ID, "online")
            await world.settle()
        assert len(world.uplink.sent) > sent
        assert world.store.writes == writes
        twin.reports.state_reported(ID, "offline")
        await world.settle()
        assert world.store.writes == writes + 1

    run(folder, scenario)


def test_unchanged_readings_write_and_send_nothing(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        sent, writes, texts = len(world.uplink.sent), world.store.writes, len(world.bus.texts)
        for _ in range(100):
            twin.reports.reported(ID, [Reading(name="temperature", reported="21")])
        await world.settle()
        assert (len(world.uplink.sent), world.store.writes, len(world.bus.texts)) == (sent, writes, texts)

    run(folder, scenario)


def test_the_cloud_hears_of_a_refused_reading_and_of_the_next_good_one(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        twin.reports.reported(
            ID, [Reading(name="temperature", reported="warm"), Reading(name="x" * 9000, reported="1")]
        )

        def said() -> Any:
            message = world.uplink.latest.get(f"twin/{ID}")
            return [] if message is None else json.loads(bytes(message.content)).get("problems")

        await until(lambda: bool(said()))
        assert [p["property"] for p in said()] == ["temperature"]
        assert world.uplink.twin(ID)["temperature"][0] == "20"
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        await until(lambda: said() is None)

    run(folder, scenario)
