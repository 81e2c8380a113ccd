import asyncio
from pathlib import Path
from typing import Any

import pytest

from mappers.framework.driver import DeviceError, DriverError, Property, Settings
from mappers.i2c.driver import I2C


def chip(root: Path, number: int, name: str, place: str, **files: str) -> None:
    real = root / "sys/devices/i2c-1" / place / f"iio:device{number}"
    real.mkdir(parents=True)
    for file, text in {"name": name, **files}.items():
        (real / file).write_text(text + "\n")
    links = root / "sys/bus/iio/devices"
    links.mkdir(parents=True, exist_ok=True)
    (links / real.name).symlink_to(real)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    chip(
        tmp_path,
        0,
        "ads1115",
        "1-0048",
        in_voltage0_raw="1000",
        in_voltage_scale="3.000000",
        in_voltage1_raw="100",
        in_voltage1_scale="2",
        in_voltage1_offset="-50",
    )
    air = {"in_temp_input": "21580", "in_pressure_input": "101.325", "in_humidityrelative_input": "45120"}
    chip(tmp_path, 1, "bme280", "1-0076", **air)
    chip(tmp_path, 2, "bme280", "1-0077", in_temp_input="-5000")
    return tmp_path


def make(root: Path, **settings: Any) -> I2C:
    device = I2C()
    device.settings = Settings({"root": str(root), **settings})
    asyncio.run(device.open())
    return device


def read(device: I2C, name: str, **settings: Any) -> object:
    return asyncio.run(device.read(Property(name=name, settings=Settings(settings))))


def test_a_bme280_in_units_for_people(root: Path) -> None:
    device = make(root, name="BME280")
    assert read(device, "temperature") == 21.58
    assert read(device, "pressure") == 1013.25
    assert read(device, "humidity") == 45.12
    assert read(device, "t", channel="temperature", offset="-1.5") == 20.08


def test_two_of_one_kind_differ_by_address(root: Path) -> None:
    assert read(make(root, name="bme280", address="0x77"), "temperature") == -5.0
    assert read(make(root, address=0x76), "temperature") == 21.58


def test_raw_channels_take_their_factors(root: Path) -> None:
    device = make(root, bus="1", address="0x48")
    assert read(device, "voltage0") == 3.0
    assert read(device, "voltage1") == 0.1
    assert read(device, "level", channel="voltage0", scale=100) == 300


def test_what_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(DeviceError):
        make(root, name="sht31")
    with pytest.raises(DeviceError):
        make(root, address="0x10")
    device = make(root, name="bme280")
    for channel in ("co2", "../name", "temperature/../x"):
        with pytest.raises(DriverError):
            read(device, channel)
    (root / "sys/bus/iio/devices/iio:device1/in_temp_input").write_text("")
    with pytest.raises(DeviceError):
        read(device, "temperature")


def test_looking_around(root: Path) -> None:
    found = asyncio.run(I2C.discover(Settings({"root": str(root)})))
    assert [(each.identity, each.name) for each in found] == [
        ("1-0048", "ads1115"),
        ("1-0076", "bme280"),
        ("1-0077", "bme280"),
    ]
    assert found[0].about == {"channels": "voltage voltage0 voltage1"}
    assert found[1].settings == {"bus": 1, "address": "0x76"}

    make(root, **found[2].settings)  # as it is told
    assert asyncio.run(I2C.discover(Settings({"root": str(root / "nothing")}))) == []
