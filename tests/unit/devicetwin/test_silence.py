"""Devices that promised to tell their state and do not."""

import json
from pathlib import Path

import pytest

from devicetwin import membership, silence
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import until
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_who_promised_to_tell_its_state_and_is_silent_is_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOOK_S", 0.01)
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
            twin.reports.state_reported(id_, "online")
        await until(lambda: world.uplink.state(ID) == "unknown")
        assert world.uplink.state("vectors/quiet") == "online"
        twin.reports.reported(ID, [Reading(name="temperature", reported="20")])  # any word revives it
        assert twin.known.records[ID].state == "online"

    run(folder, scenario)
