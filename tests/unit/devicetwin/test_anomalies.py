"""Telling of readings that are possible and still not right."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from beehive.apis.devices import Device, DeviceProperty, DeviceSpec, PushMethod
from devicetwin import anomalies
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import (
    until,
)
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def test_anomalies_reach_local_clients_and_the_cloud(folder: Path) -> None:
    def anomalies(world: World) -> Any:
        content = json.loads(bytes(world.uplink.latest[f"twin/{ID}"].content))
        return (
            [(a["property"], a["reason"]) for a in content["anomalies"]] if "anomalies" in content else None
        )

    async def scenario(world: World, twin: DeviceTwin) -> None:
        device = recorded_object("device")
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        twin.reports.reported(ID, [Reading(name="temperature", reported="99")])
        await world.settle()
        assert anomalies(world) is None  # a device without rules says nothing of them
        ruled = json.loads(json.dumps(device))
        for prop in ruled["spec"]["properties"]:
            if prop["name"] == "temperature":
                prop["pushMethod"] = {"anomalyDetection": {"maximum": 40, "clearAfter": 0}}
        await world.put("device", ruled, "update")
        twin.reports.reported(ID, [Reading(name="temperature", reported="99")])
        await until(lambda: anomalies(world) == [("temperature", "Range")])
        twin.reports.reported(ID, [Reading(name="temperature", reported="20", anomaly="it smells")])
        await until(lambda: anomalies(world) == [("temperature", "Driver")])
        payload = {"event_id": "e", "timestamp": 1, "twin": {"temperature": {"actual": {"value": "50"}}}}
        await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", json.dumps(payload).encode())
        await until(lambda: anomalies(world) == [("temperature", "Range")])
        await world.put("device", device, "update")
        await until(lambda: anomalies(world) == [])
        await world.settle()
        told = [payload for topic, payload in world.bus.texts if topic.endswith("/anomaly")]
        assert [(t["kind"], t["over"]) for t in told] == [
            ("Range", False),
            ("Range", True),
            ("Driver", False),
            ("Driver", True),
            ("Range", False),
        ]
        assert told[0]["message"] == "99 is above 40"

    run(folder, scenario)


def test_missing_readings_are_noticed_without_any(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomalies, "WATCH_S", 0.01)

    async def scenario(world: World, twin: DeviceTwin) -> None:
        device = recorded_object("device")
        device["spec"]["properties"][0]["pushMethod"] = {"anomalyDetection": {"missingAfter": 30}}
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", device)
        await asyncio.sleep(0.05)
        assert not [t for t, _ in world.bus.texts if t.endswith("/anomaly")]
        world.clock.ahead_s = 31.0
        await until(lambda: bool([t for t, _ in world.bus.texts if t.endswith("/anomaly")]))

    run(folder, scenario)


def test_rules_are_of_the_properties_that_ask_for_them() -> None:
    asks = {"push_method": PushMethod(anomaly_detection={"maximum": 40})}
    off = {"push_method": PushMethod(anomaly_detection={"maximum": 40, "enabled": False})}
    properties = [
        DeviceProperty(name="hot", **asks),
        DeviceProperty(name="off", **off),
        DeviceProperty(name="pushed", push_method=PushMethod()),
        DeviceProperty(name="plain"),
    ]
    found = anomalies.rules(Device(spec=DeviceSpec(properties=properties)))
    assert {name: rule.maximum for name, rule in found.items()} == {"hot": 40.0}
