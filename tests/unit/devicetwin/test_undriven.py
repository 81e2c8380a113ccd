"""Devices that nothing serves, and what is said of them."""

import json
import random
from pathlib import Path
from typing import Any

from devicetwin.assign import ANNOTATION
from devicetwin.mapperlink import Link, MapperInfo
from devicetwin.module import DeviceTwin
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
