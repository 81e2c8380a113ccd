"""When this machine runs short: which conditions are on, and which pod goes first.  Pure.

Source: kubelet, eviction/helpers.go (rank functions, messages), eviction/eviction_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from edgecore.edged import quantity
from edgecore.edged.admission import critical
from edgecore.edged.pod import Pod
from edgecore.edged.resources import pod_limit, pod_requests
from edgecore.edged.status import Outcome

MI = 1024 * 1024


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """The kubelet's evictionHard on Linux; what is left when a condition turns on.  0 switches a signal off.

    transition_s: a condition stays on this long after its signal was last seen, so that it does not flap.
    """

    memory_bytes: int = 100 * MI
    disk_percent: float = 10.0
    inodes_percent: float = 5.0
    image_disk_percent: float = 15.0
    pids_percent: float = 10.0
    transition_s: float = 300.0


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What is there and what is left; totals of 0 mean unknown and never count as short."""

    memory_bytes: int = 0
    memory_free: int = 0
    disk_bytes: int = 0
    disk_free: int = 0
    inodes: int = 0
    inodes_free: int = 0
    image_disk_bytes: int = 0
    image_disk_free: int = 0
    pids: int = 0
    pids_free: int = 0


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """One signal below its threshold.  missing: how much must become free, in bytes or pieces."""

    condition: str
    resource: str
    threshold: str
    available: str
    missing: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one pod uses, in bytes.

    volumes: of each emptyDir on disk, and volume_inodes how many it holds; memory, logs, layers (what it wrote into its own
    file system): of each container.   node_files: what the node wrote for it.
    """

    memory: Mapping[str, int] = msgspec.field(default_factory=dict)
    volumes: Mapping[str, int] = msgspec.field(default_factory=dict)
    volume_inodes: Mapping[str, int] = msgspec.field(default_factory=dict)
    logs: Mapping[str, int] = msgspec.field(default_factory=dict)
    layers: Mapping[str, int] = msgspec.field(default_factory=dict)
    node_files: int = 0

    @property
    def memory_bytes(self) -> int:
        return sum(self.memory.values())

    @property
    def disk_bytes(self) -> int:
        parts = (self.volumes, self.logs, self.layers)
        return sum(sum(part.values()) for part in parts) + self.node_files

    def of_container(self, name: str, resource: str) -> int | None:
        """What one container uses of memory or ephemeral-storage; None when that is not known."""
        if resource == "memory":
            return self.memory.get(name)
        if name not in self.logs and name not in self.layers:
            return None
        return self.logs.get(name, 0) + self.layers.get(name, 0)


def shortages(s: Signals, t: Thresholds) -> list[Shortage]:
    """What this machine is short of, the most pressing first."""
    found = []
    if s.memory_bytes and s.memory_free < t.memory_bytes:
        found.append(_short("MemoryPressure", "memory", t.memory_bytes, s.memory_free))
    for resource, total, free, percent in (
        ("ephemeral-storage", s.disk_bytes, s.disk_free, t.disk_percent),
        ("inodes", s.inodes, s.inodes_free, t.inodes_percent),
        ("ephemeral-storage", s.image_disk_bytes, s.image_disk_free, t.image_disk_percent),
    ):
        least = int(total * percent / 100.0)
        if total and free < least:
            found.append(_short("DiskPressure", resource, least, free))
    least = int(s.pids * t.pids_percent / 100.0)
    if s.pids and s.pids_free < least:
        found.append(_short("PIDPressure", "pids", least, s.pids_free))
    return found


def _short(condition: str, resource: str, threshold: int, available: int) -> Shortage:
    if resource in ("inodes", "pids"):
        return Shortage(
            condition=condition,
            resource=resource,
            threshold=str(threshold),
            available=str(available),
            missing=threshold - available,
        )
    return Shortage(
        condition=condition,
        resource=resource,
        threshold=f"{threshold // 1024}Ki",
        available=f"{available // 1024}Ki",
        missing=threshold - available,
    )


def conditions(
    found: Iterable[Shortage], last_seen: Mapping[str, float], *, now: float, transition_s: float
) -> dict[str, float]:
    """Condition -> when its signal was last seen, for those that are on now."""
    on = {name: at for name, at in last_seen.items() if now - at < transition_s}
    on.update({s.condition: now for s in found})
    return on


def rank(pods: Mapping[str, tuple[Pod, Usage]], resource: str) -> list[str]:
    """UIDs of the pods that may be evicted, the first to go first; critical ones are not among them.

    Who uses more than it asked for goes before who does not, then by priority, then by how much more it uses.
    """

    def key(uid: str) -> tuple[bool, int, int]:
        pod, usage = pods[uid]
        name = "memory" if resource == "memory" else "ephemeral-storage"
        request = quantity.units(pod_requests(pod).get(name, 0))
        used = usage.memory_bytes if resource == "memory" else usage.disk_bytes
        over = used - request
        if resource == "pids":
            return (False, pod.spec.priority or 0, 0)
        return (over <= 0, pod.spec.priority or 0, -over)

    return sorted((uid for uid, (pod, _) in pods.items() if not critical(pod)), key=key)


def worth_ending(usage: Usage, shortage: Shortage) -> bool:
    """Whether ending a pod would help: unlike a kubelet, which ends one after the other on a disk that something else filled.

    On disk it must hold a tenth of what is missing.  How many inodes it holds is not known, so none is ended for them."""
    if shortage.resource == "inodes":
        return False
    if shortage.resource == "ephemeral-storage":
        return usage.disk_bytes > 0 and usage.disk_bytes * 10 >= shortage.missing
    return True


def evicted(pod: Pod, usage: Usage, shortage: Shortage) -> Outcome:
    """What is said of a pod that goes because the machine is short."""
    message = (
        f"The node was low on resource: {shortage.resource}. "
        f"Threshold quantity: {shortage.threshold}, available: {shortage.available}. "
    )
    if shortage.resource in ("memory", "ephemeral-storage"):
        for c in pod.all_containers():
            request = c.resources.requests.get(shortage.resource, 0)
            used = usage.of_container(c.name, shortage.resource)
            if used is not None and used > quantity.units(quantity.parse(request)):
                message += (
                    f"Container {c.name} was using {quantity.show_bytes(used)}, request is "
                    f"{quantity.show(request)}, has larger consumption of {shortage.resource}. "
                )
    return Outcome(phase="Failed", reason="Evicted", message=message)


def limited(pod: Pod) -> bool:
    """Whether a pod says how much disk it may use: only then must its disk be measured at every round."""
    if any(v.empty_dir is not None and v.empty_dir.size_limit is not None for v in pod.spec.volumes):
        return True
    return any("ephemeral-storage" in c.resources.limits for c in pod.all_containers())


class _Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of the disk that a pod may use, and what is said when it is passed."""

    most: int
    used: int
    message: str


def _limits(pod: Pod, usage: Usage) -> list[_Limit]:
    """In the order in which a kubelet looks at them."""
    found = []
    for v in pod.spec.volumes:
        if v.empty_dir is None or v.empty_dir.size_limit is None or v.empty_dir.medium == "Memory":
            continue
        size = v.empty_dir.size_limit
        text = f'Usage of EmptyDir volume "{v.name}" exceeds the limit "{quantity.show(size)}". '
        found.append(
            _Limit(most=quantity.units(quantity.parse(size)), used=usage.volumes.get(v.name, 0), message=text)
        )
    whole = pod_limit(pod, "ephemeral-storage")
    if whole:
        first = pod.spec.containers[0].resources.limits["ephemeral-storage"]
        text = quantity.show(quantity.text(whole), like=first)
        text = f"Pod ephemeral local storage usage exceeds the total limit of containers {text}. "
        found.append(_Limit(most=quantity.units(whole), used=usage.disk_bytes, message=text))
    for c in pod.all_containers():
        limit = c.resources.limits.get("ephemeral-storage", 0)
        text = f'Container {c.name} exceeded its local ephemeral storage limit "{quantity.show(limit)}". '
        found.append(
            _Limit(
                most=quantity.units(quantity.parse(limit)),
                used=usage.of_container(c.name, "ephemeral-storage") or 0,
                message=text,
            )
        )
    return [limit for limit in found if limit.most]


def left(pod: Pod, usage: Usage) -> int | None:
    """Bytes to the nearest limit; None for a pod without one."""
    return min((limit.most - limit.used for limit in _limits(pod, usage)), default=None)


def over_limits(pod: Pod, usage: Usage) -> Outcome | None:
    """Why a pod goes that uses more disk than it said."""
    for limit in _limits(pod, usage):
        if limit.used > limit.most:
            return Outcome(phase="Failed", reason="Evicted", message=limit.message)
    return None
