"""1-Wire sensors through the kernel's w1 files.   Settings: README.md beside this file."""

import re

from mappers.framework.convert import Value
from mappers.framework.driver import Around, DeviceError, Driver, DriverError, Property, Settings
from mappers.framework.tree import Tree
from mappers.onewire import codec

_ADDRESS = re.compile(r"[0-9a-f]{2}-[0-9a-f]{12}")
FOLDER = "sys/bus/w1/devices"


class OneWire(Driver):
    """One sensor.  The methods are plain: a conversion takes 0.75 s, in the device's own thread."""

    protocol = "onewire"

    def open(self) -> None:  # type: ignore[override]
        self.tree = Tree(self.settings)
        address = self.settings.text("address", "").lower()
        if not address:
            found = [p.name for p in self.tree.find(f"{FOLDER}/*-*") if _ADDRESS.fullmatch(p.name)]
            if len(found) != 1:
                raise DeviceError(f"give setting 'address': there are {len(found)} sensors on the bus")
            (address,) = found
        if not _ADDRESS.fullmatch(address):
            raise DriverError(f"setting 'address' is not like 28-0316a2795b12: {address[:64]!r}")
        self.address = address
        if not self.tree.path(FOLDER, address).exists():
            raise DeviceError(f"there is no sensor {address}")

    @classmethod
    async def discover(cls, settings: Settings) -> list[Around]:
        """The sensors on the bus."""
        found = [path.name for path in Tree(settings).find(f"{FOLDER}/*-*") if _ADDRESS.fullmatch(path.name)]
        return [
            Around(identity=name, name=codec.FAMILIES.get(name[:2], ""), settings={"address": name})
            for name in found
        ]

    def read(self, prop: Property) -> Value:  # type: ignore[override]
        source = prop.settings.text("source", prop.name)
        if source == "address":
            return self.address
        if source == "temperature":
            try:
                return codec.temperature(self.tree.text(FOLDER, self.address, "w1_slave"))
            except ValueError as error:
                raise DeviceError(f"{self.address}: {error}") from error
        if not source.isidentifier():
            raise DriverError(f"there is no source {source[:64]!r}")
        return self.tree.text(FOLDER, self.address, source)  # other sensors: counters, resolution, alarms
