"""Devices that nothing serves, and what is said of them."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from devicetwin.assign import ANNOTATION
from devicetwin.mapperlink import Link, MapperInfo
from devicetwin.module import DeviceTwin
from devicetwin.saving import STOPPED
from devicetwin.twin import Reading
from devicetwin.undriven import MAX_FAULTS, MAX_TEXT
from tests.unit.devicetwin.fakes import until
from tests.unit.devicetwin.world import ID, World, recorded_object, run

FAULT = {"vecproto": "cannot import x.py: line 3: invalid syntax"}


def said(world: World) -> Any:
    message = world.uplink.latest.get(f"twin/{ID}")
    return None if message is None else json.loads(bytes(message.content)).get("problems")


def test_the_cloud_hears_why_nothing_serves_a_device_until_something_does(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.undriven({**FAULT, "other": "of no device here"})
        await until(lambda: bool(said(world)))
        (problem,) = said(world)
        assert problem == {
            "property": "",
            "reason": "NotServed",
            "message": "no mapper runs it: cannot import x.py: line 3: invalid syntax",
        }
        assert twin.devices()[0]["problems"][""] == problem["message"]
        sent = len(world.uplink.sent)
        twin.undriven(FAULT)
        await world.settle()
        assert len(world.uplink.sent) == sent  # it is no news
        twin.undriven({})
        await until(lambda: said(world) is None)
        assert twin.devices()[0]["problems"] == {}

    run(folder, scenario)


def test_a_device_that_a_mapper_has_is_not_concerned(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.undriven(FAULT)
        info = MapperInfo(name="m", protocol="vecproto", address="/x")
        link = twin.dmi.links["m"] = Link(info, twin.dispatch, random.Random(0))
        twin.dispatch.reassign()
        assert twin.devices()[0]["problems"] == {}
        link.alive = False
        assert "invalid syntax" in twin.devices()[0]["problems"][""]

    run(folder, scenario)


def test_a_mapper_that_does_not_answer_is_what_is_wrong_until_it_answers_or_registers(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        info = MapperInfo(name="m", protocol="vecproto", address="/x")
        link = twin.dmi.links["m"] = Link(info, twin.dispatch, random.Random(0))
        twin.dispatch.reassign()
        for back in ("it answers", "it registers"):
            link.alive = False
            twin.dispatch.alive_changed("m")
            await until(lambda: bool(said(world)))
            assert said(world)[0]["message"] == "its mapper m does not answer"
            twin.undriven(FAULT)
            assert "invalid syntax" in twin.devices()[0]["problems"][""]  # whoever starts it knows better
            twin.undriven({})
            link.alive = True
            if back == "it answers":
                twin.dispatch.alive_changed("m")
            else:
                await twin.dispatch.registered(info)
            await until(lambda: said(world) is None)

    run(folder, scenario)


def test_after_a_power_cut_what_is_wrong_is_told_without_readings_that_may_be_old(folder: Path) -> None:
    async def before(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        await world.settle()

    world = run(folder, before)
    del world.store.rows[STOPPED, STOPPED]

    async def after() -> None:
        waiting = world.uplink.latest[
            f"twin/{ID}"
        ]  # may still be on its way up, and newer than what was saved
        async with world.running() as twin:
            twin.undriven(FAULT)
            await world.settle()
            assert world.uplink.latest[f"twin/{ID}"] is waiting
            told = json.loads(bytes(world.uplink.latest[f"problems/{ID}"].content))
            assert told["twin"] == {}
            assert "invalid syntax" in told["problems"][0]["message"]
            twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
            await world.settle()
            assert world.uplink.twin(ID)["temperature"][0] == "20"
            assert "invalid syntax" in said(world)[0]["message"]
            # what waits keeps its place in the line, so the older word must not come after the newer one
            twin.undriven({})
            await until(lambda: said(world) is None)
            assert "problems" not in json.loads(bytes(world.uplink.latest[f"problems/{ID}"].content))

    asyncio.run(after())


def test_what_is_said_is_bounded(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        twin.undriven({f"p{n}": "x" for n in range(MAX_FAULTS)} | FAULT)
        assert twin.devices()[0]["problems"] == {}
        twin.undriven({"vecproto": "y" * 5000, "": "nothing"})
        assert len(twin.devices()[0]["problems"][""]) < MAX_TEXT + 50

    run(folder, scenario)


def test_a_device_that_comes_later_is_told_of_as_well(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        twin.undriven(FAULT)
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        await until(lambda: bool(said(world)))
        assert "invalid syntax" in said(world)[0]["message"]

    run(folder, scenario)


def test_no_driver_helps_a_device_that_is_bound_to_somebody_elses_mapper(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        bound = recorded_object("device")
        bound["metadata"].setdefault("annotations", {})[ANNOTATION] = "theirs"
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", bound)
        twin.undriven(FAULT)
        assert twin.devices()[0]["problems"] == {}

    run(folder, scenario)
