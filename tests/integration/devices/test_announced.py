"""What announces itself at a real broker, from the announcement to readings and commands through the MQTT driver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beehive.apis import hardware
from beehive.apis.decode import convert
from beehive.apis.devices import Device, DeviceModel
from beehive.apis.hardware import Rule, Seen
from edgecore import announced
from edgecore.announced import Announced
from edgecore.eventbus.mqtt import EventBus
from mappers.framework.poller import Poller
from mappers.framework.spec import from_objects
from mappers.mqtt.driver import Mqtt
from tests.integration.devices.test_eventbus import Local, folder
from tests.integration.mappers.support import Collected, polled
from tests.support import mosquitto
from tests.support.mosquitto import broker
from tests.support.ports import free_port
from tests.unit.devicetwin.fakes import until
from tests.unit.edgecore.discovery.announcements import ESPHOME, TASMOTA

__all__ = ["folder"]
pytestmark = pytest.mark.skipif(not mosquitto.IS_HERE, reason="mosquitto is not installed")

RULE = {
    "apiVersion": hardware.API_VERSION,
    "kind": "HardwareRule",
    "metadata": {"name": "any", "namespace": "default"},
    "spec": {"match": {"subsystem": "mqtt"}},
}


class Node:
    """The part of edgecore that listens."""

    def __init__(self, port: int) -> None:
        self.rules: list[dict[str, Any]] = []
        self.told: list[list[Seen] | None] = []
        self.requests: list[str] = []
        self.bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=self._request)
        self.announced = Announced(self.bus, self._rules, self._tell)

    async def _request(self, topic: str, payload: bytes) -> None:
        self.requests.append(topic)

    async def _rules(self) -> list[msgspec.Raw]:
        return [msgspec.Raw(json.dumps(rule).encode()) for rule in self.rules]

    async def _tell(self, seen: list[Seen] | None) -> None:
        self.told.append(seen)

    def wants(self, *rules: dict[str, Any]) -> None:
        self.rules = list(rules)
        self.announced.look()

    @property
    def names(self) -> list[str] | None:
        if not self.told or self.told[-1] is None:
            return None
        return [thing.name for thing in self.told[-1]]


@contextlib.asynccontextmanager
async def running(node: Node) -> AsyncIterator[Node]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.bus.run()), group.create_task(node.announced.run())]
        try:
            yield node
        finally:
            for task in tasks:
                task.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "SETTLE_S", 0.05)


def test_heard_while_a_rule_wants_it(folder: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with broker(port, folder=folder), running(Node(port)) as node:
            local = Local(port)
            local.client.subscribe("homeassistant/status", qos=1)
            try:
                for topic, message in {**TASMOTA, **ESPHOME}.items():
                    local.say(topic, message, retain=True)
                await asyncio.wait_for(node.bus.connected.wait(), 30)
                await asyncio.sleep(0.3)
                assert node.told == []  # nobody wants to know
                node.wants(RULE)
                await until(lambda: node.names == ["kitchen", "Pump"])
                await until(lambda: ("homeassistant/status", b"online") in local.seen)
                local.say("homeassistant/sensor/x/y/config", {"stat_t": "x", "name": "New"})
                await until(lambda: node.names is not None and "x" in node.names)
                for topic in ESPHOME:
                    local.say(topic, "", retain=True)  # taken back
                await until(lambda: node.names is not None and "kitchen" not in node.names)
                local.say("$hw/events/node/edge-1/membership/get", {})  # all else goes on
                await until(lambda: node.requests == ["$hw/events/node/edge-1/membership/get"])
                node.wants()
                await until(lambda: node.names == [])
                local.say("homeassistant/sensor/x/z/config", {"stat_t": "x"})
                node.wants({**RULE, "spec": {"match": {"subsystem": "mqtt", "vendor": "Tasmota"}}})
                await until(lambda: node.names == ["Pump"])
            finally:
                local.close()

    asyncio.run(scenario())


def test_a_broker_that_was_restarted_says_it_again(folder: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        node = Node(port)
        node.rules = [RULE]
        async with running(node):
            async with broker(port, folder=folder):
                local = Local(port)
                local.say("homeassistant/sensor/a/t/config", {"stat_t": "a"}, retain=True)
                await until(lambda: node.names == ["a"])
                local.close()
            await until(lambda: not node.bus.connected.is_set())
            assert node.names == ["a"]  # a broker that is away takes nothing back
            async with broker(port, folder=folder):
                local = Local(port)
                local.say("homeassistant/sensor/b/t/config", {"stat_t": "b"}, retain=True)
                await until(lambda: node.names == ["a", "b"])
                local.close()

    asyncio.run(scenario())


def test_an_announced_device_is_read_and_set_and_goes_and_comes_back(folder: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with broker(port, folder=folder), running(Node(port)) as node:
            local = Local(port)
            local.client.subscribe("tasmota/#", qos=1)
            try:
                for topic, message in TASMOTA.items():
                    local.say(topic, message, retain=True)
                node.wants(RULE)
                await until(lambda: node.names == ["Pump"])
                seen = node.told[-1]
                assert seen is not None
                reports = Collected()
                async with polled(Poller(Mqtt, spec(seen[0], port), reports, rng=random.Random(0))):
                    local.say("tasmota/pump/tele/LWT", "Online", retain=True)
                    local.say(
                        "tasmota/pump/tele/SENSOR",
                        {"Time": "2026-01-01", "ENERGY": {"Power": 41.5}},
                        retain=True,
                    )
                    local.say("tasmota/pump/tele/STATE", {"POWER": "OFF"}, retain=True)
                    await until(lambda: reports.values == {"pump": "false", "pump-energy-power": "41.5"})
                    await until(lambda: reports.states[-1:] == ["online"])
                    await until(lambda: ("tasmota/pump/cmnd/POWER", b"ON") in local.seen)
                    local.say("tasmota/pump/tele/STATE", {"POWER": "ON"})
                    await until(lambda: reports.values["pump"] == "true")
                    local.say("tasmota/pump/tele/LWT", "Offline", retain=True)
                    await until(lambda: reports.states[-1:] == ["offline"])  # at once, not in its next cycle
                    local.say("tasmota/pump/tele/LWT", "Online", retain=True)
                    await until(lambda: reports.states[-1:] == ["online"])
            finally:
                local.close()

    asyncio.run(scenario())


def spec(thing: Seen, port: int) -> Any:
    """As the cloud makes it, with a wish; the broker is the test's."""
    rule = Rule(
        name="any",
        patterns={},
        template={"protocol": {"configData": {"brokerURL": f"tcp://127.0.0.1:{port}"}}},
    )
    body = hardware.device_object("edge-1", thing, rule)
    model = hardware.model_object("edge-1", thing, rule)
    assert body is not None
    for row in body["spec"]["properties"]:
        if row["name"] == "pump":
            row["desired"] = {"value": "true"}
    return from_objects(convert(body, Device), convert(model, DeviceModel))
