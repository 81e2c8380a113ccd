"""Sensors on I2C (or SPI) that the kernel serves as iio devices, such as a BME280.   Settings: README.md beside this file."""

import re

from mappers.framework.convert import Value
from mappers.framework.driver import Around, DeviceError, Driver, DriverError, Property, Settings
from mappers.framework.tree import Tree

FOLDER = "sys/bus/iio/devices"
_CHANNEL = re.compile(r"[a-z0-9_\-]{1,64}")
# The iio ABI's units into those that people use.  Source: Linux, Documentation/ABI/testing/sysfs-bus-iio.
_FACTORS = {
    "temp": 0.001,  # millidegrees
    "pressure": 10.0,  # kilopascal into hectopascal
    "humidityrelative": 0.001,  # thousandths of a percent
    "voltage": 0.001,
    "current": 0.001,
}
_PART = re.compile(r"_(raw|input|scale|offset|oversampling_ratio|sampling_frequency|peak_raw)(_available)?$")
_PLACE = re.compile(r"(\d{1,4})-([0-9a-f]{4})")
_NAMES = {"temperature": "temp", "humidity": "humidityrelative"}


def factor(channel: str) -> float:
    """From the kernel's unit of a channel into celsius, hPa, percent, volt or ampere; 1 for the others."""
    kind = re.match(r"[a-z]+", channel)
    return _FACTORS.get(kind[0], 1.0) if kind is not None else 1.0


class I2C(Driver):
    """One iio device, found by name or by its place on the bus."""

    protocol = "i2c"

    async def open(self) -> None:
        self.tree = Tree(self.settings)
        name = self.settings.text("name", "").lower()
        place = self._place()
        for folder in self.tree.find(f"{FOLDER}/iio:device*"):
            here = str(folder.relative_to(self.tree.root))
            if name and self.tree.text(here, "name").lower() != name:
                continue
            if place and folder.resolve().parent.name != place:
                continue
            self.folder = here
            return
        raise DeviceError(f"there is no iio device {name or place or 'at all'}")

    @classmethod
    async def discover(cls, settings: Settings) -> list[Around]:
        """The iio devices that the kernel serves, with their channels."""
        tree = Tree(settings)
        found = []
        for folder in tree.find(f"{FOLDER}/iio:device*"):
            name = tree.text(str(folder.relative_to(tree.root)), "name")
            files = tree.find(f"{folder.relative_to(tree.root)}/in_*")
            channels = {_PART.sub("", path.name.removeprefix("in_")) for path in files}
            about = {"channels": " ".join(sorted(channels))} if channels else {}
            place = folder.resolve().parent.name
            at = _PLACE.fullmatch(place)
            where = (
                {"bus": int(at[1]), "address": f"0x{int(at[2], 16):02x}"}
                if at is not None
                else {"name": name}
            )
            found.append(Around(identity=place, name=name, settings=where, about=about))
        return found

    def _place(self) -> str:
        """`<bus>-<address>` as the kernel names an I2C device, "" if no address is given."""
        if "address" not in self.settings:
            return ""
        return f"{self.settings.integer('bus', 1)}-{self.settings.integer('address'):04x}"

    async def read(self, prop: Property) -> Value:
        channel = prop.settings.text("channel", prop.name).lower()
        channel = _NAMES.get(channel, channel)
        if not _CHANNEL.fullmatch(channel):
            raise DriverError(f"there is no channel {channel[:64]!r}")
        value = self._processed(channel) * factor(channel)
        value = value * prop.settings.number("scale", 1.0) + prop.settings.number("offset", 0.0)
        return float(f"{value:.9g}")

    def _processed(self, channel: str) -> float:
        """(raw + offset) * scale where the kernel leaves that to the reader, else what it has worked out."""
        if self.tree.path(self.folder, f"in_{channel}_input").exists():
            return self.tree.number(self.folder, f"in_{channel}_input")
        if not self.tree.path(self.folder, f"in_{channel}_raw").exists():
            raise DriverError(f"the device has no channel {channel!r}")
        return (self.tree.number(self.folder, f"in_{channel}_raw") + self._shared(channel, "offset", 0.0)) * (
            self._shared(channel, "scale", 1.0)
        )

    def _shared(self, channel: str, name: str, default: float) -> float:
        """A factor of the channel's own, or of all channels of its kind."""
        for prefix in (f"in_{channel}", f"in_{channel.rstrip('0123456789')}", "in"):
            if self.tree.path(self.folder, f"{prefix}_{name}").exists():
                return self.tree.number(self.folder, f"{prefix}_{name}")
        return default
