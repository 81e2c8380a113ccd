"""Found hardware through a real cloudcore: rules down, what an edge sees up, candidates and Devices of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from beehive.apis import hardware
from beehive.apis.hardware import REPORT, Offer, OfferedProperty, Report, Seen
from beehive.apis.twins import CALL, MethodCall, MethodResult
from beehive.errors import NotFound
from beehive.message import Group, InventoryEntry, Op, Source, new
from cloudcore.objects import DEVICE, DEVICECALL, DEVICECANDIDATE, DEVICEMODEL, HARDWARERULE, Kind
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, Process, node_body, process, using

WAIT_S = 30.0
METER = Seen(
    rule_name="meter",
    identity="0403:6001:A50285BI-if00",
    subsystem="tty",
    dev_node="/dev/ttyUSB0",
    vendor="0403",
    product="6001",
    serial="A50285BI",
)
NAME = hardware.object_name("edge-1", METER)
TEMPLATE = {
    "deviceModelRef": {"name": "meter"},
    "protocol": {
        "protocolName": "modbus",
        "configData": {"serialPort": "${devnode}", "baudRate": 9600, "slaveID": 1},
    },
}


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("cloud"), hardware=1) as running:
        yield running


def in_cloud(running: Process, test: Callable[[Cloud], Awaitable[None]]) -> None:
    async def go() -> None:
        async with using(running) as cloud, asyncio.timeout(3 * WAIT_S):
            await test(cloud)

    asyncio.run(go())


def rule(name: str = "meter", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"match": {"subsystem": "tty", "vendor": "0403"}, **spec}}


async def say(link: edge.Edge, *seen: Seen) -> None:
    await link.send(
        new(
            source=Source.TWIN,
            group=Group.RESOURCE,
            operation=Op.UPDATE,
            resource=REPORT,
            content=msgspec.json.encode(Report(seen=list(seen))),
        )
    )


async def shown(
    cloud: Cloud, kind: Kind, name: str, check: Callable[[dict[str, Any]], bool] = lambda _: True
) -> dict[str, Any]:
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    last = json.loads((await cloud.api.get(kind, name, "default")).raw)
                    if check(last):
                        return last
                except NotFound:
                    last = {}
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{kind.kind} {name} stays {last}")


def phase(found: dict[str, Any]) -> str:
    return str((found.get("status") or {}).get("phase"))


def port(found: dict[str, Any]) -> str:
    return str(found["spec"]["protocol"]["configData"]["serialPort"])


def test_from_a_rule_to_a_device_and_back(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        await cloud.create(
            DEVICEMODEL,
            {
                "metadata": {"name": "meter"},
                "spec": {
                    "protocol": "modbus",
                    "properties": [{"name": "power", "type": "INT", "accessMode": "ReadOnly"}],
                },
            },
        )
        me = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, me) as link:
            await link.request(Op.INSERT, "null/node/edge-1", node_body("edge-1"))
            await cloud.create(HARDWARERULE, rule(template=TEMPLATE))
            await link.until(lambda it: "default/hardwarerule/meter" in it.paths(), WAIT_S)
            await say(link, METER)
            found = await shown(cloud, DEVICECANDIDATE, NAME, lambda c: phase(c) == "Present")
            assert found["spec"]["devNode"] == "/dev/ttyUSB0"
            assert "accepted" not in found["spec"]
            with pytest.raises(NotFound):
                await cloud.api.get(DEVICE, NAME, "default")

            await cloud.patch(DEVICECANDIDATE, NAME, {"spec": {"accepted": True}})
            device = await shown(cloud, DEVICE, NAME)
            assert device["spec"]["nodeName"] == "edge-1"
            assert port(device) == "/dev/ttyUSB0"
            # all that the model declares, since the template names none
            assert [p["name"] for p in device["spec"]["properties"]] == ["power"]
            await shown(cloud, DEVICECANDIDATE, NAME, lambda c: c["status"].get("device") == NAME)
            await link.until(lambda it: f"default/device/{NAME}" in it.paths(), WAIT_S)

            # what people change stays when it is plugged in elsewhere
            await cloud.patch(DEVICE, NAME, {"spec": {"protocol": {"configData": {"baudRate": 19200}}}})
            await say(link)
            await shown(cloud, DEVICECANDIDATE, NAME, lambda c: phase(c) == "Absent")
            await say(link, msgspec.structs.replace(METER, dev_node="/dev/ttyUSB3"))
            again = await shown(cloud, DEVICE, NAME, lambda d: port(d) == "/dev/ttyUSB3")
            assert again["metadata"]["uid"] == device["metadata"]["uid"]
            assert again["spec"]["protocol"]["configData"]["baudRate"] == 19200
            await shown(cloud, DEVICECANDIDATE, NAME, lambda c: phase(c) == "Present")

            # to delete the Device is to take the acceptance back
            await cloud.api.delete(DEVICE, NAME, "default")
            await shown(cloud, DEVICECANDIDATE, NAME, lambda c: c["spec"]["accepted"] is False)
            await cloud.api.delete(HARDWARERULE, "meter", "default")
            await link.until(lambda it: it.pushed(Op.DELETE, "default/hardwarerule/meter"), WAIT_S)

        # a rule that went while the edge was away
        held = {"u-old": InventoryEntry("default/hardwarerule/old", "1")}
        async with edge.connected(cloud.hub, me, held=held) as link:
            await link.until(lambda it: "default/hardwarerule/old" not in it.paths(), WAIT_S)

    in_cloud(cloudcore, test)


def test_a_rule_that_accepts_and_one_who_says_no(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        me = await cloud.node("edge-2")
        async with edge.connected(cloud.hub, me) as link:
            await link.request(Op.INSERT, "null/node/edge-2", node_body("edge-2"))
            await cloud.create(HARDWARERULE, rule("auto", accept=True, template=TEMPLATE))
            await cloud.create(HARDWARERULE, rule("plain", accept=True))
            await cloud.create(
                HARDWARERULE, {"metadata": {"name": "bad"}, "spec": {"match": {"subsystem": ""}}}
            )
            seen = msgspec.structs.replace(METER, rule_name="auto")
            plain = msgspec.structs.replace(METER, rule_name="plain")
            unknown = msgspec.structs.replace(METER, rule_name="unknown")
            await say(link, seen, plain, unknown)
            name = hardware.object_name("edge-2", seen)
            await shown(cloud, DEVICE, name)
            other = hardware.object_name("edge-2", plain)
            told = await shown(
                cloud, DEVICECANDIDATE, other, lambda c: bool((c.get("status") or {}).get("message"))
            )
            assert "no template" in told["status"]["message"]
            with pytest.raises(NotFound):
                await cloud.api.get(DEVICECANDIDATE, hardware.object_name("edge-2", unknown), "default")
            # an explicit no stands, whatever the rule says
            await cloud.patch(DEVICECANDIDATE, name, {"spec": {"accepted": False}})
            await cloud.api.delete(DEVICE, name, "default")
            await shown(cloud, DEVICECANDIDATE, name, lambda c: not c["status"].get("device"))
            await say(link)
            await shown(cloud, DEVICECANDIDATE, name, lambda c: phase(c) == "Absent")
            await say(link, seen)
            await shown(cloud, DEVICECANDIDATE, name, lambda c: phase(c) == "Present")
            with pytest.raises(NotFound):
                await cloud.api.get(DEVICE, name, "default")

    in_cloud(cloudcore, test)


def call(device: str = "lamp", method: str = "blink", **values: str) -> dict[str, Any]:
    return {
        "metadata": {"generateName": "call-"},
        "spec": {"deviceName": device, "method": method, "values": values, "timeoutSeconds": 2},
    }


async def ask(cloud: Cloud, body: dict[str, Any]) -> str:
    return (await cloud.create(DEVICECALL, body)).name


async def ended(cloud: Cloud, name: str) -> tuple[str, str]:
    """Phase, and result or message, of a call that is over."""
    found = await shown(cloud, DEVICECALL, name, lambda c: phase(c) in ("Done", "Failed"))
    return phase(found), str(found["status"].get("result") or found["status"].get("message") or "")


async def lamp(cloud: Cloud, node: str) -> None:
    rows = [{"name": "times", "type": "INT", "accessMode": "ReadWrite", "maximum": "9"}]
    spec = {"protocol": "lamps", "properties": rows}
    await cloud.create(DEVICEMODEL, {"metadata": {"name": "lamp"}, "spec": spec})
    spec = {
        "deviceModelRef": {"name": "lamp"},
        "nodeName": node,
        "protocol": {"protocolName": "lamps", "configData": {}},
        "properties": [{"name": "times"}],
        "methods": [{"name": "blink", "propertyNames": ["times"]}],
    }
    await cloud.create(DEVICE, {"metadata": {"name": "lamp"}, "spec": spec})


def test_a_method_is_done_once_and_what_came_of_it_is_told(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one, two = await cloud.node("edge-3"), await cloud.node("edge-4")
        async with edge.connected(cloud.hub, one) as link, edge.connected(cloud.hub, two) as other:
            for each in (link, other):
                await each.request(
                    Op.INSERT, f"null/node/{each.identity.node}", node_body(each.identity.node)
                )
            await lamp(cloud, "edge-3")
            await link.until(lambda it: "default/device/lamp" in it.paths(), WAIT_S)
            where = f"device/default/lamp/{CALL}"

            async def asked(number: int) -> MethodCall:
                await link.until(lambda it: len(it.pushed(Op.UPDATE, where)) == number, WAIT_S)
                return link.pushed(Op.UPDATE, where)[-1].decode(MethodCall)

            async def answer(by: edge.Edge, id_: str, **result: str) -> None:
                await by.report(Op.UPDATE, f"{where}/{id_}", MethodResult(**result), source=Source.TWIN)

            name = await ask(cloud, call(times="3"))
            got = await asked(1)
            assert (got.method, got.values, got.timeout_ms) == ("blink", {"times": "3"}, 2000)
            # another node's word counts for nothing
            await answer(other, got.id, result="forged")
            await answer(link, got.id, result="blinked")
            assert await ended(cloud, name) == ("Done", "blinked")
            await answer(link, got.id, error="twice")
            assert await ended(cloud, name) == ("Done", "blinked")

            name = await ask(cloud, call(times="3"))
            await answer(link, (await asked(2)).id, error="the bulb is broken")
            assert await ended(cloud, name) == ("Failed", "the bulb is broken")

            name = await ask(cloud, call(times="3"))
            await asked(3)
            state, why = await ended(cloud, name)
            assert (state, "may have been done" in why) == ("Failed", True)

            # what cannot be done is not sent
            for body, words in (
                (call("nobody"), "no device nobody"),
                (call(method="sing"), "no method 'sing'; the device has blink"),
                (call(times="10"), "times"),
                (call(colour="red"), "takes no 'colour'"),
            ):
                state, why = await ended(cloud, await ask(cloud, body))
                assert state == "Failed"
                assert words in why
            assert len(link.pushed(Op.UPDATE, where)) == 3
            assert other.pushed(Op.UPDATE, where) == []
        state, why = await ended(cloud, await ask(cloud, call(times="3")))
        assert (state, "not connected" in why) == ("Failed", True)

    in_cloud(cloudcore, test)


def test_what_announces_itself_becomes_a_model_and_a_device(cloudcore: Process) -> None:
    pump = Seen(
        rule_name="announced",
        identity="A1B2C3",
        subsystem="mqtt",
        name="Pump",
        offer=Offer(
            protocol_name="mqtt",
            properties=[
                OfferedProperty(name="power", type="DOUBLE", unit="W", config={"topic": "pump/power"})
            ],
        ),
    )
    name = hardware.object_name("edge-9", pump)

    async def test(cloud: Cloud) -> None:
        me = await cloud.node("edge-9")
        async with edge.connected(cloud.hub, me) as link:
            await link.request(Op.INSERT, "null/node/edge-9", node_body("edge-9"))
            made = rule("announced")
            made["spec"] = {"match": {"subsystem": "mqtt"}, "accept": True}
            await cloud.create(HARDWARERULE, made)
            await link.until(lambda it: "default/hardwarerule/announced" in it.paths(), WAIT_S)
            await say(link, pump)
            found = await shown(cloud, DEVICECANDIDATE, name, lambda c: phase(c) == "Present")
            assert found["spec"]["offer"]["properties"][0]["config"] == {"topic": "pump/power"}
            device = await shown(cloud, DEVICE, name)
            assert device["spec"]["properties"][0]["visitors"]["configData"] == {"topic": "pump/power"}
            model = await shown(cloud, DEVICEMODEL, name)
            assert model["spec"]["properties"][0]["unit"] == "W"
            await link.until(lambda it: f"default/device/{name}" in it.paths(), WAIT_S)
            await say(link)
            await shown(cloud, DEVICECANDIDATE, name, lambda c: phase(c) == "Absent")

    in_cloud(cloudcore, test)
