"""Devices through a real cloudcore: down to the node, readings up into DeviceStatuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beehive.apis.twins import MembershipDetail, MembershipUpdate
from beehive.errors import NotFound
from beehive.message import Group, InventoryEntry, Op, Source, new
from cloudcore.objects import DEVICE, DEVICEMODEL, DEVICESTATUS, NODE
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, Process, node_body, process, using


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def in_cloud(running: Process, test: Callable[[Cloud], Awaitable[None]]) -> None:
    async def go() -> None:
        async with using(running) as cloud, asyncio.timeout(30):
            await test(cloud)

    asyncio.run(go())


def model() -> dict[str, Any]:
    rows = [
        {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
        {"name": "setpoint", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "30"},
    ]
    return {"metadata": {"name": "thermostat"}, "spec": {"protocol": "virtual", "properties": rows}}


def device(name: str = "room", node: str = "edge-1", desired: str = "20") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"description": "a-room"}},
        "spec": {
            "deviceModelRef": {"name": "thermostat"},
            "nodeName": node,
            "protocol": {"protocolName": "virtual", "configData": {}},
            "properties": [
                {"name": "temperature"},
                {"name": "setpoint", "desired": {"value": desired}},
            ],
        },
    }


async def status(cloud: Cloud, name: str = "room") -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((await cloud.api.get(DEVICESTATUS, name, "default")).raw)["status"]
    except NotFound:
        return {}
    return found


async def shown(
    cloud: Cloud, check: Callable[[dict[str, Any]], bool], name: str = "room", timeout_s: float = 5.0
) -> dict[str, Any]:
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while not check(last):
                last = await status(cloud, name)
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"the status stays {last}")
    return last


def reading(name: str, value: str, at: int = 1785752130123) -> dict[str, Any]:
    stamp = {"metadata": {"timestamp": at}}
    return {
        "event_id": "e",
        "timestamp": at,
        "twin": {
            name: {
                "expected": {"value": "20", **stamp},
                "actual": {"value": value, **stamp},
                "metadata": {"type": "string"},
            }
        },
    }


def condition(found: dict[str, Any], type_: str) -> dict[str, Any]:
    return next((c for c in found.get("conditions", []) if c["type"] == type_), {})


async def up(cloud: Cloud, link: edge.Edge) -> None:
    await link.request(Op.INSERT, f"null/node/{link.identity.node}", node_body(link.identity.node))
    await cloud.create(DEVICEMODEL, model())
    await cloud.create(DEVICE, device())
    await link.until(lambda it: "default/device/room" in it.paths())


def test_a_device_goes_down_after_its_model_and_comes_back(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one, two = await cloud.node("edge-1"), await cloud.node("edge-2")
        async with edge.connected(cloud.hub, one) as link, edge.connected(cloud.hub, two) as other:
            await up(cloud, link)
            paths = [m.route.resource for m in link.pushes if m.route.source == Source.DEVICECONTROLLER]
            assert paths == ["membership", "default/devicemodel/thermostat", "default/device/room"]
            added = link.pushed(Op.UPDATE, "membership")[0].decode(MembershipUpdate).added_devices
            assert added is not None
            assert (added[0].id, added[0].description) == ("default/room", "a-room")
            # a new desired value
            await cloud.patch(DEVICE, "room", {"spec": device(desired="25")["spec"]})
            await link.until(lambda it: it.pushed(Op.UPDATE, "default/device/room"))
            # a model's own change
            rows = model()["spec"]
            rows["properties"][1]["maximum"] = "28"
            await cloud.patch(DEVICEMODEL, "thermostat", {"spec": rows})
            await link.until(lambda it: it.pushed(Op.UPDATE, "default/devicemodel/thermostat"))
            # to another node: away from the one, new at the other
            await cloud.patch(DEVICE, "room", {"spec": {"nodeName": "edge-2"}})
            await link.until(lambda it: "default/device/room" not in it.paths())
            await link.until(lambda it: "default/devicemodel/thermostat" not in it.paths())
            await other.until(lambda it: "default/device/room" in it.paths())
            # and back
            await cloud.patch(DEVICE, "room", {"spec": {"nodeName": "edge-1"}})
            await link.until(lambda it: "default/device/room" in it.paths())
            await link.until(lambda it: "default/devicemodel/thermostat" in it.paths())

    in_cloud(cloudcore, test)


def test_readings_become_the_status_and_are_confirmed(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async with edge.connected(cloud.hub, await cloud.node("edge-1")) as link:
            await up(cloud, link)
            path = "device/default/room/twin/edge_updated"
            sent = await link.report(Op.UPDATE, path, reading("temperature", "21.5"), source=Source.TWIN)
            await link.until(lambda it: sent.id in it.acked)
            confirmed = [m for m in link.pushes if m.parent == sent.id]
            assert [(m.route.group, m.route.resource, m.is_ok) for m in confirmed] == [
                (Group.TWIN, "twin", True)
            ]
            twin = (await status(cloud))["twins"][0]
            assert twin["propertyName"] == "temperature"
            assert twin["reported"] == {
                "value": "21.5",
                "metadata": {"timestamp": "1785752130123", "type": "float"},
            }
            # a state, as a stock edge writes it: text that holds JSON
            state = json.dumps(
                {"event_id": "e", "timestamp": 1, "device": {"name": "room", "state": "online"}}
            )
            await link.report(Op.UPDATE, "device/default/room/state/update", state, source=Source.TWIN)
            found = await shown(cloud, lambda it: it.get("state") == "online")
            assert found["twins"][0]["reported"]["value"] == "21.5"
            # what is no number is refused, and said
            await link.report(Op.UPDATE, path, reading("temperature", "warm"), source=Source.TWIN)
            found = await shown(cloud, lambda it: condition(it, "ReadingsAccepted").get("status") == "False")
            assert found["twins"][0]["reported"]["value"] == "21.5"

    in_cloud(cloudcore, test)


def test_many_reports_are_few_writes_and_the_newest_stays(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async with edge.connected(cloud.hub, await cloud.node("edge-1")) as link:
            await up(cloud, link)
            await shown(cloud, lambda it: condition(it, "Valid").get("status") == "True")
            before = (await cloud.api.get(DEVICESTATUS, "room", "default")).number
            path = "device/default/room/twin/edge_updated"
            sent = [
                await link.report(Op.UPDATE, path, reading("temperature", str(i), i + 1), source=Source.TWIN)
                for i in range(100)
            ]
            await link.until(lambda it: {m.id for m in sent} <= it.acked)
            found = await cloud.api.get(DEVICESTATUS, "room", "default")
            assert json.loads(found.raw)["status"]["twins"][0]["reported"]["value"] == "99"
            assert found.number - before < 20  # of all objects together

    in_cloud(cloudcore, test)


def test_a_report_about_anothers_device_changes_nothing(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one, two = await cloud.node("edge-1"), await cloud.node("edge-2")
        async with edge.connected(cloud.hub, one) as link, edge.connected(cloud.hub, two) as thief:
            await up(cloud, link)
            path = "device/default/room/twin/edge_updated"
            sent = await thief.report(Op.UPDATE, path, reading("temperature", "1"), source=Source.TWIN)
            await thief.until(lambda it: it.refused.get(sent.id) == "Forbidden")
            assert not (await status(cloud)).get("twins")

    in_cloud(cloudcore, test)


def test_the_members_are_listed_when_asked(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async with edge.connected(cloud.hub, await cloud.node("edge-1")) as link:
            await up(cloud, link)
            await cloud.create(DEVICE, device("elsewhere", "edge-2"))
            query = new(
                source=Source.TWIN,
                group=Group.RESOURCE,
                operation=Op.GET,
                resource="membership/detail",
                content=json.dumps({"event_type": "group_membership_event", "group_id": "edge-1"}),
            )
            answer = await link.ask(query)
            assert answer.route.group == Group.TWIN
            assert [d.id for d in answer.decode(MembershipDetail).devices] == ["default/room"]

    in_cloud(cloudcore, test)


def test_what_is_wrong_with_a_device_is_said_on_it(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async with edge.connected(cloud.hub, await cloud.node("edge-1")) as link:
            await cloud.create(NODE, node_body("edge-9"))
            await cloud.create(DEVICE, device())  # its model comes later
            found = await shown(cloud, lambda it: condition(it, "Valid").get("status") == "False")
            assert condition(found, "Valid")["reason"] == "ModelNotFound"
            assert "default/device/room" not in link.paths()
            await cloud.create(DEVICEMODEL, model())
            await link.until(lambda it: "default/device/room" in it.paths())
            await shown(cloud, lambda it: condition(it, "Valid").get("status") == "True")
            await cloud.patch(DEVICE, "room", {"spec": device(desired="99")["spec"]})
            found = await shown(cloud, lambda it: condition(it, "Valid").get("status") == "False")
            assert condition(found, "Valid")["reason"] == "OutOfRange"

    in_cloud(cloudcore, test)


def test_devices_that_changed_while_away_are_told(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as link:
            await up(cloud, link)
            await cloud.create(DEVICE, device("hall"))
            await link.until(lambda it: "default/device/hall" in it.paths())
            held = link.held
        await cloud.patch(DEVICE, "room", {"spec": device(desired="7")["spec"]})
        await cloud.api.delete(DEVICE, "hall", "default")
        async with edge.connected(cloud.hub, identity, held=held) as link:
            await link.until(lambda it: "default/device/hall" not in it.paths())
            await link.until(lambda it: it.pushed(Op.UPDATE, "default/device/room"))
            assert not link.pushed(Op.INSERT, "default/devicemodel/thermostat")

    in_cloud(cloudcore, test)


def test_a_thousand_devices_arrive_although_the_hub_is_killed_halfway(tmp_path: Path) -> None:
    count = 1000
    wanted = {f"default/device/d{i}" for i in range(count)} | {"default/devicemodel/thermostat"}

    async def first(running: Process) -> tuple[edge.Identity, dict[str, InventoryEntry]]:
        async with using(running) as cloud, asyncio.timeout(300):
            identity = await cloud.node("edge-1")
            await cloud.create(DEVICEMODEL, model())
            names = iter(range(count))

            async def create() -> None:
                for i in names:
                    await cloud.create(DEVICE, device(f"d{i}"))

            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(create())
            async with edge.connected(cloud.hub, identity) as link:
                await link.until(lambda it: len(it.held) >= 100, timeout_s=120)
                os.kill(running.pid, signal.SIGKILL)
                await link.link.wait_closed()
                return identity, link.held

    async def then(running: Process, identity: edge.Identity, held: dict[str, InventoryEntry]) -> None:
        before = {entry.resource for entry in held.values()}
        async with edge.connected(running.hub, identity, held=held) as link:
            await link.until(lambda it: it.paths() >= wanted, timeout_s=200)
            assert link.paths() == wanted
            again = [m.route.resource for m in link.pushes if m.route.resource in before]
            assert not again  # only what it did not have

    with process(tmp_path) as running:
        identity, held = asyncio.run(first(running))
    assert 100 <= len(held) < count
    with process(tmp_path) as running:
        asyncio.run(then(running, identity, held))
