"""Pins through the kernel's character devices.  gpiod stays in here.

A pin is held from its first use until the chip is closed, so that nobody else can take it and outputs keep their level."""

from pathlib import Path
from typing import Any

from mappers.framework.driver import DeviceError, DriverError
from mappers.gpio.pins import Pin

CONSUMER = "skerry"


class Chip:
    """One GPIO chip.  Blocking, but never for long."""

    def __init__(self, path: str) -> None:
        """Raises: DeviceError, DriverError without the library."""
        try:
            import gpiod
        except ImportError as error:
            raise DriverError("pins need the extra `mappers-gpio`, or setting 'backend: sysfs'") from error
        self._gpiod: Any = gpiod
        self._requests: dict[Pin, Any] = {}
        self._path = path
        try:
            if not gpiod.is_gpiochip_device(path):
                raise DeviceError(f"{path} is not a GPIO chip")
        except OSError as error:
            raise DeviceError(f"cannot open {path}: {error.strerror}") from error

    def get(self, pin: Pin) -> bool:
        """Raises: DeviceError."""
        try:
            return bool(self._line(pin).get_value(pin.number) == self._gpiod.line.Value.ACTIVE)
        except (OSError, ValueError) as error:
            raise DeviceError(f"cannot read pin {pin.number} of {self._path}: {error}") from error

    def set(self, pin: Pin, *, level: bool) -> None:
        """Raises: DeviceError."""
        value = self._gpiod.line.Value
        try:
            self._line(pin).set_value(pin.number, value.ACTIVE if level else value.INACTIVE)
        except (OSError, ValueError) as error:
            raise DeviceError(f"cannot set pin {pin.number} of {self._path}: {error}") from error

    def close(self) -> None:
        for request in self._requests.values():
            request.release()
        self._requests.clear()

    def _line(self, pin: Pin) -> Any:
        held = self._requests.get(pin)
        if held is not None:
            return held
        line = self._gpiod.line
        bias = {
            "as-is": line.Bias.AS_IS,
            "disabled": line.Bias.DISABLED,
            "pull-up": line.Bias.PULL_UP,
            "pull-down": line.Bias.PULL_DOWN,
        }[pin.bias]
        settings = self._gpiod.LineSettings(
            direction=line.Direction.OUTPUT if pin.output else line.Direction.INPUT,
            bias=bias,
            active_low=pin.active_low,
        )
        held = self._gpiod.request_lines(self._path, {pin.number: settings}, consumer=CONSUMER)
        self._requests[pin] = held
        return held


def first_chip(root: Path) -> str:
    """The path of the first GPIO chip, "" if there is none."""
    return next((str(path) for path in sorted((root / "dev").glob("gpiochip*"))), "")
