"""What /proc says about a machine, as numbers.  Pure.  Source: proc(5)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Ticks since the start of the machine."""

    busy: int
    total: int


def cpu_times(stat: str) -> CpuTimes:
    """Read the first line of /proc/stat.  Raises: ValueError."""
    name, *fields = stat.partition("\n")[0].split()
    if name != "cpu" or len(fields) < 4:
        raise ValueError("there is no line `cpu`")
    ticks = [int(field) for field in fields[:8]]  # the two after those are in user and nice already
    idle = sum(ticks[3:5])
    return CpuTimes(busy=sum(ticks) - idle, total=sum(ticks))


def cpu_percent(before: CpuTimes, after: CpuTimes) -> float:
    """How busy all processors were between two readings, 0 to 100."""
    passed = after.total - before.total
    return round(100 * (after.busy - before.busy) / passed, 1) if passed > 0 else 0.0


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes.  Lines that are no number are left out."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit():
            found[name] = int(number) * (1024 if unit == "kB" else 1)
    return found


def memory(text: str) -> tuple[int, int]:
    """Available and total bytes.  Raises: ValueError."""
    found = meminfo(text)
    if "MemTotal" not in found or "MemAvailable" not in found:
        raise ValueError("there is no MemTotal or MemAvailable")
    return found["MemAvailable"], found["MemTotal"]
