"""The cgroups of pods: what is written into them (pure), making them and removing the empty ones.  Blocking.

With cgroupfs the pod's cgroup is made before its sandbox, so that nothing in it ever runs without its limits; the runtime makes
those of containers inside.  systemd makes its slices itself, and they are given their values once they are there.

Source: kubelet, cm/pod_container_manager_linux.go, cm/helpers_linux.go, cm/qos_container_manager_linux.go.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from edgecore.edged import quantity
from edgecore.edged.pod import Pod
from edgecore.edged.resources import pod_limit, pod_requests, qos_class

ROOT = Path("/sys/fs/cgroup")
MIN_SHARES, MAX_SHARES = 2, 262144
PERIOD_US = 100_000
MIN_QUOTA_US = 1000
_CONTROLLERS = ("cpu", "memory", "pids")


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """What one cgroup is limited to; None means not limited, or left as it is."""

    shares: int | None = None
    quota_us: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None


def shares(milli_cpu: int) -> int:
    """cgroup v1 shares of a CPU request."""
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * 1024 // 1000))


def weight(cpu_shares: int) -> int:
    """The cgroup v2 weight (1 to 10000) of v1 shares (2 to 262144), as runtimes convert it."""
    return 1 + (cpu_shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)


def pod_values(pod: Pod, *, pids: int) -> Values:
    """pids: 0 or less means not limited."""
    cpu, memory = pod_limit(pod, "cpu"), pod_limit(pod, "memory")
    return Values(
        shares=shares(quantity.milli(pod_requests(pod).get("cpu", 0))),
        quota_us=max(MIN_QUOTA_US, quantity.milli(cpu) * PERIOD_US // 1000) if cpu else -1,
        memory_bytes=quantity.units(memory) if memory else -1,
        pids=pids if pids > 0 else -1,
    )


def class_values(pods: Iterable[Pod]) -> dict[str, Values]:
    """What the cgroups of the two lower classes share: burstable ones as much as they ask for, the others nothing."""
    burstable = sum(
        quantity.milli(pod_requests(p).get("cpu", 0)) for p in pods if qos_class(p) == "Burstable"
    )
    return {"burstable": Values(shares=shares(burstable)), "besteffort": Values(shares=MIN_SHARES)}


def files(v: Values) -> Mapping[str, str]:
    """Every file of both versions of cgroups; those that are not there are not written."""
    out = {}
    if v.shares is not None:
        out["cpu.shares"] = str(v.shares)
        out["cpu.weight"] = str(weight(v.shares))
    if v.quota_us is not None:
        out["cpu.cfs_period_us"] = str(PERIOD_US)
        out["cpu.cfs_quota_us"] = str(v.quota_us)
        out["cpu.max"] = f"{v.quota_us if v.quota_us > 0 else 'max'} {PERIOD_US}"
    if v.memory_bytes is not None:
        out["memory.limit_in_bytes"] = str(v.memory_bytes)
        out["memory.max"] = str(v.memory_bytes) if v.memory_bytes > 0 else "max"
    if v.pids is not None:
        out["pids.max"] = str(v.pids) if v.pids > 0 else "max"
    return out


def path_of(parent: str, driver: str) -> str:
    """Where a cgroup parent is below a hierarchy; systemd nests a slice in those that its name is made of."""
    if driver != "systemd":
        return parent.lstrip("/")
    parts = parent.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: i + 1]) + ".slice" for i in range(len(parts)))


# -- on this machine


def unified(root: Path = ROOT) -> bool:
    """Whether there is one hierarchy for everything (version 2)."""
    return (root / "cgroup.controllers").exists()


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Every mounted hierarchy: one on v2, one for each controller on v1."""
    if unified(root):
        return [root]
    try:
        return [p for p in root.iterdir() if p.is_dir() and not p.is_symlink()]
    except FileNotFoundError:
        return []


def limits_memory(root: Path = ROOT) -> bool:
    """Whether the kernel has its memory controller; True where that cannot be told."""
    try:
        return "memory" in (root / "cgroup.controllers").read_text().split()
    except OSError:
        found = {part for hierarchy in hierarchies(root) for part in hierarchy.name.split(",")}
        return not found & {"cpu", "pids"} or "memory" in found


def _useful(root: Path) -> Iterator[Path]:
    """The hierarchies with a controller that pods are limited by."""
    for hierarchy in hierarchies(root):
        if hierarchy == root or set(hierarchy.name.split(",")) & set(_CONTROLLERS):
            yield hierarchy


def apply(parent: str, driver: str, values: Values, root: Path = ROOT) -> None:
    """Make a cgroup (with cgroupfs) and write its values, where the controllers are there to take them."""
    if not parent:
        return
    path = path_of(parent, driver)
    for hierarchy in _useful(root):
        target = hierarchy / path
        if driver == "cgroupfs":
            _make(hierarchy, path)
        for name, value in files(values).items():
            # a controller that is not enabled, or a value that its neighbours do not allow yet
            with contextlib.suppress(OSError):
                _write(target / name, value)


def _write(path: Path, value: str) -> None:
    # without O_CREAT: what the kernel does not offer is not there
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _make(hierarchy: Path, path: str) -> None:
    at = hierarchy
    for part in path.split("/"):
        for controller in _CONTROLLERS:
            # v2 only: a controller reaches the children when the parent hands it down
            with contextlib.suppress(OSError):
                _write(at / "cgroup.subtree_control", f"+{controller}")
        at /= part
        with contextlib.suppress(FileExistsError):
            at.mkdir(mode=0o755)


def remove(parent: str, driver: str, root: Path = ROOT) -> None:
    """Remove a pod's cgroup if it is empty.  systemd removes its slices itself."""
    if not parent or driver != "cgroupfs":
        return
    for hierarchy in hierarchies(root):
        # not there in this hierarchy, or somebody still lives in it: the next clean-up sees it again
        with contextlib.suppress(OSError):
            (hierarchy / parent.lstrip("/")).rmdir()


def left_over(name: str, known: Iterable[str], root: Path = ROOT) -> list[Path]:
    """Pod cgroups below `name` whose UID is not among the known ones."""
    uids = set(known)
    return [
        pod
        for hierarchy in hierarchies(root)
        for parent in (hierarchy / name, hierarchy / name / "burstable", hierarchy / name / "besteffort")
        for pod in parent.glob("pod*")
        if pod.name.removeprefix("pod") not in uids
    ]


def remove_root(name: str, root: Path = ROOT) -> None:
    """Remove the empty cgroups of all pods and what they have in common, when edged is uninstalled."""
    for hierarchy in hierarchies(root):
        for parent in (hierarchy / name / "burstable", hierarchy / name / "besteffort", hierarchy / name):
            for pod in parent.glob("pod*"):
                with contextlib.suppress(OSError):
                    pod.rmdir()
            with contextlib.suppress(OSError):
                parent.rmdir()
