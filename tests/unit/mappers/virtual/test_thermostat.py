import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from mappers.framework.driver import DriverError, Property, Settings
from mappers.virtual import thermostat
from mappers.virtual.thermostat import Thermostat

SAMPLES = Path(__file__).parents[4] / "deploy" / "samples"


def make(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Thermostat, dict[str, float]]:
    clock = {"now": 100.0}
    monkeypatch.setattr(thermostat.time, "monotonic", lambda: clock["now"])
    device = Thermostat()
    device.settings = Settings(settings)
    asyncio.run(device.open())
    return device, clock


def read(device: Thermostat, name: str) -> object:
    return asyncio.run(device.read(Property(name=name)))


def test_the_temperature_follows_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    device, clock = make(monkeypatch, ambient=18, timeConstant="1")
    assert read(device, "temperature") == 18
    asyncio.run(device.write(Property(name="target"), 28.0))
    assert read(device, "heating") is True
    clock["now"] += 1
    assert read(device, "temperature") == pytest.approx(28 - 10 / 2.71828, abs=0.01)
    clock["now"] += 20
    assert read(device, "temperature") == 28
    assert read(device, "heating") is False
    assert read(device, "target") == 28


def test_what_it_does_not_have_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = make(monkeypatch)
    with pytest.raises(DriverError):
        read(device, "humidity")
    with pytest.raises(DriverError):
        asyncio.run(device.write(Property(name="temperature"), 5.0))
    with pytest.raises(DriverError):
        make(monkeypatch, ambient="warm")


def test_the_example_in_the_file_and_the_samples_agree() -> None:
    model = yaml.safe_load((SAMPLES / "thermostat-model.yaml").read_text())
    device = yaml.safe_load((SAMPLES / "thermostat-device.yaml").read_text())
    assert [p["name"] for p in model["spec"]["properties"]] == [
        p["name"] for p in Thermostat.example[0]["spec"]["properties"]
    ]
    assert device["spec"]["protocol"]["protocolName"] == Thermostat.protocol
    wishes = {p["name"]: p.get("desired") for p in device["spec"]["properties"]}
    assert wishes == {p["name"]: p.get("desired") for p in Thermostat.example[1]["spec"]["properties"]}
