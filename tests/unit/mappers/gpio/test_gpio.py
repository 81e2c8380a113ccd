"""Pins on a sysfs tree whose files a thread serves as the kernel does."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mappers.framework.driver import DeviceError, DriverError, Property, Settings
from mappers.framework.errors import ValueRefused
from mappers.gpio.driver import Gpio
from mappers.gpio.pins import level_of, pin_of


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Path]:
    """Makes a pin's folder when its number is written to `export`."""
    folder = tmp_path / "sys/class/gpio"
    folder.mkdir(parents=True)
    (folder / "export").write_text("")
    (folder / "unexport").write_text("")
    stop = threading.Event()

    def kernel() -> None:
        while not stop.wait(0.002):
            number = (folder / "export").read_text()
            if number:
                (folder / "export").write_text("")
                pin = folder / f".gpio{number}"
                pin.mkdir()
                for name, text in (("active_low", "0"), ("direction", "in"), ("value", "0")):
                    (pin / name).write_text(text + "\n")
                pin.rename(folder / f"gpio{number}")  # a pin appears with all it has

    thread = threading.Thread(target=kernel)
    thread.start()
    yield tmp_path
    stop.set()
    thread.join()


def make(root: Path, **settings: Any) -> Gpio:
    device = Gpio()
    device.settings = Settings({"root": str(root), **settings})
    device.open()
    return device


def row(type_: str = "BOOLEAN", *, writable: bool = False, **settings: Any) -> Property:
    return Property(name="p", type=type_, writable=writable, settings=Settings(settings))


def test_inputs_and_outputs(board: Path) -> None:
    device = make(board, base="512")
    pins = board / "sys/class/gpio"
    door = row(PIN="4", activeLow=True)
    assert device.read(door) is False
    assert (pins / "gpio516/active_low").read_text() == "1"
    (pins / "gpio516/value").write_text("1\n")
    assert device.read(door) is True
    lamp = row("STRING", writable=True, **{"gpio-pin-number": 18})
    device.write(lamp, "ON")
    assert (pins / "gpio530/direction").read_text() == "out"
    assert (pins / "gpio530/value").read_text() == "1"
    assert device.read(lamp) == "ON"
    assert device.read(row("INT", writable=True, pin=18)) == 1
    with pytest.raises(DriverError, match="input"):
        device.write(door, True)
    device.close()
    assert (pins / "unexport").read_text() == "530"
    assert (pins / "gpio530/value").read_text() == "1"  # the lamp stays on


def test_an_output_of_before_is_not_switched_by_looking_at_it(board: Path) -> None:
    pin = board / "sys/class/gpio/gpio7"
    pin.mkdir()
    for name, text in (("active_low", "0"), ("direction", "out"), ("value", "1")):
        (pin / name).write_text(text)
    (pin / "direction").chmod(0o444)
    device = make(board)
    assert device.read(row(writable=True, pin=7)) is True
    device.close()
    assert (board / "sys/class/gpio/unexport").read_text() == ""  # it was not ours to give back


def test_what_cannot_be_meant_is_named(board: Path, tmp_path: Path) -> None:
    for settings in ({}, {"pin": -1}, {"pin": "a"}, {"pin": 1, "direction": "up"}, {"pin": 1, "bias": "x"}):
        with pytest.raises(DriverError):
            pin_of(row(**settings))
    for value in ("maybe", None, 2):
        with pytest.raises(ValueRefused):
            level_of(value)
    with pytest.raises(DriverError):
        make(board, backend="wires")
    with pytest.raises(DeviceError):
        make(tmp_path / "empty")


def test_a_chip_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("gpiod")
    with pytest.raises(DeviceError, match="not a GPIO chip"):
        make(tmp_path, chip="/dev/null")
    with pytest.raises(DeviceError):
        make(tmp_path, chip="gpiochip-none")
    with pytest.raises(DeviceError, match="no GPIO chip"):
        make(tmp_path, backend="gpiod")
