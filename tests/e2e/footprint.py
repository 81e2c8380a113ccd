"""What a machine looks like from outside, so that two looks can be compared."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """As `ps`, `mount`, `ip link`, `ip netns`, the firewall and the control groups show it."""

    processes: frozenset[str]
    mounts: tuple[str, ...]
    interfaces: frozenset[str]
    namespaces: tuple[str, ...]
    firewall: tuple[str, ...]
    tables: tuple[str, ...]
    forwarding: str
    cgroups: frozenset[str]


def look(home: Path) -> Footprint:
    """Processes are those that name the trial's folder; everything else is the machine's whole state."""
    return Footprint(
        processes=frozenset(_processes(home)),
        mounts=tuple(sorted(Path("/proc/mounts").read_text().splitlines())),
        interfaces=frozenset(os.listdir("/sys/class/net")),
        namespaces=tuple(_lines("ip", "netns")),
        firewall=tuple(
            line for line in _lines("iptables-save") if not line.startswith(("#", ":")) or " - [" in line
        ),
        tables=tuple(_lines("nft", "list", "tables")),
        forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        cgroups=frozenset(folder for folder, _, _ in os.walk("/sys/fs/cgroup")),
    )


def left_behind(before: Footprint, home: Path, timeout_s: float = 20.0) -> dict[str, object]:
    """difference() to now, once it is empty or has not become so in time: others may use the machine, too."""
    deadline = time.monotonic() + timeout_s
    while (found := difference(before, look(home))) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def difference(before: Footprint, after: Footprint) -> dict[str, object]:
    """Field to what was before and is after, for those that differ."""
    found: dict[str, object] = {}
    for name in Footprint.__dataclass_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, str):
            if old != new:
                found[name] = (old, new)
        elif set(old) != set(new):
            found[name] = {"gone": sorted(set(old) - set(new)), "new": sorted(set(new) - set(old))}
    return found


def _processes(home: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes()
                # A pod's process is known by the file system that it runs in.
                root = os.readlink(process / "root")
            except OSError:
                continue
            if os.fsencode(home) in words or str(home) in root:
                found.append(f"{process.name} {words.decode(errors='replace')}")
    return found


def _lines(*argv: str) -> list[str]:
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, env=environment)
    return done.stdout.splitlines()
