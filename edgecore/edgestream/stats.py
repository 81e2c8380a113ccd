"""What a kubelet says of resources at stats/summary, from the runtime's numbers and /proc.  Pure but for `read_node`.

Rates need two readings; `Usage` keeps the last one of each container, as the kubelet does between its readings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from beehive import clock
from edgecore.edged.imagegc import Disk
from edgecore.edged.runtime import InterfaceUsage, MemoryDetail

NOT_COUNTED = MemoryDetail()

LEAST_S = 1.0
"""Readings closer together than this give no rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters of one container or of the node.  at: Unix seconds."""

    at: float
    cpu_ns: int
    memory_bytes: int
    memory: MemoryDetail = NOT_COUNTED


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerReading(Reading):
    """id: the runtime's; memory_limit_bytes: 0 without one; started_at: Unix seconds, 0 while that is not known."""

    id: str
    name: str
    namespace: str
    pod: str
    uid: str
    image: str = ""
    started_at: float = 0.0
    memory_limit_bytes: int = 0
    disk_bytes: int = 0
    inodes: int = 0
    log_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReading:
    """What is counted of a pod and not of its containers.  id: its sandbox's; interfaces: the default one first."""

    at: float
    id: str
    namespace: str
    pod: str
    uid: str
    interfaces: Sequence[InterfaceUsage] = ()
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReading:
    """What one volume of a pod holds.  claim: (namespace, name) of the claim that it is."""

    name: str
    used_bytes: int
    inodes: int | None = None
    disk: Disk | None = None
    claim: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDisk:
    """What a pod holds on the disk.  used_bytes: logs, layers, emptyDirs and what the node wrote for it, all together."""

    used_bytes: int
    volumes: Sequence[VolumeReading] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDisks:
    """The disks that pods (and their logs) and images are on; None while that is not known.  at: Unix seconds."""

    at: float
    pods: Disk | None = None
    images: Disk | None = None
    pids: int = 0
    pids_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading(Reading):
    """memory_bytes: what cannot be had back; capacity: all there is."""

    capacity_bytes: int
    boot_at: float
    interfaces: Sequence[InterfaceUsage] = ()


@dataclass(slots=True)
class Usage:
    """CPU rates from counters."""

    _last: dict[str, tuple[Reading, int]] = field(default_factory=dict)

    def nanocores(self, key: str, reading: Reading) -> int:
        """Cores used since the last reading, in billionths; as before when that is too short ago, 0 at first."""
        before = self._last.get(key)
        if before is None:
            self._last[key] = (reading, 0)
            return 0
        last, rate = before
        passed = reading.at - last.at
        if passed < LEAST_S:
            return rate
        rate = max(0, int((reading.cpu_ns - last.cpu_ns) / passed))
        self._last[key] = (reading, rate)
        return rate

    def forget_all_but(self, keys: set[str]) -> None:
        """Drop what is gone."""
        for key in self._last.keys() - keys:
            del self._last[key]


def read_node() -> NodeReading:
    """The machine's counters from /proc."""
    with open("/proc/stat", "rb") as file:
        lines = file.read().splitlines()
    ticks = [int(value) for value in lines[0].split()[1:]]
    # all but idle and iowait; guest time is within user time already
    busy = sum(ticks[:8]) - ticks[3] - ticks[4]
    boot = next((float(line.split()[1]) for line in lines if line.startswith(b"btime ")), 0.0)
    memory: dict[bytes, int] = {}
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            memory[name] = int(value.split()[0]) * 1024
    total = memory[b"MemTotal"]
    faults = {b"pgfault": 0, b"pgmajfault": 0}
    with open("/proc/vmstat", "rb") as file:
        for line in file:
            name, _, value = line.partition(b" ")
            if name in faults:
                faults[name] = int(value)
    return NodeReading(
        at=time.time(),
        cpu_ns=busy * (1_000_000_000 // os.sysconf("SC_CLK_TCK")),
        memory_bytes=total - memory.get(b"MemAvailable", total),
        memory=MemoryDetail(
            usage_bytes=total - memory.get(b"MemFree", total),
            rss_bytes=memory.get(b"AnonPages", 0),
            page_faults=faults[b"pgfault"],
            major_page_faults=faults[b"pgmajfault"],
        ),
        capacity_bytes=total,
        boot_at=boot,
        interfaces=_interfaces(),
    )


def _interfaces() -> list[InterfaceUsage]:
    """The machine's, the one with the default route first; without the loopback and those that containers hang on."""
    default = ""
    with open("/proc/net/route", "rb") as file:
        for line in file.readlines()[1:]:
            name, destination, *_ = line.split()
            if destination == b"00000000":
                default = name.decode("utf-8", "replace")
                break
    found = []
    with open("/proc/net/dev", "rb") as file:
        for line in file.readlines()[2:]:
            name, _, rest = line.partition(b":")
            counts = [int(count) for count in rest.split()]
            shown = name.strip().decode("utf-8", "replace")
            if not shown.startswith(("lo", "veth")):
                found.append(
                    InterfaceUsage(
                        name=shown,
                        rx_bytes=counts[0],
                        rx_errors=counts[2],
                        tx_bytes=counts[8],
                        tx_errors=counts[10],
                    )
                )
    return sorted(found, key=lambda interface: interface.name != default)


def summary(
    node_name: str,
    node: NodeReading,
    containers: Sequence[ContainerReading],
    usage: Usage,
    disks: NodeDisks | None = None,
    held: Mapping[str, PodDisk] = MappingProxyType({}),
    sandboxes: Sequence[PodReading] = (),
) -> dict[str, Any]:
    """stats/v1alpha1 Summary.  held: what pods hold on the disk, by UID; sandboxes: network and processes of pods.

    Source: k8s.io/kubelet, pkg/apis/stats/v1alpha1/types.go.
    """
    known = disks or NodeDisks(at=node.at)
    usage.forget_all_but({"", *(c.id for c in containers)})
    pods: dict[str, dict[str, Any]] = {}
    for c in containers:
        pod = pods.setdefault(
            c.uid,
            {"podRef": {"name": c.pod, "namespace": c.namespace, "uid": c.uid}, "containers": []},
        )
        pod["containers"].append(
            {
                "name": c.name,
                "cpu": _cpu(c, usage.nanocores(c.id, c)),
                "memory": _memory(c, c.memory_limit_bytes),
                "rootfs": {**_fs(c.at, known.images, c.disk_bytes), "inodesUsed": c.inodes},
                **({"logs": _fs(c.at, known.pods, c.log_bytes)} if c.log_bytes is not None else {}),
            }
        )
    for pod in pods.values():
        rows = pod["containers"]
        newest = max(row["cpu"]["time"] for row in rows)
        pod["cpu"] = {
            "time": newest,
            "usageNanoCores": sum(row["cpu"]["usageNanoCores"] for row in rows),
            "usageCoreNanoSeconds": sum(row["cpu"]["usageCoreNanoSeconds"] for row in rows),
        }
        pod["memory"] = {
            "time": newest,
            **{
                name: sum(row["memory"][name] for row in rows)
                for name in ("usageBytes", "workingSetBytes", "rssBytes", "pageFaults", "majorPageFaults")
            },
        }
    for sandbox in sandboxes:
        if sandbox.uid in pods:
            pods[sandbox.uid] |= _sandbox(sandbox)
    for uid, pod in pods.items():
        holds = held.get(uid)
        if holds is not None:
            pod["ephemeral-storage"] = _fs(known.at, known.pods, holds.used_bytes)
            pod["volume"] = [_volume(known, v) for v in holds.volumes]
    return {
        "node": {
            "nodeName": node_name,
            "startTime": _time(node.boot_at),
            "cpu": _cpu(node, usage.nanocores("", node)),
            "memory": _memory(node, node.capacity_bytes),
            **({"network": _network(node.at, node.interfaces)} if node.interfaces else {}),
            **_node_disks(known),
        },
        "pods": list(pods.values()),
    }


def _memory(reading: Reading, limit_bytes: int) -> dict[str, Any]:
    """MemoryStats.  limit_bytes: 0 where there is none; then nothing is said of what is left."""
    row: dict[str, Any] = {"time": _time(reading.at)}
    if limit_bytes:
        row["availableBytes"] = max(0, limit_bytes - reading.memory_bytes)
    return row | {
        "usageBytes": reading.memory.usage_bytes,
        "workingSetBytes": reading.memory_bytes,
        "rssBytes": reading.memory.rss_bytes,
        "pageFaults": reading.memory.page_faults,
        "majorPageFaults": reading.memory.major_page_faults,
    }


def _sandbox(sandbox: PodReading) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sandbox.interfaces:
        found["network"] = _network(sandbox.at, sandbox.interfaces)
    if sandbox.processes:
        found["process_stats"] = {"process_count": sandbox.processes}
    return found


def _network(at: float, interfaces: Sequence[InterfaceUsage]) -> dict[str, Any]:
    """NetworkStats: the first one's by themselves, then all.  interfaces: at least one."""
    rows = [
        {
            "name": i.name,
            "rxBytes": i.rx_bytes,
            "rxErrors": i.rx_errors,
            "txBytes": i.tx_bytes,
            "txErrors": i.tx_errors,
        }
        for i in interfaces
    ]
    return {"time": _time(at), **rows[0], "interfaces": rows}


def _node_disks(disks: NodeDisks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if disks.pods is not None:
        found["fs"] = _whole(disks.at, disks.pods)
    if disks.images is not None:
        found["runtime"] = {"imageFs": _whole(disks.at, disks.images)}
    if disks.pids_max:
        found["rlimit"] = {"time": _time(disks.at), "maxpid": disks.pids_max, "curproc": disks.pids}
    return found


def _whole(at: float, disk: Disk) -> dict[str, Any]:
    """FsStats of a file system as such."""
    row = _fs(at, disk, disk.bytes_total - disk.bytes_free)
    if disk.inodes:
        row["inodesUsed"] = disk.inodes - disk.inodes_free
    return row


def _volume(disks: NodeDisks, volume: VolumeReading) -> dict[str, Any]:
    row = {**_fs(disks.at, volume.disk or disks.pods, volume.used_bytes), "name": volume.name}
    if volume.inodes is not None:
        row["inodesUsed"] = volume.inodes
    if volume.claim is not None:
        row["pvcRef"] = {"namespace": volume.claim[0], "name": volume.claim[1]}
    return row


def _fs(at: float, disk: Disk | None, used_bytes: int) -> dict[str, Any]:
    """FsStats; without what is not known."""
    row: dict[str, Any] = {"time": _time(at)}
    if disk is not None:
        row |= {"availableBytes": disk.bytes_free, "capacityBytes": disk.bytes_total}
    row["usedBytes"] = used_bytes
    if disk is not None and disk.inodes:
        row |= {"inodesFree": disk.inodes_free, "inodes": disk.inodes}
    return row


def _cpu(reading: Reading, nanocores: int) -> dict[str, Any]:
    return {
        "time": _time(reading.at),
        "usageNanoCores": nanocores,
        "usageCoreNanoSeconds": reading.cpu_ns,
    }


def _time(at: float) -> str:
    return clock.rfc3339(datetime.fromtimestamp(at, UTC))
