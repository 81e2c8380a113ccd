"""Devices that were made of found hardware."""

from pathlib import Path

from beehive.apis.hardware import CANDIDATE_ANNOTATION
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_a_device_whose_hardware_is_pulled_out_is_offline_whatever_its_mapper_believes(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        device = recorded_object("device")
        device["metadata"]["annotations"] = {CANDIDATE_ANNOTATION: "camera-1"}
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        assert twin.found() == {ID: "camera-1"}
        assert twin.devices()[0]["state"] == ""  # nobody has looked yet
        twin.plugged(frozenset({"camera-1"}))
        assert twin.devices()[0]["state"] == "online"  # no mapper speaks of it
        twin.plugged(frozenset({"another"}))
        assert twin.devices()[0]["state"] == "offline"
        assert not twin.reports.state_reported(ID, "online")
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])
        assert twin.devices()[0]["state"] == "offline"
        twin.known.owner[ID] = "m"
        twin.plugged(frozenset({"camera-1"}))
        assert twin.devices()[0]["state"] == "offline"  # its mapper is to speak of it
        assert twin.reports.state_reported(ID, "online")
        assert twin.devices()[0]["state"] == "online"

    run(folder, scenario)


def test_hardware_that_is_not_there_is_noticed_when_its_device_comes(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        twin.plugged(frozenset())
        device = recorded_object("device")
        device["metadata"]["annotations"] = {CANDIDATE_ANNOTATION: "camera-1"}
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        await world.settle()
        assert world.uplink.state(ID) == "offline"

    run(folder, scenario)
