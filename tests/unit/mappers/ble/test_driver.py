"""The Bluetooth driver against devices of a made-up adapter."""

import asyncio
import inspect
import random
from typing import Any

import pytest

pytest.importorskip("bleak")
import bleak
from bleak.exc import BleakError

from mappers.ble import radio
from mappers.ble.driver import Ble
from mappers.framework.desk import check_driver, discover
from mappers.framework.driver import DeviceError, DriverError, Property, Settings
from mappers.framework.errors import NothingYet
from mappers.framework.poller import Poller
from mappers.framework.runner import load_driver
from mappers.framework.spec import DeviceSpec
from tests.fakes.ble import Air, Client, Peripheral, Scanner
from tests.integration.mappers.support import Collected, polled, until

BASE = "-0000-1000-8000-00805f9b34fb"
TEMPERATURE, HUMIDITY, BATTERY = (f"0000{short}{BASE}" for short in ("2a6e", "2a6f", "2a19"))
LED = "a7ea14cf-1000-43ba-ab86-1d6e136a2e9e"
MAC = "C4:7C:8D:00:00:01"


def sensor(**more: Any) -> Peripheral:
    return Peripheral(
        address=MAC,
        name="Room",
        values={TEMPERATURE: b"\xc4\x09", HUMIDITY: b"\x88\x13", BATTERY: b"\x5a", LED: b"\0"},
        abilities={
            TEMPERATURE: ["notify", "read"],
            BATTERY: ["read"],
            LED: ["read", "write-without-response"],
        },
        **more,
    )


@pytest.fixture
def air(monkeypatch: pytest.MonkeyPatch) -> Air:
    made = Air(sensor())
    monkeypatch.setattr(radio, "_bleak", lambda: made.bleak)
    return made


def prop(name: str, type_: str = "INT", **settings: Any) -> Property:
    return Property(name=name, type=type_, writable=True, settings=Settings(settings), cycle_s=0.01)


def device(*props: Property, **settings: Any) -> DeviceSpec:
    return DeviceSpec(
        id="default/d",
        settings=Settings({"macAddress": MAC, "timeout": 0.2, **settings}),
        properties={p.name: p for p in props},
        state_cycle_s=0.05,
    )


def made(spec: DeviceSpec) -> Ble:
    driver = Ble()
    driver.id, driver.settings, driver.properties = spec.id, spec.settings, spec.properties
    return driver


TEMP = prop("temperature", "FLOAT", characteristicUUID="2a6e", dataType="int16", scale=0.01, notify=True)
LEVEL = prop("battery", characteristicUUID="2a19")


def test_the_made_up_adapter_takes_what_bleak_takes() -> None:
    """Whatever the driver hands to the one, it can hand to the other."""
    for fake, real in ((Client, bleak.BleakClient), (Scanner, bleak.BleakScanner)):
        for name, method in vars(fake).items():
            if not inspect.isfunction(method) or (name.startswith("_") and name != "__init__"):
                continue
            if name == "drop":
                continue  # the test's own
            theirs = inspect.signature(getattr(real, name)).parameters
            ours = [p for p in inspect.signature(method).parameters.values() if p.kind is not p.VAR_KEYWORD]
            for parameter in ours:
                assert parameter.name in theirs, f"{real.__name__}.{name}({parameter.name})"
            assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(getattr(real, name))


def test_its_sample_passes_the_checks_of_drivers(air: Air, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_driver("bluetooth") is Ble
    assert asyncio.run(check_driver(Ble, None)) is True, capsys.readouterr().out
    assert air.devices[0].written[0] == (LED, b"\1", None)
    assert air.devices[0].clients == []
    assert air.scanners == []


def test_reading_writing_and_being_notified(air: Air) -> None:
    async def scenario() -> None:
        reports = Collected()
        (thing,) = air.devices
        led = Property(name="led", type="BOOLEAN", writable=True, desired="true",
                       settings=Settings({"characteristicUUID": LED}), cycle_s=0.01)  # fmt: skip
        async with polled(Poller(Ble, device(TEMP, LEVEL, led), reports, rng=random.Random(0))):
            await until(lambda: reports.values.get("led") == "true")
            assert reports.values["battery"] == "90"
            assert reports.values["temperature"] == "25"  # read once; from then on it is told
            thing.notify(TEMPERATURE, b"\x18\xfc")
            await until(lambda: reports.values.get("temperature") == "-10")
            await until(lambda: reports.states[-1:] == ["online"])
        assert thing.clients == []

    asyncio.run(scenario())


def test_a_device_that_goes_and_comes_back(air: Air, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        reports = Collected()
        (thing,) = air.devices
        async with polled(Poller(Ble, device(TEMP, LEVEL), reports, rng=random.Random(0))):
            await until(lambda: reports.values.get("battery") == "90")
            thing.leave()
            await until(lambda: reports.states[-1:] == ["offline"])
            thing.values[BATTERY] = b"\x10"
            thing.here = True
            await until(lambda: reports.values.get("battery") == "16")
            await until(lambda: reports.states[-1:] == ["online"])
            await until(lambda: bool(thing.clients and thing.clients[0].listening))
            thing.notify(TEMPERATURE, b"\x64\0")
            await until(lambda: reports.values.get("temperature") == "1")

    asyncio.run(scenario())
    said = [r.getMessage() for r in caplog.records if "does not answer" in r.getMessage()]
    assert len(said) == 1


def test_what_is_advertised_needs_no_connection(air: Air) -> None:
    beacon = Peripheral(
        address="AA:AA:AA:AA:AA:AA",
        name="Ruuvi",
        manufacturer={0x0499: bytes.fromhex("0512fc")},
        service={f"0000fcd2{BASE}": b"\x40\x01\x63"},
    )
    air.devices.append(beacon)

    async def scenario() -> None:
        reports = Collected()
        spec = device(
            prop("temperature", "FLOAT", companyID=0x0499, startIndex=1, dataType="int16", byteOrder="big", scale=0.005),
            prop("battery", serviceUUID="fcd2", startIndex=2, dataType="uint8"),
            prop("signal", source="rssi"),
            macAddress="", name="Ruuvi", maxAge=0.3,
        )  # fmt: skip
        async with polled(Poller(Ble, spec, reports, rng=random.Random(0))):
            await until(lambda: reports.values.get("temperature") == "24.3")
            assert reports.values["battery"] == "99"
            assert reports.values["signal"] == "-60"
            assert beacon.clients == []
            beacon.rssi, beacon.manufacturer = -70, {0x0499: bytes.fromhex("050000")}
            air.advertise(beacon)
            await until(
                lambda: reports.values.get("temperature") == "0" and reports.values["signal"] == "-70"
            )
            beacon.here = False
            await until(lambda: reports.states[-1:] == ["offline"])
            beacon.here = True
            await until(lambda: reports.states[-1:] == ["online"])  # a new scan hears it
        assert air.scanners == []

    asyncio.run(scenario())


def test_many_devices_share_one_scan(air: Air) -> None:
    air.devices = [Peripheral(address=f"AA:AA:AA:AA:AA:0{n}", values={BATTERY: bytes([n])}) for n in range(8)]

    async def scenario() -> None:
        reports = [Collected() for _ in air.devices]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    Poller(
                        Ble,
                        device(LEVEL, prop("signal", source="rssi"), macAddress=each.address, timeout=5),
                        report,
                        rng=random.Random(0),
                    ).run()
                )
                for each, report in zip(air.devices, reports, strict=True)
            ]
            await until(lambda: all(r.values.get("battery") == str(n) for n, r in enumerate(reports)))
            assert len(air.scanners) == 1
            for task in tasks:
                task.cancel()
        assert air.scanners == []

    asyncio.run(scenario())


def test_what_cannot_be_done_says_why(air: Air) -> None:
    async def scenario() -> None:
        spec = device(
            prop("missing", characteristicUUID="2a00"),
            prop("wrong", characteristicUUID="temp"),
            prop("mute", characteristicUUID="2a19", notify=True),
            prop("advertised", companyID=1),
            TEMP,
        )
        driver = made(spec)
        await driver.open()
        for name in ("missing", "wrong", "mute"):
            with pytest.raises(DriverError):
                await driver.read(spec.properties[name])
        with pytest.raises(NothingYet):
            await driver.read(spec.properties["advertised"])
        for name in ("temperature", "advertised"):
            with pytest.raises(DriverError):
                await driver.write(spec.properties[name], 1)
        await driver.close()

        away = made(device(LEVEL, macAddress="00:00:00:00:00:00", timeout=0.1))
        with pytest.raises(DeviceError, match="nothing is heard of 00:00"):
            await away.open()
        nameless = made(device(LEVEL, macAddress=""))
        with pytest.raises(DriverError, match="macAddress"):
            await nameless.open()
        for failure in (BleakError("No Bluetooth adapters found."), FileNotFoundError("no D-Bus")):
            air.fails = failure
            with pytest.raises(DeviceError, match="cannot scan"):
                await made(device(LEVEL)).open()
        assert air.scanners == []

    asyncio.run(scenario())


def test_looking_around(air: Air, capsys: pytest.CaptureFixture[str]) -> None:
    air.devices.append(
        Peripheral(address="AA:AA:AA:AA:AA:AA", name="x\x1b[2J", rssi=-90, manufacturer={76: b"\2"})
    )
    asyncio.run(discover(Ble, {"seconds": "0.1"}))
    out = capsys.readouterr().out
    assert out.index(MAC) < out.index("AA:AA")  # the nearest first
    assert "companyID 0x004c: 02" in out
    assert "\x1b" not in out
    assert air.scanners == []
