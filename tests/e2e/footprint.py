"""What a machine looks like from outside, so that two looks can be compared.

Everything counts, but for what can be told to belong to another trial or test that uses the machine at the same time:
mounts below another temporary folder, interfaces of another bridge, control groups and firewall rules of another name."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.home import Home

# What this project's tests call their bridges, networks and control groups begins so.
_OTHERS = re.compile(r"sk(erry|t|[0-9a-f])")
_NETWORK = re.compile(r'name: \\?"([^"\\]+)')
_INTERFACE = re.compile(r" -i (\S+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """As `ps`, `mount`, `ip link`, `ip netns`, the firewall and the control groups show it."""

    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    namespaces: frozenset[str]
    firewall: frozenset[str]
    forwarding: str
    cgroups: frozenset[str]


def look(root: Path) -> Footprint:
    """Processes are those that name the trial's folder or run in it."""
    home = Home(root)
    return Footprint(
        processes=frozenset(_processes(root)),
        mounts=frozenset(_mounts(root)),
        interfaces=frozenset(_interfaces(home)),
        namespaces=frozenset(_lines("ip", "netns")),
        firewall=frozenset(_firewall(home)),
        forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text().strip(),
        cgroups=frozenset(_cgroups(home)),
    )


def left_behind(before: Footprint, root: Path, timeout_s: float = 20.0) -> dict[str, object]:
    """What differs now from before; empty as soon as nothing does."""
    deadline = time.monotonic() + timeout_s
    while (found := difference(before, look(root))) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def difference(before: Footprint, after: Footprint) -> dict[str, object]:
    """Field to what was before and is after, for those that differ."""
    found: dict[str, object] = {}
    for name in Footprint.__dataclass_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, str):
            # Forwarding that is on for somebody else stays on.
            if old != new and not (name == "forwarding" and _other_pods()):
                found[name] = (old, new)
        elif old != new:
            found[name] = {"gone": sorted(old - new), "new": sorted(new - old)}
    return found


def _processes(root: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes()
                # A pod's process is known by the file system that it runs in.
                inside = os.readlink(process / "root")
            except OSError:
                continue
            if os.fsencode(root) in words or str(root) in inside:
                found.append(f"{process.name} {words.decode(errors='replace')}")
    return found


def _other_pods() -> bool:
    return any(
        b"containerd-shim" in _cmdline(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    )


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _mounts(root: Path) -> list[str]:
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        point = line.split()[1]
        if point.startswith(f"{root}/") or not point.startswith(("/tmp/sk", "/tmp/pytest-of-")):
            found.append(point)
    return found


def _interfaces(home: Home) -> list[str]:
    found = []
    for name in os.listdir("/sys/class/net"):
        master = Path("/sys/class/net", name, "master")
        try:
            bridge = os.readlink(master).rpartition("/")[2]
        except OSError:
            bridge = name
        # A pair that is just being made or taken away has no bridge yet, or no longer.
        passing = bridge == name and name.startswith("veth")
        if bridge == home.bridge or not (passing or _OTHERS.match(bridge)):
            found.append(name)
    return found


def _firewall(home: Home) -> list[str]:
    lines = [
        line
        for line in _lines("iptables-save")
        if line.startswith(("-A", ":")) and not re.match(r":\w+ [A-Z]", line)
    ]
    others = [line for line in lines if (match := _NETWORK.search(line)) and match[1] != home.network]
    others += [
        line
        for line in lines
        if (match := _INTERFACE.search(line)) and _OTHERS.match(match[1]) and match[1] != home.bridge
    ]
    chains = {word for line in others for word in line.split() if word.startswith("CNI-")}
    tables = [] if others else [f"table {name}" for name in _lines("nft", "list", "tables")]
    return tables + [
        line for line in lines if line not in others and not chains & set(line.lstrip(":").split())
    ]


def _cgroups(home: Home) -> list[str]:
    found = []
    top = Path("/sys/fs/cgroup")
    for hierarchy in (top, *(entry for entry in top.iterdir() if entry.is_dir() and not entry.is_symlink())):
        for group in hierarchy.iterdir():
            if group.is_dir() and (group.name == home.cgroup or not _OTHERS.match(group.name)):
                found.append(str(group))
    return found


def _lines(*argv: str) -> list[str]:
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, env=environment)
    return done.stdout.splitlines()
