"""Find out, before anything is touched, whether a trial can run on this machine.

Each check returns None, or one sentence that says what is wrong and what to do.  What the kernel can do is tried out
in network and mount namespaces that end with the attempt, so that nothing of it stays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from deploy import machine
from deploy.containerd import CNI_BIN_DIRS, CNI_PLUGINS
from deploy.home import Ports

# Program to Debian package.
PROGRAMS = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "mosquitto": "mosquitto",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-save": "iptables",
    "unshare": "util-linux",
    "kubectl": "kubernetes-client",
}

Attempt = Callable[[list[str]], str | None]
"""Runs a program; None or the reason why it failed."""


def check_root(euid: int) -> str | None:
    if euid == 0:
        return None
    return (
        "containers and network interfaces need root, and this is user id "
        f"{euid}: run it again as root or with sudo"
    )


def check_programs(find: Callable[[str], str | None] = machine.find) -> str | None:
    missing = sorted({package for program, package in PROGRAMS.items() if find(program) is None})
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"{_and(missing)} {verb} not installed: run `make up`, or `apt-get install {' '.join(missing)}`"


def find_cni_plugins(folders: Iterable[str] = CNI_BIN_DIRS) -> str | None:
    """The first folder that holds every plugin needed."""
    for folder in folders:
        if all(Path(folder, plugin).is_file() for plugin in CNI_PLUGINS):
            return folder
    return None


def check_cni_plugins(folder: str | None) -> str | None:
    if folder is not None:
        return None
    return (
        f"the CNI plugins {', '.join(CNI_PLUGINS)} are in none of {' and '.join(CNI_BIN_DIRS)}: "
        "run `make up`, or `apt-get install containernetworking-plugins`"
    )


def check_cgroups(filesystems: str, mounts: str) -> str | None:
    """filesystems, mounts: as in /proc.  Version 2 alone, or version 1 with the controllers that runc needs."""
    if "cgroup" not in filesystems:
        return "this kernel has no control groups: start one built with CONFIG_CGROUPS"
    version1: set[str] = set()
    unified = False
    for line in mounts.splitlines():
        point, kind, options = line.split()[1:4]
        if kind == "cgroup2":
            unified = unified or point == "/sys/fs/cgroup"
        elif kind == "cgroup":
            version1 |= set(options.split(","))
    missing = {"cpu", "devices", "memory", "pids"} - version1
    if unified or not missing:
        return None
    if not version1:
        return "no control groups are mounted: `mount -t cgroup2 none /sys/fs/cgroup`"
    return f"the control groups of {_and(sorted(missing))} are not mounted below /sys/fs/cgroup: mount them"


def check_networking(attempt: Attempt = machine.succeeds) -> str | None:
    """Bridges, pairs of interfaces and masquerading, each in a network namespace of its own."""
    tries = (
        ("network namespaces", "CONFIG_NET_NS", ["true"]),
        ("bridges", "the module bridge", ["ip", "link", "add", "try0", "type", "bridge"]),
        ("virtual ethernet pairs", "the module veth", ["ip", "link", "add", "try0", "type", "veth"]),
        (
            "masquerading",
            "the modules nft_chain_nat and xt_MASQUERADE",
            ["iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"],
        ),
    )
    for feature, module, command in tries:
        reason = attempt(["unshare", "--net", *command])
        if reason is not None:
            return f"this kernel cannot make {feature} ({reason}): load or build {module}"
    return None


def choose_snapshotter(folder: Path, attempt: Attempt = machine.succeeds) -> str:
    """overlayfs where it can be mounted on this folder's file system, else native, which copies whole layers."""
    with tempfile.TemporaryDirectory(dir=_existing(folder), prefix=".skerry-try-") as scratch:
        base = Path(scratch)
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        command = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "none", f"{base}/merged"]
        return "overlayfs" if attempt(command) is None else "native"


def check_ports(
    ports: Ports,
    ours: Collection[str] = (),
    *,
    is_free: Callable[[int], bool] = machine.port_is_free,
    owner: Callable[[int], str] = machine.listener_of,
) -> str | None:
    """ours: uses whose part runs already, so that the port is rightly taken."""
    for use, port in ports.by_use().items():
        if use not in ours and not is_free(port):
            return (
                f"port {port}, which {use} needs, is in use by {owner(port)}: "
                "end that program, or choose others with --port-base"
            )
    return None


def check_folder(folder: Path) -> str | None:
    base = _existing(folder)
    if not base.is_dir():
        return f"{base} is not a folder: set SKERRY_HOME to another path"
    if not os.access(base, os.W_OK):
        return f"{base} cannot be written to: set SKERRY_HOME to another folder"
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
