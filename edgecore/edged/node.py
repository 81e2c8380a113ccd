"""The Node object of this machine, for registration and status.

`build_node` and `build_status` are pure; `read_facts` reads /proc and /sys.

Source: kubelet, nodestatus/setters.go, kubelet_node_status.go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from edgecore.edged import cgroups
from edgecore.edged.config import EdgedConfig
from edgecore.edged.quantity import NANO
from edgecore.edged.runtime import Image, RuntimeConditions, RuntimeVersion
from edgecore.edged.shutdown import NODE_MESSAGE
from edgecore.edged.status import timestamp

# The condition of a node whose kernel was started without its memory controller, as Raspberry Pi OS does, and the remedy.
IGNORED = "MemoryLimitsIgnored"
NO_LIMITS = (
    "this kernel runs without its memory controller, so limits of memory are not enforced: add cgroup_enable=memory "
    "to its command line (/boot/firmware/cmdline.txt on a Raspberry Pi) and reboot"
)

# nodeStatusMaxImages, and as many names for each
MAX_IMAGES, MAX_IMAGE_NAMES = 50, 5

_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of the machine.  Sizes in bytes.

    memory_limits: whether the kernel enforces them; unified: whether its cgroups are of version 2.
    """

    hostname: str = ""
    ips: tuple[str, ...] = ()
    cpus: int = 1
    memory_bytes: int = 0
    memory_available_bytes: int = 0
    disk_bytes: int = 0
    disk_available_bytes: int = 0
    inodes: int = 0
    inodes_free: int = 0
    pid_max: int = 0
    pids: int = 0
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel: str = ""
    os_image: str = ""
    arch: str = ""
    memory_limits: bool = True
    unified: bool = False
    reserved_cpu_milli: int = 0
    reserved_memory_bytes: int = 0
    reserved_disk_bytes: int = 0

    @property
    def allocatable(self) -> Mapping[str, int]:
        """Nano-units by resource name."""
        return {
            "cpu": max(0, self.cpus * 1000 - self.reserved_cpu_milli) * 10**6,
            "memory": max(0, self.memory_bytes - self.reserved_memory_bytes) * NANO,
            "ephemeral-storage": max(0, self.disk_bytes - self.reserved_disk_bytes) * NANO,
        }


UNKNOWN_RUNTIME = RuntimeVersion(name="containerd", version="Unknown", api_version="")


class RuntimeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime says of itself; error is set when it could not be asked."""

    version: RuntimeVersion = UNKNOWN_RUNTIME
    conditions: RuntimeConditions | None = None
    images: tuple[Image, ...] = ()
    error: str = ""


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions that were last reported: type -> (status, lastTransitionTime)."""

    conditions: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)


def before(status: Mapping[str, Any]) -> Before:
    """Read the conditions back out of a status made here."""
    return Before(
        conditions={c["type"]: (c["status"], c["lastTransitionTime"]) for c in status.get("conditions", ())}
    )


def build_node(
    name: str,
    config: EdgedConfig,
    facts: Facts,
    status: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The Node to register.  places: labels of where storage drivers say that it is."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**places, **labels(name, config, facts)}},
        "spec": {},
        "status": dict(status),
    }


def labels(name: str, config: EdgedConfig, facts: Facts) -> dict[str, str]:
    """What a kubelet labels its node with, and ours."""
    arch = facts.arch
    return {
        "kubernetes.io/hostname": facts.hostname or name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
        **dict(config.node_labels),
    }


def build_status(
    config: EdgedConfig,
    facts: Facts,
    runtime: RuntimeFacts,
    *,
    previous: Before,
    now: float,
    pressures: Collection[str] = frozenset(),
    extended: Mapping[str, str] = MappingProxyType({}),
    plugins: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    shutting_down: bool = False,
    limits_told: bool = False,
) -> dict[str, Any]:
    """NodeStatus as a kubelet reports it.

    pressures: the conditions that are on.  extended: further resources.  plugins: capacity and allocatable of what
    device plugins offer.  limits_told: the API may still hold that limits of memory are not enforced.
    """
    memory_ki = facts.memory_bytes // 1024
    status: dict[str, Any] = {
        "capacity": {
            "cpu": str(facts.cpus),
            "memory": f"{memory_ki}Ki",
            "ephemeral-storage": f"{facts.disk_bytes // 1024}Ki",
            "pods": str(config.max_pods),
            **extended,
        },
        "allocatable": {
            "cpu": _cpu(max(0, facts.cpus * 1000 - facts.reserved_cpu_milli)),
            "memory": f"{max(0, facts.memory_bytes - facts.reserved_memory_bytes) // 1024}Ki",
            "ephemeral-storage": str(facts.allocatable["ephemeral-storage"] // NANO),
            "pods": str(config.max_pods),
            **extended,
        },
        "conditions": _conditions(
            pressures,
            runtime,
            previous,
            now,
            trouble=NODE_MESSAGE if shutting_down else "",
            limits=None if facts.memory_limits and not limits_told else facts.memory_limits,
        ),
        "addresses": [
            *({"type": "InternalIP", "address": ip} for ip in facts.ips),
            {"type": "Hostname", "address": facts.hostname},
        ],
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": f"{runtime.version.name}://{runtime.version.version}",
            "kubeletVersion": config.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": facts.arch,
        },
        "images": images(runtime.images),
        "features": {
            "supplementalGroupsPolicy": runtime.conditions is not None and runtime.conditions.strict_groups
        },
    }
    for name, (capacity, healthy) in plugins.items():
        status["capacity"][name], status["allocatable"][name] = str(capacity), str(healthy)
    if config.kubelet_port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": config.kubelet_port}}
    return status


def _cpu(milli: int) -> str:
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def images(found: Sequence[Image]) -> list[dict[str, Any]]:
    """The largest images, digests before tags."""
    named = [i for i in found if i.tags or i.digests]
    named.sort(key=lambda i: -i.size_bytes)
    return [
        {"names": [*i.digests, *i.tags][:MAX_IMAGE_NAMES], "sizeBytes": i.size_bytes}
        for i in named[:MAX_IMAGES]
    ]


def _conditions(
    pressures: Collection[str],
    runtime: RuntimeFacts,
    previous: Before,
    now: float,
    *,
    trouble: str,
    limits: bool | None,
) -> list[dict[str, str]]:
    trouble = trouble or runtime.error
    if not trouble and runtime.conditions is not None:
        if not runtime.conditions.runtime_ready:
            trouble = f"container runtime not ready: {runtime.conditions.runtime_message}"
        elif not runtime.conditions.network_ready:
            trouble = f"container runtime network not ready: {runtime.conditions.network_message}"
    made = [
        (
            "MemoryPressure",
            "MemoryPressure" in pressures,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory",
        ),
        (
            "DiskPressure",
            "DiskPressure" in pressures,
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            "disk",
        ),
        (
            "PIDPressure",
            "PIDPressure" in pressures,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "PID",
        ),
    ]
    out = []
    for kind, on, bad, good, what in made:
        text = {
            "memory": (
                "kubelet has insufficient memory available",
                "kubelet has sufficient memory available",
            ),
            "disk": ("kubelet has disk pressure", "kubelet has no disk pressure"),
            "PID": ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
        }[what][0 if on else 1]
        out.append((kind, "True" if on else "False", bad if on else good, text))
    if limits is not None:
        out.append(
            (IGNORED, "False", "KernelEnforces", "the kernel enforces limits of memory")
            if limits
            else (IGNORED, "True", "KernelWithoutMemoryController", NO_LIMITS)
        )
    if trouble:
        out.append(("Ready", "False", "KubeletNotReady", trouble[:1024]))
    else:
        out.append(("Ready", "True", "KubeletReady", "edged is posting ready status"))
    stamp = timestamp(now)
    conditions = []
    for kind, value, reason, message in out:
        was = previous.conditions.get(kind)
        conditions.append(
            {
                "type": kind,
                "status": value,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": was[1] if was is not None and was[0] == value else stamp,
                "reason": reason,
                "message": message,
            }
        )
    return conditions


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name out of /proc/meminfo."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1]) * (1024 if len(words) > 2 else 1)
    return found


def parse_os_release(text: str) -> str:
    """PRETTY_NAME."""
    for line in text.splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return ""


# -- shell: reading this machine.  Blocking, some milliseconds.


def read_facts(config: EdgedConfig, *, node_name: str = "") -> Facts:
    """Facts of this machine, now."""
    memory = parse_meminfo(_read("/proc/meminfo"))
    folder = config.root_dir
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    pid_max = _read("/proc/sys/kernel/pid_max").strip()
    loadavg = _read("/proc/loadavg").split()
    pids = loadavg[3].partition("/")[2] if len(loadavg) > 3 else ""
    uname = os.uname()
    return Facts(
        # as a kubelet: a label with capitals would not be what a volume's node affinity names
        hostname=socket.gethostname().strip().lower() or node_name,
        ips=(config.node_ip,) if config.node_ip else _addresses(),
        cpus=os.cpu_count() or 1,
        memory_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", 0),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        disk_available_bytes=disk.f_bavail * disk.f_frsize,
        inodes=disk.f_files,
        inodes_free=disk.f_favail,
        pid_max=int(pid_max) if pid_max.isdigit() else 0,
        pids=int(pids) if pids.isdigit() else 0,
        machine_id=_read("/etc/machine-id").strip(),
        # boards and some virtual machines have none
        system_uuid=(_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id")).strip(),
        boot_id=_read("/proc/sys/kernel/random/boot_id").strip(),
        kernel=uname.release,
        os_image=parse_os_release(_read("/etc/os-release")),
        arch=_ARCH.get(uname.machine, uname.machine),
        memory_limits=cgroups.limits_memory(),
        unified=cgroups.unified(),
        reserved_cpu_milli=config.system_reserved_cpu_milli,
        reserved_memory_bytes=config.system_reserved_memory_bytes,
        reserved_disk_bytes=reserved_disk(config, disk.f_blocks * disk.f_frsize),
    )


def reserved_disk(config: EdgedConfig, disk_bytes: int) -> int:
    """What of the disk pods are not promised: what its owner keeps back, and what must be left before pods are ended.  Pure.

    Source: kubelet, cm/node_container_manager_linux.go (GetNodeAllocatableAbsolute, hardEvictionReservation)."""
    share = config.evict.disk_percent if config.evict is not None else 0.0
    return config.system_reserved_disk_bytes + int(disk_bytes * share / 100.0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _addresses() -> tuple[str, ...]:
    """The addresses that packets to elsewhere would carry; nothing is sent.  Loopback when there is no route."""
    found = []
    # documentation prefixes, which every default route covers
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return tuple(found) or ("127.0.0.1",)
