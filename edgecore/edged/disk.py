"""What pods hold on this machine's disk: logs, emptyDirs and what the node writes for them.

Counting walks folders, which wears and slows a board, so it is done seldom.  `due` (pure) says when: once a minute as in a
kubelet, sooner only when the disk has lost so much since then that a limit may have been passed, and never so often that
counting takes more than a small share of the time.  What containers write into their own layers the runtime counts.

Source: kubelet, server/stats/volume_stat_calculator.go, eviction/helpers.go (localEphemeralVolumeNames, podDiskUsage).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from edgecore.edged import evict, spec, tree, volumes
from edgecore.edged.config import EdgedConfig
from edgecore.edged.pod import Pod
from edgecore.edged.ports import Clock

log = logging.getLogger(__name__)

# The kubelet's volumeStatsAggPeriod.
REGULAR_S = 60.0
# However much is written: counting takes at most this share of the time, and is no more frequent than the looks themselves.
LEAST_S, SHARE = 5.0, 0.05


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One counting of a pod.  at, took_s: monotonic seconds; free: bytes that its disks had left; sizes: bytes by path;
    inodes: of its volumes, by path."""

    at: float
    took_s: float = 0.0
    free: int = 0
    sizes: Mapping[str, int] = msgspec.field(default_factory=dict)
    inodes: Mapping[str, int] = msgspec.field(default_factory=dict)


def due(last: Counted | None, *, now: float, free: int, left: int | None) -> bool:
    """Whether a pod must be counted again.  left: bytes to the nearest of its limits as last counted, None without one."""
    if last is None:
        return True
    age = now - last.at
    if age < max(LEAST_S, last.took_s / SHARE):
        return False
    return age >= REGULAR_S or (left is not None and last.free - free > max(0, left) // 2)


def paths_of(config: EdgedConfig, pod: Pod) -> dict[str, str]:
    """What of a pod is counted: key -> path.  Keys: volume/<name>, log/<container>, containers, etc-hosts."""
    paths = {
        f"volume/{v.name}": str(volumes.volume_dir(config.root_dir, pod.uid, v))
        for v in pod.spec.volumes
        if v.empty_dir is not None and v.empty_dir.medium != "Memory"
    }
    logs = spec.pod_log_dir(config, pod)
    paths |= {f"log/{c.name}": f"{logs}/{c.name}" for c in pod.every_container()}
    own = config.root_dir / pod.uid
    return paths | {"containers": str(own / "containers"), "etc-hosts": str(own / "etc-hosts")}


def usage_of(
    config: EdgedConfig,
    pod: Pod,
    sizes: Mapping[str, int],
    memory: Mapping[tuple[str, str], int],
    layers: Mapping[tuple[str, str], int],
    inodes: Mapping[str, int] = MappingProxyType({}),
) -> evict.Usage:
    """One pod's usage.  sizes: bytes by path; inodes: how many by path; memory and layers: by (UID, container)."""
    paths = paths_of(config, pod)
    by_key = {key: sizes.get(path, 0) for key, path in paths.items()}
    return evict.Usage(
        memory={name: value for (uid, name), value in memory.items() if uid == pod.uid},
        volumes={k.removeprefix("volume/"): v for k, v in by_key.items() if k.startswith("volume/")},
        volume_inodes={
            key.removeprefix("volume/"): inodes[path] for key, path in paths.items() if path in inodes
        },
        logs={c.name: by_key.get(f"log/{c.name}", 0) for c in pod.every_container()},
        layers={name: value for (uid, name), value in layers.items() if uid == pod.uid},
        node_files=by_key["containers"] + by_key["etc-hosts"],
    )


class Disks:
    """What was counted, and counting again what is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counted: dict[str, Counted] = {}
        self._lock = asyncio.Lock()

    def sizes(self, uid: str) -> Mapping[str, int]:
        """Bytes by path as last counted; empty when it never was."""
        counted = self._counted.get(uid)
        return counted.sizes if counted is not None else {}

    def inodes(self, uid: str) -> Mapping[str, int]:
        """Of volumes by path, as last counted."""
        counted = self._counted.get(uid)
        return counted.inodes if counted is not None else {}

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop what was counted of pods that are gone."""
        for uid in self._counted.keys() - uids:
            del self._counted[uid]

    async def count(
        self, pods: Sequence[tuple[EdgedConfig, Pod]], left: Callable[[Pod], int | None] = lambda _: None
    ) -> None:
        """Count those that are due, one after the other.  left: see `due`.  What cannot be counted stays as it was."""
        async with self._lock:
            for config, pod in pods:
                try:
                    free = await asyncio.to_thread(_free, (config.root_dir, config.log_dir))
                    began = self._clock.monotonic()
                    if not due(self._counted.get(pod.uid), now=began, free=free, left=left(pod)):
                        continue
                    paths = paths_of(config, pod)
                    sizes = await asyncio.to_thread(tree.usage, list(paths.values()))
                    # what was walked just now is in memory: this reads no disk
                    walked = [path for key, path in paths.items() if key.startswith("volume/")]
                    inodes = await asyncio.to_thread(tree.inodes, walked)
                except OSError as err:
                    # no memory to start `du` with, say: what is short of memory must be ended all the same
                    log.warning("Cannot measure what pods hold on the disk: %s", err)
                    return
                self._counted[pod.uid] = Counted(
                    at=began, took_s=self._clock.monotonic() - began, free=free, sizes=sizes, inodes=inodes
                )


def _free(folders: Iterable[Path]) -> int:
    """Bytes left on the file systems that folders are on, each counted once.  Blocking.  Raises OSError."""
    found = {}
    for folder in folders:
        at = folder
        while not at.exists():
            at = at.parent
        info = os.statvfs(at)
        found[os.stat(at).st_dev] = info.f_bavail * info.f_frsize
    return sum(found.values())
