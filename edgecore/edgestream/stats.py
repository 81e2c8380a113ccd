"""What a kubelet says of resources: stats/summary and the metrics endpoints, from the runtime's numbers and /proc.  Pure but
for `read_node`.

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

LEAST_S = 1.0
"""Readings closer together than this give no rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters of one container or of the node.  at: Unix seconds."""

    at: float
    cpu_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerReading(Reading):
    """id: the runtime's; the rest says whose it is."""

    id: str
    name: str
    namespace: str
    pod: str
    uid: str
    disk_bytes: int = 0
    log_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReading:
    """What one volume of a pod holds.  claim: (namespace, name) of the claim that it is."""

    name: str
    used_bytes: int
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
    return NodeReading(
        at=time.time(),
        cpu_ns=busy * (1_000_000_000 // os.sysconf("SC_CLK_TCK")),
        memory_bytes=total - memory.get(b"MemAvailable", total),
        capacity_bytes=total,
        boot_at=boot,
    )


def summary(
    node_name: str,
    node: NodeReading,
    containers: Sequence[ContainerReading],
    usage: Usage,
    disks: NodeDisks | None = None,
    held: Mapping[str, PodDisk] = MappingProxyType({}),
) -> dict[str, Any]:
    """stats/v1alpha1 Summary.  held: what pods hold on the disk, by UID.

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
                "memory": {"time": _time(c.at), "workingSetBytes": c.memory_bytes},
                "rootfs": _fs(c.at, known.images, c.disk_bytes),
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
            "workingSetBytes": sum(row["memory"]["workingSetBytes"] for row in rows),
        }
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
            "memory": {
                "time": _time(node.at),
                "workingSetBytes": node.memory_bytes,
                "availableBytes": node.capacity_bytes - node.memory_bytes,
            },
            **_node_disks(known),
        },
        "pods": list(pods.values()),
    }


def _node_disks(disks: NodeDisks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if disks.pods is not None:
        found["fs"] = _fs(disks.at, disks.pods, _used(disks.pods))
    if disks.images is not None:
        found["runtime"] = {"imageFs": _fs(disks.at, disks.images, _used(disks.images))}
    if disks.pids_max:
        found["rlimit"] = {"time": _time(disks.at), "maxpid": disks.pids_max, "curproc": disks.pids}
    return found


def _used(disk: Disk) -> int:
    return disk.bytes_total - disk.bytes_free


def _volume(disks: NodeDisks, volume: VolumeReading) -> dict[str, Any]:
    row = {**_fs(disks.at, volume.disk or disks.pods, volume.used_bytes), "name": volume.name}
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


def resource_metrics(node: NodeReading, containers: Sequence[ContainerReading]) -> str:
    """What metrics-server reads at /metrics/resource.  Source: kubelet, pkg/kubelet/metrics/collectors/resource_metrics.go."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, rows: list[tuple[str, float, float]]) -> None:
        lines.append(f"# HELP {name} [STABLE] {text}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(f"{name}{labels} {_number(value)} {int(at * 1000)}" for labels, value, at in rows)

    def labelled(c: ContainerReading) -> str:
        return f'{{container="{c.name}",namespace="{c.namespace}",pod="{c.pod}"}}'

    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        [(labelled(c), c.cpu_ns / 1e9, c.at) for c in containers],
    )
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        [(labelled(c), c.memory_bytes, c.at) for c in containers],
    )
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        [("", node.cpu_ns / 1e9, node.at)],
    )
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        [("", node.memory_bytes, node.at)],
    )
    pods: dict[tuple[str, str], list[ContainerReading]] = {}
    for c in containers:
        pods.setdefault((c.namespace, c.pod), []).append(c)

    def sums(value: str) -> list[tuple[str, float, float]]:
        return [
            (
                f'{{namespace="{namespace}",pod="{pod}"}}',
                sum(c.cpu_ns / 1e9 if value == "cpu" else c.memory_bytes for c in rows),
                max(c.at for c in rows),
            )
            for (namespace, pod), rows in pods.items()
        ]

    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        sums("cpu"),
    )
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", sums("memory"))
    lines.append(
        "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise"
    )
    lines.append("# TYPE resource_scrape_error gauge")
    lines.append("resource_scrape_error 0")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Whole, or with all its nanoseconds; never with an exponent that costs digits."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")


def _cpu(reading: Reading, nanocores: int) -> dict[str, Any]:
    return {
        "time": _time(reading.at),
        "usageNanoCores": nanocores,
        "usageCoreNanoSeconds": reading.cpu_ns,
    }


def _time(at: float) -> str:
    return clock.rfc3339(datetime.fromtimestamp(at, UTC))
