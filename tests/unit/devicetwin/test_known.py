"""What is known of devices."""

from pathlib import Path

from devicetwin import known
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_history_is_bounded_and_holds_changes_only(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        for value in (1, 1, 2, *range(100)):
            twin.reports.reported(ID, [Reading(name="temperature", reported=str(value))])
        values = [v for _, v in twin.history(ID)["temperature"]]
        assert len(values) == known.HISTORY
        assert values[-1] == "99"

    run(folder, scenario)
