"""What devices say of themselves."""

from pathlib import Path

from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_a_reading_that_is_refused_says_nothing_of_the_device_being_there(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        refused = twin.reports.reported(ID, [Reading(name="temperature", reported="warm")])
        assert set(refused) == {"temperature"}
        assert twin.devices()[0]["state"] == ""
        assert set(twin.devices()[0]["problems"]) == {"temperature"}
        refused = twin.reports.reported(
            ID, [Reading(name="temperature", reported="20"), Reading(name="made-up", reported="1")]
        )
        assert set(refused) == {"made-up"}
        assert twin.devices()[0]["state"] == "online"
        assert twin.devices()[0]["problems"] == {}  # names that a mapper makes up are not kept

    run(folder, scenario)


def test_a_state_is_news_once(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("device", recorded_object("device"))
        assert twin.reports.state_reported(ID, "unhealthy")
        assert not twin.reports.state_reported(ID, "unhealthy")
        assert twin.reports.state_reported(ID, "ok")

    run(folder, scenario)
