import asyncio
from pathlib import Path
from typing import Any

import pytest

from mappers.framework.driver import DeviceError, DriverError, Property, Settings
from mappers.sysinfo import codec
from mappers.sysinfo.driver import SysInfo

FILES = {
    "proc/uptime": "3605.21 7000.00\n",
    "proc/loadavg": "0.52 0.58 0.59 1/257 12345\n",
    "proc/stat": "cpu  100 0 50 850 0 0 0 0 0 0\ncpu0 100 0 50 850 0 0 0 0 0 0\n",
    "proc/meminfo": "MemTotal:        4000 kB\nMemFree:  100 kB\nMemAvailable:    1000 kB\nHugePages_Total:       0\n",
    "proc/sys/kernel/hostname": "board\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "40100\n",
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "51234\n",
}


@pytest.fixture
def board(tmp_path: Path) -> SysInfo:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    device = SysInfo()
    device.settings = Settings({"root": str(tmp_path)})
    asyncio.run(device.open())
    return device


def read(device: SysInfo, source: str, **settings: Any) -> object:
    return asyncio.run(device.read(Property(name="p", settings=Settings({"source": source, **settings}))))


def test_a_board_reads_as_its_files_say(board: SysInfo, tmp_path: Path) -> None:
    assert read(board, "temperature") == 40.1
    assert read(board, "temperature", zone="cpu-thermal") == 51.234
    assert read(board, "temperature", zone=1) == 51.234
    assert (read(board, "load1"), read(board, "load15")) == (0.52, 0.59)
    assert read(board, "memory") == 75.0
    assert read(board, "memoryTotal") == 4000 * 1024
    assert read(board, "uptime") == 3605.21
    assert read(board, "hostname") == "board"
    assert read(board, "cpu") == 15.0
    (tmp_path / "proc/stat").write_text("cpu  190 0 50 860 0 0 0 0\n")
    assert read(board, "cpu") == 90.0
    assert read(board, "cpu") == 0.0


def test_what_is_not_there_is_said(board: SysInfo, tmp_path: Path) -> None:
    for source, settings in (("altitude", {}), ("temperature", {"zone": "9"}), ("disk", {"path": "../.."})):
        with pytest.raises(DriverError):
            read(board, source, **settings)
    (tmp_path / "proc/stat").write_text("intr 1 2\n")
    (tmp_path / "proc/meminfo").write_text("")
    (tmp_path / "proc/loadavg").unlink()
    for source in ("cpu", "memory", "load1", "model"):
        with pytest.raises(DeviceError):
            read(board, source)


def test_this_machine_has_all_but_a_thermometer() -> None:
    device = SysInfo()
    device.settings = Settings()
    asyncio.run(device.open())
    for source in ("cpu", "memory", "disk"):
        value = read(device, source)
        assert isinstance(value, float)
        assert 0 <= value <= 100
    free, uptime = read(device, "diskFree"), read(device, "uptime")
    assert isinstance(free, int)
    assert free > 0
    assert isinstance(uptime, float)
    assert uptime > 0


def test_a_processor_that_counts_backwards_is_idle() -> None:
    later = codec.CpuTimes(busy=5, total=10)
    assert codec.cpu_percent(later, codec.CpuTimes(busy=4, total=9)) == 0
