"""What mappers are told, and who has which device."""

import asyncio
import json
import random
from pathlib import Path

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from devicetwin.mapperlink import Leave, Link, MapperInfo, Tell
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import (
    until,
)
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_a_device_made_anew_has_nothing_of_the_one_before(folder: Path) -> None:
    """Whether or not its end was heard of: only the UID says that it is another."""

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        for turn, heard in enumerate((True, False)):
            device = recorded_object("device")
            device["metadata"]["uid"] = f"first-{turn}"
            await world.put("device", device)
            info = MapperInfo(name="m", protocol=device["spec"]["protocol"]["protocolName"], address="/x")
            twin.dmi.links["m"] = Link(info, twin.dispatch, random.Random(0))
            twin.dispatch.reassign()
            tell = twin.dispatch.tell("m", ID)
            assert isinstance(tell, Tell)
            twin.dispatch.told("m", ID, tell.digest)
            twin.reports.reported(ID, [Reading(name="temperature", reported="21")])
            wish = {"event_id": "e", "twin": {"extra": {"expected": {"value": "1"}}}}
            await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", json.dumps(wish).encode())
            assert twin.history(ID)
            if heard:
                await world.put("device", device, "delete")
            device["metadata"]["uid"] = f"second-{turn}"
            await world.put("device", device)
            record = twin.known.records[ID]
            assert "extra" not in record.twins
            assert not any(t.actual for t in record.twins.values())
            assert record.state == ""
            assert not twin.history(ID)
            # its mapper still runs the one before, and must be told of the change
            tell = twin.dispatch.tell("m", ID)
            assert isinstance(tell, Tell)
            assert tell.known
            assert not twin.devices()[0]["delivered"]

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
        told = twin.dispatch.tell("m", ID)
        assert isinstance(told, Tell)
        assert told.device.spec.properties[0].desired.value == "44"

    world = run(folder, scenario)

    async def later() -> None:
        async with world.running() as twin:
            told = twin.dispatch.tell("m", ID)
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
        assert isinstance(twin.dispatch.tell("m", ID), Leave)
        await world.put("devicemodel", recorded_object("devicemodel"))
        assert isinstance(twin.dispatch.tell("m", ID), Tell)
        await world.put("devicemodel", recorded_object("devicemodel"), "delete")
        assert isinstance(twin.dispatch.tell("m", ID), Leave)
        await world.put("device", recorded_object("device"), "delete")
        assert twin.dispatch.tell("m", ID) is None
        assert twin.devices() == []

    run(folder, scenario)
