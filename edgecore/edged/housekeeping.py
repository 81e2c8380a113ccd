"""What edged does for the machine as a whole: log quotas, images, shortages of memory and disk, and what dead agents left.

The rules are in logs, imagegc and evict; here they are fed with readings and carried out.  Missing information ends a round
early: what cannot be read is never a reason to remove anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from beehive.errors import SkerryError, Unavailable
from edgecore.edged import (
    cgroups,
    disk,
    evict,
    imagedisk,
    imagegc,
    loglinks,
    loopback,
    nodeevents,
    record,
    spec,
    tree,
)
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.ends import Ends
from edgecore.edged.errors import BadPod, CriError
from edgecore.edged.logs import LogFile, Logs
from edgecore.edged.node import Facts
from edgecore.edged.pod import Pod
from edgecore.edged.podread import decode_key, decode_pod
from edgecore.edged.ports import Clock, Objects, State
from edgecore.edged.resources import qos_class
from edgecore.edged.runtime import ContainerInfo, Image
from edgecore.edged.worker import Worker

log = logging.getLogger(__name__)

# How often logs are looked at, and how soon again after one was over its size: a pod may write gigabytes a minute.
LOGS_S, BUSY_LOGS_S = 2.0, 1.0
# How often the machine is looked at; the kubelet's eviction manager has the same period.
MACHINE_S = 10.0
# How often images are looked at, and folders that belong to no pod.
IMAGES_S, SWEEP_S = 60.0, 300.0
# How often it is seen to that pods are kept away from the machine's loopback, as in a kubelet.
LOOPBACK_S = 60.0
# A hard shortage leaves pods no time to end.
EVICT_GRACE_S = 1


class House(Protocol):
    """What the housekeeper sees of edged."""

    @property
    def workers(self) -> Collection[Worker]: ...

    @property
    def listed(self) -> Sequence[ContainerInfo] | None:
        """The runtime's containers as last listed; None while they are not known."""
        ...

    @property
    def known(self) -> Collection[str]:
        """UIDs of which the runtime has something."""
        ...

    async def read_facts(self) -> Facts:
        """Look at the machine."""
        ...

    async def tell(self, told: nodeevents.Told) -> None:
        """An event of the node itself."""
        ...


class Housekeeper:
    """One part of edged.  `pressures`: the node conditions that are on."""

    def __init__(
        self,
        *,
        config: EdgedConfig,
        house: House,
        cri: Cri,
        objects: Objects,
        state: State,
        clock: Clock,
        image_disk: imagedisk.ImageDisk,
        ends: Ends,
    ) -> None:
        self._ends = ends
        self._config = config
        self._house = house
        self._cri = cri
        self._objects = objects
        self._state = state
        self._clock = clock
        self._disk = image_disk
        self._disks = disk.Disks(clock)
        self._memory: Mapping[tuple[str, str], int] = {}
        self._layers: Mapping[tuple[str, str], int] = {}
        self._logs = Logs(cri, config.log_dir, max_bytes=config.log_max_bytes, max_files=config.log_max_files)
        self._sandbox_image = ""
        self._seen_at: dict[str, float] = {}
        self._used_at: dict[str, float] = {}
        self._pressure: dict[str, float] = {}
        self._classes: dict[str, cgroups.Values] = {}
        self._suspects: set[str] = set()
        self._evicting: Worker | None = None

    @property
    def pressures(self) -> frozenset[str]:
        return frozenset(self._pressure)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rotate_for_ever(), name="logs")
            group.create_task(self._every(MACHINE_S, self.look), name="machine")
            group.create_task(self._every(IMAGES_S, self.images), name="images")
            group.create_task(self._every(SWEEP_S, self._sweep_twice), name="sweep")
            group.create_task(self._every(LOOPBACK_S, self.guard_loopback), name="loopback")
            group.create_task(self._every(SWEEP_S, self.tidy_loopback), name="rules")

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except (SkerryError, OSError) as err:
                log.warning("Housekeeping: %s", str(err)[:256])
            except Exception:
                # housekeeping that meets a bug must not take the pods' workers down with it (P9)
                log.exception("Housekeeping failed")

    # -- logs

    async def _rotate_for_ever(self) -> None:
        wait = LOGS_S
        while True:
            await asyncio.sleep(wait)
            try:
                wait = BUSY_LOGS_S if await self.rotate() else LOGS_S
            except Exception:
                log.exception("Rotating logs failed")

    async def rotate(self) -> bool:
        """One look at every running container's log; True when one was over its size."""
        files = [
            LogFile(
                container_id=c.id,
                folder=f"{spec.pod_log_dir(w.config, w.pod)}/{c.name}",
                current=f"{c.restart_count}.log",
            )
            for w in self._house.workers
            for c in w.runtime.running()
        ]
        return await self._logs.round(files, time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._clock.now())))

    # -- images

    async def images(self) -> None:
        """See which images pods lack; remove those that nothing needs when their disk is nearly full."""
        present = {name for image in await self._cri.list_images() for name in imagegc.names(image)}
        for worker in self._house.workers:
            worker.look_for_images(present)
        found = await self.image_disk()
        if found is None:
            return
        if not found.bytes_total:
            await self._house.tell(nodeevents.NO_IMAGE_DISK)
            return
        to_free = imagegc.bytes_to_free(found, self._config.image_gc)
        needed = await self._needed_images(watch_only=not to_free)
        if needed is None or not to_free:
            return
        freed = await self._remove_images(needed, to_free)
        if freed < to_free:
            log.warning(
                "Images' disk is %.0f %% full and only %d of %d bytes could be freed",
                found.used_percent,
                freed,
                to_free,
            )
            await self._house.tell(nodeevents.images_stay(to_free, freed))

    async def image_disk(self) -> imagegc.Disk | None:
        """The disk that images are on; None while it cannot be read.  Raises CriError."""
        if not self._disk.path:
            setup = await self._cri.setup()
            paths = await self._cri.image_paths()
            self._disk.root, self._sandbox_image = setup.root_dir, setup.sandbox_image
            self._disk.path = paths[0] if paths else ""
        return await asyncio.to_thread(self._disk.disk)

    async def _needed_images(self, *, watch_only: bool = False) -> set[str] | None:
        """References and ids of the images that must stay; None while that is not known for sure.

        watch_only: only note which are in use, for the order in which they would go one day.
        """
        now = self._clock.monotonic()
        listed = self._house.listed
        if listed is None:
            return None
        needed = {ref for c in listed for ref in (c.image, c.image_ref) if ref}
        for worker in self._house.workers:
            needed |= worker.image_refs()
        for ref in needed:
            self._used_at[ref] = now
        if watch_only:
            return needed
        if not self._sandbox_image:
            log.warning("Images are not removed: the runtime does not say which one its sandboxes need")
            return None
        try:
            wanted = [decode_pod(bytes(raw)) for raw in await self._objects.pods()]
        except Unavailable:
            return None
        except BadPod:
            # its images cannot be read; whatever it needs must not be guessed
            return None
        needed |= {ref for pod in wanted for ref in pod.image_references()}
        return {*needed, self._sandbox_image} - {""}

    async def _remove_images(self, needed: Collection[str], to_free: int) -> int:
        now = self._clock.monotonic()
        found = await self._cri.list_images()
        for image in found:
            self._seen_at.setdefault(image.id, now)
            uses = [self._used_at[n] for n in imagegc.names(image) if n in self._used_at]
            if uses:
                self._used_at[image.id] = max(uses)
        present = {image.id for image in found}
        self._seen_at = {i: at for i, at in self._seen_at.items() if i in present}
        chosen = imagegc.choose(
            found,
            needed=needed,
            seen_at=self._seen_at,
            used_at=self._used_at,
            to_free=to_free,
            min_age_s=self._config.image_gc.min_age_s,
            now=now,
        )
        freed = 0
        for image in chosen:
            freed += await self._remove_image(image)
        if len(self._used_at) > 4 * len(present) + 1000:
            self._used_at.clear()
        return freed

    async def _remove_image(self, image: Image) -> int:
        name = (*image.tags, *image.digests, image.id)[0]
        try:
            await self._cri.remove_image(image.id)
        except CriError as err:
            log.warning("Cannot remove image %s: %s", name, str(err)[:256])
            return 0
        log.info(
            "Removed image %s (%d bytes): nothing needs it and the disk is nearly full",
            name,
            image.size_bytes,
        )
        return image.size_bytes

    # -- shortages

    async def look(self) -> None:
        """One look at the machine: limits of pods, conditions, and at most one pod ended for a shortage."""
        facts = await self._house.read_facts()
        await self._share_cpu(facts)
        running = [w for w in self._house.workers if w.syncing]
        await self._limits([w for w in running if evict.limited(w.pod)])
        thresholds = self._config.evict
        if thresholds is None:
            return
        found = evict.shortages(await self._signals(facts), thresholds)
        if any(s.condition == "DiskPressure" for s in found) and await self._free_disk():
            found = evict.shortages(await self._signals(await self._house.read_facts()), thresholds)
        self._note(found, thresholds)
        if found:
            await self._house.tell(nodeevents.shortage(found[0].resource))
        if found and running:
            await self._end_one(running, found[0])

    def _note(self, found: Iterable[evict.Shortage], thresholds: evict.Thresholds) -> None:
        before = self.pressures
        now = self._clock.monotonic()
        self._pressure = evict.conditions(
            found, self._pressure, now=now, transition_s=thresholds.transition_s
        )
        for name in self.pressures - before:
            log.warning("This machine is short: %s", name)
        for name in before - self.pressures:
            log.info("This machine is not short any more: %s", name)

    async def _signals(self, facts: Facts) -> evict.Signals:
        try:
            images = await self.image_disk()
        except CriError:
            images = None
        return signals(facts, images)

    async def _free_disk(self) -> bool:
        """Free what costs nobody anything before a pod is ended; True when something was removed."""
        needed = await self._needed_images()
        if needed is None:
            return False
        found = await self.image_disk()
        if found is None:
            return False
        return await self._remove_images(needed, found.bytes_total) > 0

    async def _end_one(self, running: Sequence[Worker], shortage: evict.Shortage) -> None:
        if self._evicting is not None and not self._evicting.ended:
            # what it held is not free yet
            return
        # whatever was written since a pod was counted may be its own
        left = (lambda _: 0) if shortage.condition == "DiskPressure" else None
        usage = await self._usage(running, left)
        ranked = evict.rank(
            {
                w.pod.uid: (w.granted, usage[w.pod.uid])
                for w in running
                if evict.worth_ending(usage[w.pod.uid], shortage)
            },
            shortage.resource,
        )
        if not ranked:
            return
        victim = next(w for w in running if w.pod.uid == ranked[0])
        outcome = evict.evicted(victim.pod, usage[victim.pod.uid], shortage)
        log.warning("Ending pod %s/%s: %s", victim.pod.namespace, victim.pod.name, outcome.message)
        victim.evict(outcome, grace_s=EVICT_GRACE_S)
        self._evicting = victim

    async def _limits(self, workers: Sequence[Worker]) -> None:
        if not workers:
            return
        nearest = {w.pod.uid: evict.left(w.pod, self.last_usage(w)) for w in workers}
        usage = await self._usage(workers, lambda pod: nearest[pod.uid])
        for w in workers:
            outcome = evict.over_limits(w.pod, usage[w.pod.uid])
            if outcome is not None:
                log.warning("Ending pod %s/%s: %s", w.pod.namespace, w.pod.name, outcome.message)
                w.evict(outcome, grace_s=EVICT_GRACE_S)

    async def _usage(
        self, workers: Sequence[Worker], left: Callable[[Pod], int | None] | None
    ) -> dict[str, evict.Usage]:
        """What pods use now; what cannot be asked counts as nothing.

        left: bytes to a pod's nearest limit (`disk.due`); None: the disk is not looked at.
        """
        self._disks.forget_all_but({w.pod.uid for w in self._house.workers})
        if left is not None:
            await self._disks.count([(w.config, w.pod) for w in workers], left)
        await self._ask_runtime()
        return {w.pod.uid: self.last_usage(w) for w in workers}

    async def _ask_runtime(self) -> None:
        memory: dict[tuple[str, str], int] = {}
        layers: dict[tuple[str, str], int] = {}
        try:
            for u in await self._cri.list_usage():
                memory[u.uid, u.name] = memory.get((u.uid, u.name), 0) + u.memory_bytes
                layers[u.uid, u.name] = layers.get((u.uid, u.name), 0) + u.disk_bytes
        except CriError as err:
            log.warning("Cannot ask what pods use: %s", str(err)[:256])
        self._memory, self._layers = memory, layers

    def last_usage(self, w: Worker) -> evict.Usage:
        """What a pod used when that was last asked."""
        sizes, inodes = self._disks.sizes(w.pod.uid), self._disks.inodes(w.pod.uid)
        return disk.usage_of(w.config, w.pod, sizes, self._memory, self._layers, inodes)

    async def disk_usage(self) -> Mapping[str, evict.Usage]:
        """What every pod holds on the disk, by UID, as counted within the last minute or so."""
        return await self._usage(list(self._house.workers), lambda _: None)

    async def _share_cpu(self, facts: Facts) -> None:
        """Keep the cgroups that pods are in worth what the pods ask for, and all of them inside what is allocatable."""
        config = self._config
        if config.cgroup_driver != "cgroupfs" or not config.cgroup_root:
            return
        pods = [w.granted for w in self._house.workers if w.syncing]
        values = cgroups.class_values(pods) if pods else {}
        if pods:
            reserved = facts.reserved_memory_bytes
            values[""] = cgroups.Values(
                shares=cgroups.shares(max(0, facts.cpus * 1000 - facts.reserved_cpu_milli)),
                memory_bytes=facts.memory_bytes - reserved if 0 < reserved < facts.memory_bytes else None,
            )
        used = {"": True, **{q.lower(): True for q in map(qos_class, pods)}}
        for name, value in values.items():
            if name in used and self._classes.get(name) != value:
                parent = f"/{config.cgroup_root}/{name}".rstrip("/")
                await asyncio.to_thread(cgroups.apply, parent, config.cgroup_driver, value)
                if not name and name not in self._classes:
                    await self._house.tell(nodeevents.ENFORCED)
                self._classes[name] = value

    async def guard_loopback(self) -> None:
        """What was done as a pod with host ports was started, in case somebody else wrote the firewall anew."""
        mapped = [w for w in self._house.workers if w.syncing and w.pod.is_mapped()]
        await asyncio.to_thread(loopback.shut, [address for w in mapped for address in w.runtime.ips])

    async def tidy_loopback(self) -> None:
        """Rules about interfaces of pods that are gone."""
        await asyncio.to_thread(loopback.tidy)

    # -- what nobody knows

    async def _sweep_twice(self) -> None:
        """A sweep believes what two looks in a row say."""
        if self._config.log_links is not None:
            await asyncio.to_thread(loglinks.sweep, self._config.log_links, self._config.log_dir)
        await self.sweep()
        if self._suspects:
            await asyncio.sleep(MACHINE_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Remove folders and cgroups of pods that nobody knows, seen as such twice."""
        try:
            wanted = {decode_key(raw).uid for raw in await self._objects.pods()}
        except (Unavailable, BadPod):
            self._suspects = set()
            return
        if self._house.listed is None:
            self._suspects = set()
            return
        known = wanted | {w.pod.uid for w in self._house.workers} | set(self._house.known)
        found = await asyncio.to_thread(_strangers, self._config, known) | (self._ends.uids() - known)
        for uid in found & self._suspects:
            try:
                await asyncio.to_thread(_remove_stranger, self._config, uid)
                await self._state.drop(record.key(uid))
                await asyncio.to_thread(self._ends.forget, uid)
                log.info("Removed what was left of pod %s, which is nowhere any more", uid)
            except (OSError, SkerryError) as err:
                log.warning("Cannot remove what is left of pod %s: %s", uid, err)
        self._suspects = found - self._suspects


def signals(facts: Facts, images: imagegc.Disk | None) -> evict.Signals:
    """The readings that thresholds are held against."""
    found = evict.Signals(
        memory_bytes=facts.memory_bytes,
        memory_free=facts.memory_available_bytes,
        disk_bytes=facts.disk_bytes,
        disk_free=facts.disk_available_bytes,
        inodes=facts.inodes,
        inodes_free=facts.inodes_free,
        pids=facts.pid_max,
        pids_free=max(0, facts.pid_max - facts.pids),
    )
    if images is None:
        return found
    return replace(found, image_disk_bytes=images.bytes_total, image_disk_free=images.bytes_free)


def _strangers(config: EdgedConfig, known: Collection[str]) -> set[str]:
    """UIDs that have a folder, logs or a cgroup here and are not known."""
    found = {p.name for p in config.root_dir.iterdir()} if config.root_dir.is_dir() else set()
    if config.log_dir.is_dir():
        found |= {p.name.rpartition("_")[2] for p in config.log_dir.iterdir() if p.name.count("_") == 2}
    if config.cgroup_driver == "cgroupfs" and config.cgroup_root:
        left = cgroups.left_over(config.cgroup_root, known)
        found |= {p.name.removeprefix("pod") for p in left}
    return found - set(known)


def _remove_stranger(config: EdgedConfig, uid: str) -> None:
    tree.remove_tree(config.root_dir, uid)
    if config.log_dir.is_dir():
        for folder in list(config.log_dir.iterdir()):
            if folder.name.count("_") == 2 and folder.name.rpartition("_")[2] == uid:
                tree.remove_tree(config.log_dir, folder.name)
    if config.cgroup_driver == "cgroupfs" and config.cgroup_root:
        for parent in ("", "burstable/", "besteffort/"):
            cgroups.remove(f"/{config.cgroup_root}/{parent}pod{uid}", "cgroupfs")
