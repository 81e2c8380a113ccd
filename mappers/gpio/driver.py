"""Pins of a board.   Settings: README.md beside this file."""

from typing import Protocol

from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, Driver, DriverError, Property
from mappers.framework.tree import Tree
from mappers.gpio.chip import Chip, first_chip
from mappers.gpio.pins import Pin, level_of, pin_of, value_of
from mappers.gpio.sysfs import FOLDER, Sysfs


class Pins(Protocol):
    def get(self, pin: Pin) -> bool: ...

    def set(self, pin: Pin, *, level: bool) -> None: ...

    def close(self) -> None: ...


class Gpio(Driver):
    """One board.  Its methods are plain: they run in the device's own thread."""

    protocol = "gpio"

    def open(self) -> None:  # type: ignore[override]
        self.pins = self._backend()

    def close(self) -> None:  # type: ignore[override]
        self.pins.close()

    def _backend(self) -> Pins:
        tree = Tree(self.settings)
        backend = self.settings.text("backend", "").lower()
        chip = self.settings.text("chip", "") or first_chip(tree.root)
        if backend == "gpiod" or (not backend and chip):
            if not chip:
                raise DeviceError("there is no GPIO chip")
            return Chip(chip if chip.startswith("/") else f"/dev/{chip}")
        if backend not in ("", "sysfs"):
            raise DriverError(f"setting 'backend' is not gpiod or sysfs: {backend[:64]!r}")
        if not tree.path(FOLDER).is_dir():
            raise DeviceError("there are no pins: neither /dev/gpiochip* nor /sys/class/gpio")
        return Sysfs(tree, self.settings.integer("base", 0))

    def read(self, prop: Property) -> Value:  # type: ignore[override]
        return value_of(level=self.pins.get(pin_of(prop)), prop=prop)

    def write(self, prop: Property, value: Value) -> None:  # type: ignore[override]
        pin = pin_of(prop)
        if not pin.output:
            raise DriverError(f"{prop.name}: pin {pin.number} is an input")
        self.pins.set(pin, level=level_of(value))
