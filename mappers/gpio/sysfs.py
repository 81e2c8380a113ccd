"""Pins through /sys/class/gpio, for kernels without the character devices, and for trees in tests."""

import time

from mappers.framework.driver import DeviceError
from mappers.framework.tree import Tree
from mappers.gpio.pins import Pin

FOLDER = "sys/class/gpio"
APPEAR_S = 1.0  # a udev rule may still be setting the rights of a new pin's files


class Sysfs:
    """Pins by their global number: base of the chip plus the line.  Blocking."""

    def __init__(self, tree: Tree, base: int) -> None:
        self._tree = tree
        self._base = base
        self._ready: set[Pin] = set()
        self._exported: list[str] = []

    def get(self, pin: Pin) -> bool:
        """Raises: DeviceError."""
        return self._tree.text(self._folder(pin), "value") == "1"

    def set(self, pin: Pin, *, level: bool) -> None:
        """Raises: DeviceError."""
        self._tree.write("1" if level else "0", self._folder(pin), "value")

    def close(self) -> None:
        """Give the pins back that were taken here; an output keeps its level."""
        for number in self._exported:
            try:
                self._tree.write(number, FOLDER, "unexport")
            except DeviceError:
                continue  # the chip is gone
        self._exported.clear()
        self._ready.clear()

    def _folder(self, pin: Pin) -> str:
        number = str(self._base + pin.number)
        folder = f"{FOLDER}/gpio{number}"
        if pin in self._ready:
            return folder
        if not self._tree.path(folder).exists():
            self._tree.write(number, FOLDER, "export")
            self._exported.append(number)
            until = time.monotonic() + APPEAR_S
            while not self._tree.path(folder, "value").exists():
                if time.monotonic() > until:
                    raise DeviceError(f"pin {number} does not appear")
                time.sleep(0.01)
        self._tree.write("1" if pin.active_low else "0", folder, "active_low")
        wanted = "out" if pin.output else "in"
        if self._tree.text(folder, "direction") != wanted:  # writing `out` would set the pin low
            self._tree.write(wanted, folder, "direction")
        self._ready.add(pin)
        return folder
