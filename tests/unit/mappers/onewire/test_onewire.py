import asyncio
from pathlib import Path

import pytest

from mappers.framework.driver import DeviceError, DriverError, Property, Settings
from mappers.onewire import codec
from mappers.onewire.driver import OneWire

GOOD = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n"
COLD = "5e ff 4b 46 7f ff 02 10 d9 : crc=d9 YES\n5e ff 4b 46 7f ff 02 10 d9 t=-10125\n"


@pytest.mark.parametrize(("text", "value"), [(GOOD, 23.125), (COLD, -10.125)])
def test_a_reading(text: str, value: float) -> None:
    assert codec.temperature(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("YES", "NO"),
        "00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0\n",
        "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000\n",
        "72 01 : crc=57 YES\n",
        GOOD.replace("t=23125", "t=999999"),
        GOOD.replace("t=23125", "t=warm"),
    ],
)
def test_what_is_no_reading(text: str) -> None:
    with pytest.raises(ValueError):
        codec.temperature(text)


def sensor(root: Path, address: str, text: str = GOOD) -> None:
    folder = root / "sys/bus/w1/devices" / address
    folder.mkdir(parents=True)
    (folder / "w1_slave").write_text(text)
    (folder / "resolution").write_text("12\n")


def make(root: Path, **settings: str) -> OneWire:
    device = OneWire()
    device.settings = Settings({"root": str(root), **settings})
    device.open()
    return device


def test_the_only_sensor_needs_no_address(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/w1/devices/w1_bus_master1").mkdir(parents=True)
    with pytest.raises(DeviceError, match="0 sensors"):
        make(tmp_path)
    sensor(tmp_path, "28-0316a2795b12")
    device = make(tmp_path)
    assert device.read(Property(name="temperature")) == 23.125
    assert device.read(Property(name="address")) == "28-0316a2795b12"
    assert device.read(Property(name="resolution")) == "12"
    sensor(tmp_path, "28-000000000001", "")
    with pytest.raises(DeviceError, match="2 sensors"):
        make(tmp_path)
    other = make(tmp_path, Address="28-000000000001")
    with pytest.raises(DeviceError, match="did not answer"):
        other.read(Property(name="temperature"))
    with pytest.raises(DriverError):
        make(tmp_path, address="../../etc")
    with pytest.raises(DriverError):
        device.read(Property(name="../../../x"))
    with pytest.raises(DeviceError):
        make(tmp_path, address="28-00000000ffff")


def test_looking_around(tmp_path: Path) -> None:
    for address in ("28-0316a2795b12", "3b-000000000001", "w1_bus_master1"):
        sensor(tmp_path, address)
    found = asyncio.run(OneWire.discover(Settings({"root": str(tmp_path)})))
    assert [(each.identity, each.name, dict(each.settings)) for each in found] == [
        ("28-0316a2795b12", "DS18B20", {"address": "28-0316a2795b12"}),
        ("3b-000000000001", "DS1825", {"address": "3b-000000000001"}),
    ]
