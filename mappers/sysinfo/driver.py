"""The machine's own temperature, load, memory and disk.   Settings: README.md beside this file."""

import os

from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, Driver, DriverError, Property
from mappers.framework.tree import Tree
from mappers.sysinfo import codec


class SysInfo(Driver):
    """One machine."""

    protocol = "sysinfo"

    async def open(self) -> None:
        self.tree = Tree(self.settings)
        self.cpu: codec.CpuTimes | None = None
        self.tree.text("proc/uptime")

    async def read(self, prop: Property) -> Value:
        source = prop.settings.text("source", prop.name)
        try:
            return self._read(source.lower(), prop)
        except (ValueError, IndexError) as error:
            raise DeviceError(f"{source}: /proc has not what was expected: {error}") from error

    def _read(self, source: str, prop: Property) -> Value:
        tree = self.tree
        match source:
            case "temperature":
                return self._temperature(prop.settings.text("zone", ""))
            case "load1" | "load5" | "load15":
                return float(tree.text("proc/loadavg").split()[("load1", "load5", "load15").index(source)])
            case "cpu":
                return self._cpu()
            case "memoryavailable":
                return codec.memory(tree.text("proc/meminfo"))[0]
            case "memorytotal":
                return codec.memory(tree.text("proc/meminfo"))[1]
            case "memory":
                available, total = codec.memory(tree.text("proc/meminfo"))
                return round(100 * (1 - available / total), 1) if total else 0.0
            case "disk" | "diskfree":
                return self._disk(source, prop.settings.text("path", ""))
            case "uptime":
                return float(tree.text("proc/uptime").split()[0])
            case "kernel":
                return tree.text("proc/sys/kernel/osrelease")
            case "hostname":
                return tree.text("proc/sys/kernel/hostname")
            case "model":
                return tree.text("proc/device-tree/model").rstrip("\0")
        raise DriverError(f"there is no source {source[:64]!r}")

    def _temperature(self, zone: str) -> float:
        """Degrees celsius of a thermal zone, by number or type; of the first if none is named."""
        for folder in self.tree.find("sys/class/thermal/thermal_zone*"):
            name = str(folder.relative_to(self.tree.root))
            if zone in ("", folder.name.removeprefix("thermal_zone")) or self.tree.text(name, "type") == zone:
                return round(self.tree.number(name, "temp") / 1000, 3)
        raise DriverError(f"there is no thermal zone {zone[:64]!r}" if zone else "there is no thermal zone")

    def _cpu(self) -> float:
        """Percent since the last reading; since the start of the machine the first time."""
        now = codec.cpu_times(self.tree.text("proc/stat"))
        before, self.cpu = self.cpu or codec.CpuTimes(busy=0, total=0), now
        return codec.cpu_percent(before, now)

    def _disk(self, source: str, path: str) -> float | int:
        """Percent used as `df` counts it, or free bytes, of the file system that holds `path`."""
        where = self.tree.path(path.lstrip("/"))
        try:
            found = os.statvfs(where)
        except OSError as error:
            raise DeviceError(f"cannot look at {where}: {error.strerror}") from error
        if source == "diskfree":
            return found.f_bavail * found.f_frsize
        used = found.f_blocks - found.f_bfree
        return round(100 * used / (used + found.f_bavail), 1) if used + found.f_bavail else 0.0
