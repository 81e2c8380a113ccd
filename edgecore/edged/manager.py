"""edged: a worker for every pod UID that should run here or does.

`Edged.run` is one part of edgecore.  It reads what is wanted (Objects) and what is there (the runtime's lists), starts a worker
for each pod UID, pokes those of which something changed, and gives a worker to pods that run and are wanted no more.  It judges
no pod itself.  When edged stops, pods keep running; the next one adopts them by UID.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from beehive.errors import SkerryError, Unavailable
from beehive.watchdog import Vital
from edgecore.edged import (
    admission,
    claims,
    csi,
    evict,
    imagegc,
    images,
    mirror,
    node,
    nodeevents,
    oomwatch,
    pleg,
    quantity,
    shutdown,
)
from edgecore.edged import status as statuses
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.ends import Ends
from edgecore.edged.errors import BadPod, CriError
from edgecore.edged.housekeeping import Housekeeper
from edgecore.edged.imagedisk import ImageDisk
from edgecore.edged.nodeside import NodeSide
from edgecore.edged.pod import Container, ObjectMeta, Pod, PodSpec, PodStatus
from edgecore.edged.podcontext import Shared
from edgecore.edged.podread import decode_key, decode_pod, decode_uid
from edgecore.edged.podreading import Listed
from edgecore.edged.ports import Clock, NoPlugins, NoStorage, Objects, Reports, State, SystemClock
from edgecore.edged.room import Room
from edgecore.edged.runtime import (
    ANNOTATION_POD,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    ContainerInfo,
    SandboxInfo,
)
from edgecore.edged.starts import Starts, parallel
from edgecore.edged.static import SOURCE, Found, StaticPods, Unreported
from edgecore.edged.worker import Worker
from edgecore.errors import Incomplete

if TYPE_CHECKING:
    from edgecore.edged.csiplugins import CsiPlugins
    from edgecore.edged.deviceplugins import DevicePlugins

log = logging.getLogger(__name__)

# A pod, folder or sandbox is believed to be wanted no more when this many readings in a row say so.
AGREEING_READINGS = 2
# Readings of the wanted list are this far apart at least when one of them says that something should go.
ABSENCE_S = 1.0
# How soon a pod whose worker met a bug gets another.
WORKER_RETRY_S = 30.0
# How long a look at the runtime or at what is wanted may take before the daemon is ended: a containerd that does not answer is
# given up after two times 20 s, a pass over what is wanted waits for the store only.
STANDS_S, TELL_S = 600.0, 60.0
# How often the folder of static pods is looked at, and what the API shows of them.
STATIC_S, MIRROR_S = 5.0, 10.0
# How long the first look at the runtime is waited for, so that pods need not look for themselves.
FIRST_LIST_S = 1.0


class RunningPod(msgspec.Struct, frozen=True, kw_only=True):
    """A line for the local command line."""

    namespace: str
    name: str
    uid: str
    phase: str
    ip: str
    ready: bool
    restarts: int
    containers: tuple[str, ...]
    status: PodStatus


class Devices(Protocol):
    """Hardware that is plugged in."""

    def device(self, namespace: str, name: str) -> claims.HostDevice | str: ...

    def plugged_in(self) -> Mapping[str, int]: ...


class Edged:
    """Runs the pods of one node."""

    def __init__(
        self,
        *,
        config: EdgedConfig,
        node_name: str,
        objects: Objects,
        reports: Reports,
        state: State,
        clock: Clock | None = None,
        cri: Cri | None = None,
        service_env: Mapping[str, str] | None = None,
        create_pod: mirror.CreatePod | None = None,
        devices: Devices | None = None,
    ) -> None:
        """cri: another runtime client than the one of config.runtime_endpoint; for tests.
        create_pod: makes the mirrors of static pods at the API; without it they are known on this machine only.
        service_env: what tells containers where the Kubernetes API is.  devices: what pods may claim."""
        self._devices = devices
        self._service_env = service_env or {}
        self._config = config
        self._node_name = node_name
        self._objects = objects
        self._reports = reports
        self._state = state
        self._clock: Clock = clock or SystemClock()
        self._cri = cri or Cri(config.runtime_endpoint, config.image_endpoint)
        self._own_cri = cri is None
        self._node = NodeSide(
            config, node_name, cri=self._cri, reports=reports, state=state, clock=self._clock
        )
        self.on_node_change: list[Callable[[], None]] = []
        """Told when the node's status is another one at once; must not block."""
        self._workers: dict[str, Worker] = {}
        self._raw: dict[str, bytes] = {}
        self._bad: dict[str, bytes] = {}
        # UIDs that had a worker and are wanted still
        self._spawned: set[str] = set()
        self._finished: set[str] = set()
        self._absent: dict[str, int] = {}
        self._strays: dict[str, int] = {}
        self._changed = asyncio.Event()
        # set once what is wanted was known and every pod of it had a worker
        self._compared = asyncio.Event()
        self._labels: dict[str, str] = {}
        self._listing = pleg.Listing()
        self._sandboxes: list[SandboxInfo] = []
        self._containers: list[ContainerInfo] = []
        self._listed = False
        self._looked = asyncio.Event()
        # the number of the look that is under way
        self._relisting: int | None = None
        self._comparing: int | None = None
        # lists in a row that the runtime gave
        self._listings = 0
        self._away = ""
        self._shared: Shared | None = None
        self._static: StaticPods | None = None
        if config.static_dir is not None:
            self._static = StaticPods(config.static_dir, node_name)
        self._static_uids: set[str] = set()
        self._static_found = Found()
        self._mirrors: Mapping[mirror.Key, mirror.Mirror] = {}
        self._mirroring = (
            mirror.Mirrors(objects, reports, create_pod, node_name) if create_pod is not None else None
        )
        # what belongs here is known for sure: then a mirror without a pod may go
        self._mirrors_known = False
        self._mirror_look = asyncio.Event()
        self._disk = ImageDisk()
        self._ends = Ends(config.ends_file)
        self._plugins: DevicePlugins | None = None
        self._csi: CsiPlugins | None = None
        if config.plugin_dir is not None:
            # only a node that listens to plugins pays for them: a quarter of a MiB
            from edgecore.edged.csiplugins import CsiPlugins
            from edgecore.edged.deviceplugins import DevicePlugins

            self._csi = CsiPlugins(config.plugin_dir, config.root_dir, objects, node_name)
            self._plugins = DevicePlugins(config.plugin_dir, state, self, self._clock.monotonic)
        self._room = Room(
            config,
            workers=self._workers.values,
            allocatable=self._allocatable,
            pressures=lambda: self.housekeeper.pressures,
            labels=lambda: self._labels,
            strict_groups=lambda: self._node.strict_groups,
        )
        self.housekeeper = Housekeeper(
            config=config,
            house=self,
            cri=self._cri,
            objects=objects,
            state=state,
            clock=self._clock,
            image_disk=self._disk,
            ends=self._ends,
        )

    # -- what others call

    def vitals(self) -> list[Vital]:
        """That pods are looked at, for the watchdog."""
        return [
            Vital(name="look at the runtime", pulse=lambda: self._relisting, limit_s=STANDS_S, tell_s=TELL_S),
            Vital(name="look at wanted pods", pulse=lambda: self._comparing, limit_s=STANDS_S, tell_s=TELL_S),
        ]

    async def run(self) -> None:
        """The part: never returns.  Cancelling it leaves every pod running."""
        self._shared = Shared(
            config=self._config,
            node_name=self._node_name,
            node=self._node,
            cri=self._cri,
            objects=self._objects,
            reports=self._reports,
            state=self._state,
            clock=self._clock,
            images=images.Images(
                self._cri,
                self._clock,
                parallel=self._config.max_parallel_pulls,
                watch=self._disk,
                min_free_percent=self._config.pull_min_free_percent,
                stall_s=self._config.pull_stall_s,
            ),
            permit=self._room.permit,
            short=self._room.short,
            hold_path=self._room.hold_path,
            rebooted=lambda: self._node.rebooted,
            starts=Starts(parallel(self._config.max_parallel_starts)),
            ends=self._ends,
            plugins=self._plugins or NoPlugins(),
            storage=self._csi or NoStorage(),
            service_env=self._service_env,
            find_device=self._find_device,
        )
        self._config.root_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config.log_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._ends.open)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relist_for_ever(), name="relist")
                static_before = await asyncio.to_thread(self._static.signature) if self._static else ()
                await self._node.started()
                # one look at everything is less than one for each pod; a runtime that hangs is not waited for
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_LIST_S):
                        await self._looked.wait()
                group.create_task(self._wanted_for_ever(group), name="wanted pods")
                group.create_task(self.housekeeper.run(), name="housekeeping")
                group.create_task(
                    oomwatch.watch(self._node.tell, self._clock.monotonic), name="programs out of memory"
                )
                if self._csi is not None:
                    group.create_task(self._csi.run(), name="storage plugins")
                if self._plugins is not None:
                    group.create_task(self._plugins.run(), name="device plugins")
                if self._static is not None:
                    group.create_task(self._watch_static(self._static, static_before), name="static pods")
                if self._mirroring is not None:
                    group.create_task(self._mirror_for_ever(self._mirroring), name="mirror pods")
        finally:
            self._workers.clear()
            if self._own_cri:
                self._cri.close()

    async def settled(self) -> None:
        """Wait until each pod that was wanted at the start has had its turn: it runs, or something holds it back."""
        await self._compared.wait()
        for worker in list(self._workers.values()):
            await worker.settled()

    def watch_hardware(self, devices: Devices) -> None:
        """What pods claim is found here from now on."""
        self._devices = devices

    def notify(self, kind: str, namespace: str, name: str) -> None:
        """Something changed: look again.  From the event loop's thread; does not block; many calls are one look."""
        if kind == "pod":
            self._changed.set()
            return
        for worker in self._workers.values():
            if worker.pod.namespace == namespace:
                worker.refresh(kind, name)

    def unhold(self, namespace: str, name: str) -> bool:
        """Let a pod that was sent with the hold annotation start; False when there is none that waits."""
        worker = self.find(namespace, name)
        if worker is None or not worker.held:
            return False
        worker.release()
        return True

    async def shut_down(self) -> None:
        """The machine goes down: end the pods, by priority.  Returns when none runs any more, or its time is over."""
        if not self._config.shutdown:
            return
        self._node.shutting_down = True
        for tell in self.on_node_change:
            tell()
        for group in shutdown.groups([w.pod for w in self._workers.values()], self._config.shutdown):
            workers = [w for p in group.pods if (w := self._workers.get(p.uid)) is not None]
            for worker in workers:
                worker.rest(group.seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(group.seconds):
                    for worker in workers:
                        await worker.until_rested()
        left = [f"{w.pod.namespace}/{w.pod.name}" for w in self._workers.values() if not w.rested]
        if left:
            log.warning("The machine goes down and these did not end in time: %s", ", ".join(left)[:256])

    def _find_device(self, namespace: str, name: str) -> claims.HostDevice | str:
        find = self._devices.device if self._devices is not None else claims.none
        return find(namespace, name)

    async def running_pods(self) -> list[RunningPod]:
        """The pods that have a worker, as last reported; for the local command line."""
        return [_line(worker) for worker in self._workers.values()]

    def worker(self, uid: str) -> Worker | None:
        """The judge of a pod, for those who serve its logs and streams."""
        return self._workers.get(uid)

    def find(self, namespace: str, name: str) -> Worker | None:
        """The newest pod of that name."""
        found = [w for w in self._workers.values() if (w.pod.namespace, w.pod.name) == (namespace, name)]
        return next((w for w in found if not w.pod.deleting), found[0] if found else None)

    async def node_status(self) -> bytes:
        """NodeStatus as JSON, now.  A runtime that is away makes Ready False; nothing is raised."""
        return msgspec.json.encode(await self._status())

    async def node_object(self) -> bytes:
        """The whole Node as JSON, to register it."""
        places = csi.topology_labels(self._csi.nodes) if self._csi is not None else {}
        return msgspec.json.encode(self._node.object(await self._status(), places))

    def storage_drivers(self) -> list[dict[str, object]]:
        """spec.drivers of this node's CSINode."""
        return csi.node_drivers(self._csi.nodes) if self._csi is not None else []

    def on_storage(self, told: Callable[[], None]) -> None:
        """Call `told` whenever `storage_drivers` or the Node's labels by them are others."""
        if self._csi is not None:
            self._csi.changed.append(told)

    async def _status(self) -> dict[str, Any]:
        return await self._node.status(
            pressures=self.housekeeper.pressures,
            plugins=self._plugins.counts() if self._plugins is not None else {},
            extended=claims.capacity(self._devices.plugged_in()) if self._devices is not None else {},
        )

    # -- what runs

    async def _relist_for_ever(self) -> None:
        for look in itertools.count():
            self._relisting = look
            try:
                sandboxes = await self._cri.list_sandboxes()
                containers = await self._cri.list_containers()
            except CriError as err:
                self._runtime_away(str(err))
            else:
                self._runtime_back()
                self._take_listing(sandboxes, containers)
            self._relisting = None
            self._looked.set()
            await asyncio.sleep(self._config.relist_s)

    def _runtime_away(self, text: str) -> None:
        if not self._away:
            log.warning("Container runtime is away: %s", text[:256])
        self._away = text
        self._listings = 0

    def _runtime_back(self) -> None:
        if self._away:
            log.info("Container runtime is back")
            for worker in self._workers.values():
                worker.poke()
        self._away = ""

    def _take_listing(self, sandboxes: list[SandboxInfo], containers: list[ContainerInfo]) -> None:
        new = pleg.listing(sandboxes, containers)
        for uid in pleg.changed(self._listing, new):
            worker = self._workers.get(uid)
            # what it did itself is no news to it
            if worker is not None and pleg.states(worker.runtime) != new.pods.get(uid, {}):
                worker.poke()
        self._listing, self._sandboxes, self._containers = new, sandboxes, containers
        self._listings += 1
        if not self._listed or any(uid not in self._workers for uid in new.pods):
            # somebody runs whom nobody wanted yet, or wants no more
            self._listed = True
            self._changed.set()

    # -- what is wanted

    async def _wanted_for_ever(self, group: asyncio.TaskGroup) -> None:
        trouble = ""
        for look in itertools.count():
            self._comparing = look
            self._changed.clear()
            wait = self._config.resync_s
            try:
                if await self._compare(group, await self._wanted_pods()):
                    wait = ABSENCE_S
                trouble = ""
                self._compared.set()
            except Incomplete as err:
                # what is known runs; from what is not known nothing follows
                if str(err) != trouble:
                    log.info("Not all pods that are wanted are known: %s", err)
                trouble = str(err)
                wait = ABSENCE_S
                for raw in err.known:
                    await self._want(group, bytes(raw))
                self._compared.set()
            except Unavailable as err:
                if str(err) != trouble:
                    log.warning("Cannot read which pods are wanted: %s", err)
                trouble = str(err)
                wait = ABSENCE_S
            self._comparing = None
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                if wait == self._config.resync_s:
                    for worker in self._workers.values():
                        worker.poke()
            else:
                # an absence needs readings that are apart in time; news does not wait
                if self._absent or self._strays:
                    left = 0.1 - (self._clock.monotonic() - began)
                    if left > 0:
                        await asyncio.sleep(left)

    async def _wanted_pods(self) -> list[msgspec.Raw]:
        """What the cloud wants here and what this machine's owner put into the folder.  Raises Unavailable, Incomplete."""
        own: list[msgspec.Raw] = []
        found = self._static_found
        if self._static is not None:
            found = self._static_found = await asyncio.to_thread(self._static.read)
            own = [msgspec.Raw(raw) for raw in found.pods]
            self._static_uids = {decode_key(raw).uid for raw in own}
        self._mirrors_known = False
        self._labels = await self._own_labels()
        try:
            pods, self._mirrors = mirror.split(await self._objects.pods())
        except Incomplete as err:
            known, self._mirrors = mirror.split(msgspec.Raw(raw) for raw in err.known)
            raise Incomplete(str(err), [*known, *own]) from err
        except Unavailable as err:
            if self._static is None:
                raise
            raise Incomplete(str(err), own) from err
        finally:
            self._mirror_look.set()
        self._mirrors_known = True
        if found.trouble:
            raise Incomplete(found.trouble, [*pods, *own])
        return [*pods, *own]

    async def _own_labels(self) -> dict[str, str]:
        """This node's, as the cloud has them; none while that is not known."""
        try:
            raw = await self._objects.get("node", "", self._node_name)
            return admission.labels_of(bytes(raw)) if raw is not None else {}
        except SkerryError:
            return {}

    async def _watch_static(self, static: StaticPods, before: object) -> None:
        """Notice that a file of the folder has changed.   before: its signature when it was not read yet."""
        while True:
            now = await asyncio.to_thread(static.signature)
            if now != before:
                self._changed.set()
            before = now
            await asyncio.sleep(STATIC_S)

    async def _mirror_for_ever(self, mirrors: mirror.Mirrors) -> None:
        """Show static pods at the API, for as long as they are in the folder."""
        while True:
            self._mirror_look.clear()
            sure = self._mirrors_known and not self._static_found.trouble
            now = self._clock.monotonic()
            await mirrors.step(self._static_found.pods, self._mirrors, sure=sure, now=now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MIRROR_S):
                    await self._mirror_look.wait()

    async def _compare(self, group: asyncio.TaskGroup, wanted: list[msgspec.Raw]) -> bool:
        """Bring the set of workers to what is wanted; True when an absence waits for its second reading."""
        seen = {await self._want(group, bytes(raw)) for raw in wanted}
        self._finished &= seen
        self._spawned &= seen | self._workers.keys()
        for uid in [u for u in self._bad if u not in seen]:
            del self._bad[uid]
        if "" in seen:
            # one is wanted of which nobody can say who it is: it may be any that runs
            return False
        return await self._absences(group, seen)

    async def _want(self, group: asyncio.TaskGroup, raw: bytes) -> str:
        """One wanted pod; its UID, or nothing when not even that can be read."""
        try:
            key = decode_key(raw)
        except BadPod as err:
            uid = decode_uid(raw)
            if self._bad.get(uid) != raw:
                log.error("A pod that is wanted here cannot be read: %s", str(err)[:256])
                self._bad[uid] = raw
            return uid
        uid = key.uid
        if self._raw.get(uid) == raw and uid in self._workers:
            return uid
        if uid in self._finished or self._bad.get(uid) == raw:
            return uid
        try:
            pod = decode_pod(raw)
        except BadPod as err:
            await self._refuse(key, raw, err)
            return uid
        worker = self._workers.get(uid)
        if worker is None and uid in self._static_uids:
            before = self.find(pod.namespace, pod.name)
            if before is not None and SOURCE in before.pod.metadata.annotations:
                # what its file said before has not ended yet: whoever ends looks at what is wanted again
                return uid
        self._raw[uid] = raw
        self._bad.pop(uid, None)
        if worker is not None:
            worker.update(pod, raw)
        else:
            self._spawn(group, pod, raw, absent=False)
        return uid

    async def _refuse(self, key: ObjectMeta, raw: bytes, err: BadPod) -> None:
        """A pod that cannot be run: say so on the pod; one that runs already goes on as it was."""
        log.warning("Pod %s/%s cannot be run: %s", key.namespace, key.name, str(err)[:256])
        if key.uid in self._workers:
            self._bad[key.uid] = raw
            return
        try:
            if key.deletion_timestamp:
                await self._reports.pod_gone(key.namespace, key.name, key.uid)
            else:
                status = statuses.failed_status(
                    key.generation, PodStatus(), err.reason, str(err)[:1024], self._clock.now()
                )
                encoded = msgspec.json.encode(status)
                await self._reports.pod_status(key.namespace, key.name, key.uid, encoded)
        except SkerryError as trouble:
            # a full disk, say: the next look at what is wanted tries again
            log.warning("Cannot report pod %s/%s: %s", key.namespace, key.name, str(trouble)[:256])
            return
        self._bad[key.uid] = raw

    async def _absences(self, group: asyncio.TaskGroup, seen: set[str]) -> bool:
        """Count the readings that miss a pod that runs; the second one in a row ends it."""
        missing = {uid for uid, w in self._workers.items() if uid not in seen and not w.machine.absent}
        strays = {uid for uid in self._listing.pods if uid not in self._workers and uid not in seen}
        self._absent = {uid: self._absent.get(uid, 0) + 1 for uid in missing}
        self._strays = {uid: self._strays.get(uid, 0) + 1 for uid in strays}
        for uid, readings in list(self._absent.items()):
            if readings >= AGREEING_READINGS:
                log.info("Pod %s is wanted no more", uid)
                self._workers[uid].gone()
                del self._absent[uid]
        for uid, readings in list(self._strays.items()):
            if readings >= AGREEING_READINGS:
                pod, raw = await self._stray(uid)
                if pod is not None:
                    log.info("Pod %s/%s (%s) runs and is not wanted", pod.namespace, pod.name, uid)
                    self._spawn(group, pod, raw, absent=True)
                del self._strays[uid]
        return bool(self._absent or self._strays)

    async def _stray(self, uid: str) -> tuple[Pod | None, bytes]:
        """A pod of which only the runtime knows, from what its sandbox says; None while that cannot be asked."""
        for sandbox in self._sandboxes:
            if sandbox.labels.get(LABEL_POD_UID) != uid:
                continue
            try:
                kept = (
                    (await self._cri.sandbox_status(sandbox.id)).annotations.get(ANNOTATION_POD, "").encode()
                )
                if kept:
                    return decode_pod(kept), kept
            except CriError as err:
                log.warning("Cannot ask for sandbox %s: %s", sandbox.id[:12], str(err)[:256])
                return None, b""
            except BadPod as err:
                log.warning("The pod kept on sandbox %s cannot be read: %s", sandbox.id[:12], str(err)[:256])
        found: list[SandboxInfo | ContainerInfo] = [*self._sandboxes, *self._containers]
        labels = next((dict(f.labels) for f in found if f.labels.get(LABEL_POD_UID) == uid), {})
        meta = ObjectMeta(
            name=labels.get(LABEL_POD_NAME, ""),
            namespace=labels.get(LABEL_POD_NAMESPACE, "default"),
            uid=uid,
        )
        try:
            # never trust a name with a path in it, wherever it comes from
            decode_key(msgspec.json.encode({"metadata": meta}))
        except BadPod as err:
            log.warning("A pod that runs and is not wanted cannot be ended: %s", str(err)[:256])
            return None, b""
        names = sorted({c.name for c in self._containers if c.uid == uid}) or ["unknown"]
        return Pod(metadata=meta, spec=PodSpec(containers=[Container(name=n) for n in names])), b"{}"

    def _spawn(self, group: asyncio.TaskGroup, pod: Pod, raw: bytes, *, absent: bool) -> None:
        assert self._shared is not None
        reports: Reports | None = None
        if pod.uid in self._static_uids:
            reports = self._mirroring or Unreported()
        # more than one list of the runtime lacks it: one may be empty by mistake
        unseen = self._listings >= AGREEING_READINGS and pod.uid not in self._listing.pods
        first = pod.uid not in self._spawned
        worker = Worker(
            self._shared,
            pod,
            raw,
            admit=self._room.admit,
            reports=reports,
            unseen=unseen and first,
            listed=self._listed_of(pod.uid) if first else None,
        )
        self._spawned.add(pod.uid)
        if self._node.shutting_down:
            # it comes at the next boot
            worker.rest(0)
        if absent:
            worker.gone()
        self._workers[pod.uid] = worker
        self._raw[pod.uid] = raw
        group.create_task(self._work(worker), name=f"pod {pod.namespace}/{pod.name}")

    def _listed_of(self, uid: str) -> Listed | None:
        """What the last look at the runtime has of a pod that had no worker; None where that is worth another look.

        A list may lack something by mistake; but of a machine that was just started nothing runs."""
        if not self._listed or self._away or not (uid in self._listing.pods or self._node.rebooted):
            return None
        return (
            [s for s in self._sandboxes if s.labels.get(LABEL_POD_UID) == uid],
            [c for c in self._containers if c.uid == uid],
        )

    async def _work(self, worker: Worker) -> None:
        uid = worker.pod.uid
        try:
            await worker.run()
        except Exception:
            # the boundary of a pod (P9): without it one that cannot be taken up would end all workers, at each start again
            log.exception("Pod %s/%s: its worker failed", worker.pod.namespace, worker.pod.name)
            await asyncio.sleep(WORKER_RETRY_S)
            self._workers.pop(uid, None)
            self._raw.pop(uid, None)
            self._changed.set()
            return
        # it stays in the wanted list until the API has deleted it: remember that it is done
        self._finished.add(uid)
        self._workers.pop(uid, None)
        self._raw.pop(uid, None)
        self._changed.set()

    # -- for the housekeeper

    @property
    def workers(self) -> Collection[Worker]:
        """Of the pods that run here or should."""
        return list(self._workers.values())

    @property
    def listed(self) -> Sequence[ContainerInfo] | None:
        """The runtime's containers as last listed; None while they are not known."""
        return self._containers if self._listed and not self._away else None

    @property
    def known(self) -> Collection[str]:
        """UIDs of which the runtime has something."""
        return self._listing.pods

    async def read_facts(self) -> node.Facts:
        """Look at the machine."""
        return await self._node.read()

    async def tell(self, told: nodeevents.Told) -> None:
        """An event of the node itself."""
        await self._node.tell(told)

    async def disk_usage(self) -> Mapping[str, evict.Usage]:
        """What every pod holds on the disk, by UID, as counted within the last minute or so."""
        return await self.housekeeper.disk_usage()

    async def image_disk(self) -> imagegc.Disk | None:
        """The disk that images are on; None while the runtime does not say."""
        try:
            return await self.housekeeper.image_disk()
        except CriError:
            return None

    # -- device plugins

    def pods_with_devices(self) -> Collection[Pod]:
        """Of which the pod resources socket tells."""
        return [w.pod for w in self._workers.values() if not w.ended]

    def may_hold_devices(self) -> Collection[str]:
        """UIDs of pods of which anything runs or may run; those of which only the runtime knows count too."""
        return {w.pod.uid for w in self._workers.values() if not w.ended} | {
            uid for uid in self._listing.pods if uid not in self._workers
        }

    def devices_changed(self) -> None:
        """Whoever waits for one looks again."""
        for worker in self._workers.values():
            worker.poke()

    def _allocatable(self) -> dict[str, int]:
        counts = self._plugins.counts() if self._plugins is not None else {}
        return {
            **self._node.allocatable,
            **{name: healthy * quantity.NANO for name, (_, healthy) in counts.items()},
        }


def _line(worker: Worker) -> RunningPod:
    status = worker.status
    ready = next((c.status for c in status.conditions if c.type == "Ready"), "False")
    return RunningPod(
        namespace=worker.pod.namespace,
        name=worker.pod.name,
        uid=worker.pod.uid,
        phase=status.phase,
        ip=status.pod_ip,
        ready=ready == "True",
        restarts=sum(s.restart_count for s in status.container_statuses),
        containers=tuple(s.name for s in status.container_statuses),
        status=status,
    )
