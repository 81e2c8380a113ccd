"""One pod, from its first sight to its last trace: the shell around podworker, plan, status and probes.

Theory of operation.  `run` loops: read the runtime, let the pure modules decide, perform, report, sleep until poked or until
something is due.  Every pass starts from a fresh reading, so a pass that was cut off is simply repeated.  What was alive in the
last reading and is missing from this one is believed only when a second reading agrees: an empty answer destroys nothing and
starts no second sandbox.  Each CRI call's effect is read back at once, so a start is reported without waiting for the relist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from beehive.errors import SkerryError
from edgecore.edged import (
    adopt,
    backoff,
    cgroups,
    claims,
    csi,
    env,
    images,
    loglinks,
    persistent,
    plan,
    prober,
    probes,
    record,
    resize,
    spec,
    tree,
    volumes,
)
from edgecore.edged import status as statuses
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.ends import Ends
from edgecore.edged.errors import CriError, Held, NotFound, VolumeError
from edgecore.edged.events import PodEvents
from edgecore.edged.pod import Container, Pod, PodStatus, Probe, Volume
from edgecore.edged.podworker import Life, PodWorker
from edgecore.edged.ports import Clock, NoPlugins, NoStorage, Objects, Plugins, Reports, State, Storage
from edgecore.edged.runtime import (
    ANNOTATION_DEVICES,
    ANNOTATION_RESOURCES,
    ContainerInfo,
    ContainerState,
    ContainerStatus,
    Dns,
    Image,
    Mount,
    PodRuntime,
    Resources,
    SandboxConfig,
    SandboxStatus,
)
from edgecore.edged.starts import Starts
from edgecore.edged.status import Outcome

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# A second reading is taken this soon after one that misses something.
DOUBT_S = 0.25
# After a pass that failed: first and longest wait.
RETRY_S, MAX_RETRY_S = 0.5, 30.0
# How soon a container held back by its configuration, its volumes or a failed create is tried again; a change of what
# it refers to pokes the worker at once.
HELD_RETRY_S = 5.0
# The kubelet's limits on a termination message.
MESSAGE_BYTES, MESSAGE_LOG_BYTES, MESSAGE_LOG_LINES = 4096, 2048, 80
# A preStop hook that used up the grace period still leaves the container this long.
MIN_STOP_S = 2
# How long a postStart hook may take; a kubelet has no limit, but a worker that waits for ever helps nobody.
POST_START_S = 600.0
TOKEN_REFRESH_SHARE = 0.8
FINAL = ("Succeeded", "Failed")


class NodeFacts(Protocol):
    """What a pod's environment and resources depend on of this machine."""

    @property
    def ips(self) -> tuple[str, ...]: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def allocatable(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all workers use."""

    config: EdgedConfig
    node_name: str
    node: NodeFacts
    cri: Cri
    objects: Objects
    reports: Reports
    state: State
    clock: Clock
    images: images.Images
    starts: Starts
    ends: Ends
    plugins: Plugins = field(default_factory=NoPlugins)
    storage: Storage = field(default_factory=NoStorage)
    admit: Callable[[Worker], Outcome | None] = lambda _: None
    permit: Callable[[Pod], Outcome | None] = lambda _: None
    permit_path: Callable[[Pod, str], str] = lambda _pod, _path: ""
    service_env: Mapping[str, str] = field(default_factory=dict)
    find_device: claims.Find = claims.none


class RuntimeClass(msgspec.Struct, frozen=True, kw_only=True):
    """node.k8s.io/v1, as far as it is used here."""

    handler: str


class Worker:
    """The only judge of one pod UID.  `run` returns when nothing of the pod is left; everything else is non-blocking."""

    def __init__(self, shared: Shared, pod: Pod, raw: bytes, *, reports: Reports | None = None) -> None:
        """reports: others than everybody's, for a pod that the cloud does not know."""
        self._s = shared
        # the shared one, but where an agent before us put things for a pod of its
        self.config = shared.config
        self._reports = reports or shared.reports
        self._raw = raw
        self.machine = PodWorker(pod)
        self._poked = asyncio.Event()
        self._ending = asyncio.Event()
        self._grace_cut = asyncio.Event()
        self._runtime = PodRuntime()
        self._status = PodStatus()
        self._delays: dict[str, backoff.Delay] = {}
        self._held: dict[str, tuple[str, str]] = {}
        self._waiting: Mapping[str, tuple[str, str]] = {}
        # container name -> id of the one whose end was told as one that waits
        self._backing_off: dict[str, str] = {}
        self._messages: dict[str, str] = {}
        self._exits: dict[str, float] = {}
        self._alive: set[str] = set()
        self._doubted: set[str] = set()
        self._doubted_at = 0.0
        self._container_cache: dict[tuple[str, ContainerState], ContainerStatus] = {}
        self._sandbox_cache: dict[tuple[str, bool], SandboxStatus] = {}
        self._probes: dict[tuple[str, probes.Kind], tuple[probes.ProbeState, asyncio.Task[None]]] = {}
        self._events = PodEvents(pod.metadata, shared.node_name)
        self._refresh = True
        self._refresh_at: float | None = None
        self._sources = volumes.Sources()
        self._failures = 0
        self._complaint = ""
        self._sandbox_error: str | None = None
        # image reference -> id of what was started for it
        self._started_images: dict[str, str] = {}
        self.admitted = False
        # container id -> what it was given since it was created
        self._resized: dict[str, resize.Applied] = {}
        self._resizing: frozenset[str] = frozenset()
        self._handler: str | None = None
        self._released = False
        self._started_mono: float | None = None
        # whether the store lacks the status in `_status`, and how the pod ended, if that is kept somewhere
        self._unsaved = False
        self._end_kept: Outcome | None = None

    # -- what others may call

    @property
    def pod(self) -> Pod:
        return self.machine.pod

    @property
    def status(self) -> PodStatus:
        """As last reported."""
        return self._status

    @property
    def runtime(self) -> PodRuntime:
        """As last read."""
        return self._runtime

    @property
    def raw(self) -> bytes:
        return self._raw

    @property
    def log_root(self) -> str:
        """The folder that holds the folder of this pod's logs."""
        return str(self.config.log_dir)

    @property
    def syncing(self) -> bool:
        """Whether it should run: it is neither ending nor refused."""
        return self.machine.life is Life.SYNCING

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.machine.life in (Life.TERMINATED, Life.FINISHED)

    def image_refs(self) -> set[str]:
        """References and ids of the images it was started from or needs to be started again."""
        return {c.image for c in self.pod.every_container()} | set(self._started_images.values())

    @property
    def held(self) -> bool:
        """Whether it waits for `release`; one that has run is not held any more."""
        return self.pod.on_hold and not self._released and self.syncing and not self._runtime.sandboxes

    def release(self) -> None:
        """Somebody at the edge lets it start."""
        self._released = True
        self.poke()

    def evict(self, outcome: Outcome, *, grace_s: int) -> None:
        """The node ends it and keeps nothing of it but its status."""
        if self.machine.fail(outcome, grace_s):
            self._ending.set()
            self.poke()

    def poke(self) -> None:
        """Look again."""
        self._poked.set()

    def update(self, pod: Pod, raw: bytes) -> None:
        """The pod is wanted like this now."""
        self._raw = raw
        grace = self.machine.grace_s
        self.machine.update(pod)
        self._refresh = True
        self._after_machine(grace)

    def gone(self) -> None:
        """The pod is wanted no more (two readings agreed)."""
        grace = self.machine.grace_s
        self.machine.gone()
        self._after_machine(grace)

    def refresh(self, kind: str, name: str) -> None:
        """An object that the pod may refer to has changed."""
        config_maps, secrets = env.references(self.pod)
        if (kind == "configmap" and name in config_maps) or (kind == "secret" and name in secrets):
            self._refresh = True
            self.poke()
        elif kind == "device" and name in claims.claims(self.pod):
            self._held = {}
            self.poke()

    def _after_machine(self, grace_before: int) -> None:
        if self.machine.life is not Life.SYNCING:
            self._ending.set()
            if self.machine.grace_s < grace_before:
                self._grace_cut.set()
        self.poke()

    # -- the loop

    async def run(self) -> None:
        """Until the pod is finished."""
        while not await self._remember():  # noqa: ASYNC110  # nothing tells when a store works again
            await asyncio.sleep(HELD_RETRY_S)
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    self._poked.clear()
                    wait = await self._pass(group)
                    if self.machine.life is Life.FINISHED:
                        return
                    try:
                        async with asyncio.timeout(wait):
                            await self._poked.wait()
                    except TimeoutError:
                        pass
            finally:
                for _, task in self._probes.values():
                    task.cancel()

    async def _pass(self, group: asyncio.TaskGroup) -> float | None:
        """One pass; seconds until the next one is due, None when only a poke is."""
        try:
            wait = await self._step(group)
        except Exception as err:
            # the boundary of a pod (P9): whatever is wrong with this one, the others go on
            fault = _expected(err)
            if fault is not None:
                self._complain(str(fault))
            else:
                log.exception("Pod %s/%s: pass failed", self.pod.namespace, self.pod.name)
        else:
            self._failures = 0
            self._complaint = ""
            return wait
        self._failures += 1
        return min(MAX_RETRY_S, RETRY_S * 2.0 ** min(self._failures - 1, 10))

    def _complain(self, text: str) -> None:
        level = logging.DEBUG if text == self._complaint else logging.WARNING
        self._complaint = text
        log.log(level, "Pod %s/%s: %s", self.pod.namespace, self.pod.name, text[:256])

    async def _remember(self) -> bool:
        """Take up what an earlier agent knew; False while that cannot be read."""
        try:
            row = record.decode(await self._s.state.load(record.key(self.pod.uid)))
        except SkerryError as err:
            self._complain(f"cannot read its record: {err}")
            return False
        known = row.status if row.status.phase else self.pod.status
        self._status = known
        self._delays = record.delays(row)
        self._started_images = dict(row.images)
        self._resized = dict(row.resized)
        self._released = row.released
        if row.root_dir or row.log_dir:
            self._use_folders(row.root_dir, row.log_dir)
        self._alive = record.alive(row)
        outcome = record.outcome(row)
        end = self._s.ends.find(self.pod.uid)
        if end is not None:
            # it ended when the store could not take it
            self._unsaved = True
            if end.reason:
                outcome = outcome or end
            elif known.phase not in FINAL:
                known = self._status = msgspec.structs.replace(known, phase=end.phase)
        self._end_kept = outcome
        started = statuses_start(known)
        machine = PodWorker(self.pod, outcome=outcome, started_at=started)
        machine.absent = self.machine.absent
        if self.machine.absent:
            machine.gone()
        if known.phase in FINAL and outcome is None:
            machine.completed()
        self.machine = machine
        if machine.life is not Life.SYNCING:
            self._ending.set()
        return True

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        if not await self._read():
            return DOUBT_S if self._failures or not self._runtime.sandboxes else self.config.relist_s
        machine = self.machine
        if machine.life is Life.SYNCING and not self.admitted:
            await self._admit()
        if machine.life is Life.SYNCING:
            left = machine.deadline_in_s(self._now_by_start())
            if left is not None and left <= 0:
                machine.fail(
                    Outcome(
                        phase="Failed",
                        reason="DeadlineExceeded",
                        message="Pod was active on the node longer than the specified deadline",
                    )
                )
                self._ending.set()
            elif self._done():
                machine.completed()
                self._ending.set()
        if self.held:
            await self._report()
            return None
        if machine.life is Life.SYNCING:
            return await self._sync(group)
        if machine.life is Life.TERMINATING:
            await self._terminate()
        if machine.to_clean:
            await self._clean()
        elif machine.life is Life.TERMINATED and self._unsaved:
            await self._report(terminated=True)
        return None

    def _now_by_start(self) -> float:
        """Unix seconds by the clock that the pod was started with: one that is set by years since then, as at the first
        contact of a board without a clock of its own, must not make it late.  A start of an earlier agent is by the wall."""
        if self._started_mono is None or self.machine.started_at is None:
            return self._s.clock.now()
        return self.machine.started_at + self._s.clock.monotonic() - self._started_mono

    async def _admit(self) -> None:
        """Ask once whether there is room and whether it is allowed.  What has run here before needs not ask for room."""
        refused = self._s.admit(self)
        if refused is None:
            self.admitted = True
            return
        self.machine.fail(refused)
        self._ending.set()
        await self._event("Warning", refused.reason, refused.message)

    @property
    def old(self) -> bool:
        """Whether it was accepted by an agent before this one, or runs already."""
        return self._status.start_time is not None or bool(self._runtime.sandboxes)

    def _done(self) -> bool:
        return self._compute().phase in FINAL

    # -- reading

    async def _read(self) -> bool:
        """Read the runtime; False when the reading is not believed yet."""
        cri, uid = self._s.cri, self.pod.uid
        sandbox_list = await cri.list_sandboxes(uid=uid)
        container_list = await cri.list_containers(uid=uid)
        sandboxes = []
        for s in sorted(sandbox_list, key=lambda s: (s.attempt, s.created_at), reverse=True):
            cached = self._sandbox_cache.get((s.id, s.ready))
            if cached is None or (s.ready and not cached.ips):
                try:
                    cached = await cri.sandbox_status(s.id)
                except NotFound:
                    continue
                self._sandbox_cache[(s.id, cached.ready)] = cached
            sandboxes.append(cached)
        containers = []
        for c in sorted(container_list, key=lambda c: (c.attempt, c.created_at), reverse=True):
            status = await self._status_of(c)
            if status is not None:
                containers.append(status)
        present = {s.id for s in sandboxes} | {c.id for c in containers}
        missing = self._alive - present
        now = self._s.clock.monotonic()
        if missing and (missing != self._doubted or now - self._doubted_at < DOUBT_S / 2):
            if missing != self._doubted:
                self._doubted, self._doubted_at = missing, now
            return False
        self._doubted = set()
        self._adopt(PodRuntime(sandboxes=tuple(sandboxes), containers=tuple(containers)))
        return True

    def _adopt(self, runtime: PodRuntime) -> None:
        self._runtime = runtime
        self._take_over(runtime)
        self._alive = {s.id for s in runtime.sandboxes if s.ready} | {c.id for c in runtime.running()}
        present = {s.id for s in runtime.sandboxes} | {c.id for c in runtime.containers}
        self._container_cache = {k: v for k, v in self._container_cache.items() if k[0] in present}
        self._sandbox_cache = {k: v for k, v in self._sandbox_cache.items() if k[0] in present}
        self._messages = {k: v for k, v in self._messages.items() if k in present}
        self._resized = {k: v for k, v in self._resized.items() if k in present}
        now = self._s.clock.monotonic()
        self._exits = {
            c.id: self._exits.get(c.id, now) for c in runtime.containers if c.state is ContainerState.EXITED
        }

    def _take_over(self, runtime: PodRuntime) -> None:
        """Go on using the folders of the agent that started these containers, if that was another one."""
        if self.config is not self._s.config:
            return
        folder = Path(spec.pod_log_dir(self.config, self.pod)).name
        for c in runtime.containers:
            if not adopt.stranger(c):
                continue
            root, logs = adopt.volumes_root(c, self.pod.uid), adopt.logs_root(c, folder)
            if root is not None or logs is not None:
                self._use_folders(str(root or ""), str(logs or ""))
                # by this it is known as one of this node's pods, whatever becomes of its record
                (self._s.config.root_dir / self.pod.uid).mkdir(parents=True, exist_ok=True)
                log.info(
                    "Pod %s/%s was started by another agent: its files stay in %s and %s",
                    self.pod.namespace,
                    self.pod.name,
                    self.config.root_dir,
                    self.config.log_dir,
                )
                return

    def _use_folders(self, root: str, logs: str) -> None:
        usual = self._s.config
        self.config = replace(
            usual,
            root_dir=Path(root) if root else usual.root_dir,
            log_dir=Path(logs) if logs else usual.log_dir,
        )

    async def _status_of(self, info: ContainerInfo) -> ContainerStatus | None:
        cached = self._container_cache.get((info.id, info.state))
        if cached is not None and info.state is not ContainerState.UNKNOWN:
            return cached
        try:
            status = replace(await self._s.cri.container_status(info.id), sandbox_id=info.sandbox_id)
        except NotFound:
            return None
        if adopt.stranger(status):
            status = replace(status, image_names=await self._image_names(status))
        self._container_cache[(info.id, status.state)] = status
        if status.state is ContainerState.EXITED and info.id not in self._messages:
            self._messages[info.id] = await asyncio.to_thread(self._termination_message, status)
        return status

    async def _image_names(self, status: ContainerStatus) -> tuple[str, ...]:
        """All names of the image that another agent's container runs, as far as the runtime knows."""
        cri = self._s.cri
        try:
            runs = await cri.image_status(status.image_ref) if status.image_ref else None
            wanted = await cri.image_status(self.pod.container(status.name).image)
        except (CriError, KeyError):
            return ()
        if runs is None:
            return ()
        same = wanted is not None and wanted.id == runs.id
        return (*runs.tags, *runs.digests, *((self.pod.container(status.name).image,) if same else ()))

    def _termination_message(self, status: ContainerStatus) -> str:
        try:
            container = self.pod.container(status.name)
        except KeyError:
            return status.message
        file = self._message_file(status.name, status.restart_count)
        if adopt.stranger(status):
            file = adopt.message_file(status) or file
        text = tree.read_bounded(file, MESSAGE_BYTES)
        if (
            not text
            and status.exit_code != 0
            and container.termination_message_policy == "FallbackToLogsOnError"
        ):
            folder = Path(spec.pod_log_dir(self.config, self.pod))
            tail = tree.read_bounded(
                folder / status.name / f"{status.restart_count}.log", MESSAGE_LOG_BYTES * 2, tail=True
            )
            # CRI log lines are "<time> <stream> <P|F> <text>"
            lines = [line.split(b" ", 3)[-1] for line in tail.split(b"\n") if line.count(b" ") >= 3]
            text = b"\n".join(lines[-MESSAGE_LOG_LINES:])[-MESSAGE_LOG_BYTES:]
        return text.decode("utf-8", "replace") or status.message

    def _message_file(self, name: str, count: int) -> Path:
        return self.config.root_dir / self.pod.uid / "containers" / name / str(count)

    # -- syncing

    async def _sync(self, group: asyncio.TaskGroup) -> float | None:
        """Plan and perform until nothing is left to do."""
        self._mind_probes(group)
        await self._resize()
        await self._replug()
        while self.machine.life is Life.SYNCING:
            decided = plan.compute_pod_actions(
                self.pod,
                self._runtime,
                memory=record.memory(self._status, self._delays),
                health=self._health(),
                exited_for_s=self._ages(),
            )
            self._waiting = decided.waiting
            await self._tell_backing_off()
            actions = [
                a
                for a in decided.actions
                if not (isinstance(a, plan.StartContainer) and a.name in self._held)
            ]
            if not actions:
                break
            if not await self._volumes():
                break
            for action in actions:
                if self.machine.life is not Life.SYNCING:
                    break
                await self._perform(action, group)
        else:
            return 0.0
        if self._refresh:
            await self._volumes()
        await self._report()
        await self._collect()
        if self._done():
            return 0.0
        return self._next(decided)

    async def _tell_backing_off(self) -> None:
        """One event for each end of a container that is not started again at once."""
        for name, (reason, _) in self._waiting.items():
            last = self._runtime.latest(name)
            if reason != "CrashLoopBackOff" or last is None or self._backing_off.get(name) == last.id:
                continue
            self._backing_off[name] = last.id
            pod = f"{self.pod.name}_{self.pod.namespace}({self.pod.uid})"
            text = f"Back-off restarting failed container {name} in pod {pod}"
            await self._event("Warning", "BackOff", text, name)

    async def _resize(self) -> None:
        """Give running containers the resources that they should have by now."""
        pending = set()
        for status in self._runtime.containers:
            if status.state is not ContainerState.RUNNING or status.id != _latest_id(
                self._runtime, status.name
            ):
                continue
            try:
                container = self.pod.container(status.name)
            except KeyError:
                continue
            wanted = spec.resources(self.pod, container, self._s.node.memory_bytes)
            has = self._resized.get(status.id) or resize.decode(
                status.annotations.get(ANNOTATION_RESOURCES, "")
            )
            way = resize.decide(container, has, resize.applied(wanted))
            if way is resize.Way.RESTART:
                await self._event(
                    "Normal", "Killing", f"Container {container.name} resize requires restart", container.name
                )
                await self._kill(status, self.machine.grace_s)
                await self._reread()
            elif way is resize.Way.UPDATE and not await self._update(container, status, wanted):
                pending.add(container.name)
        self._resizing = frozenset(pending)

    async def _replug(self) -> None:
        """Start containers again whose device is back under another device node: only at its start is one given to it."""
        if not claims.claims(self.pod) or self.pod.spec.restart_policy == "Never":
            return
        for status in self._runtime.containers:
            if status.state is not ContainerState.RUNNING:
                continue
            try:
                container = self.pod.container(status.name)
            except KeyError:
                continue
            stamped = status.annotations.get(ANNOTATION_DEVICES, "")
            why = claims.moved(self.pod, container, stamped, self._s.find_device)
            if why:
                await self._event(
                    "Normal", "Killing", f"Container {container.name} is started again: {why}", container.name
                )
                await self._kill(status, self.machine.grace_s)
                await self._reread()

    async def _update(self, container: Container, status: ContainerStatus, wanted: Resources) -> bool:
        # the pod around it first when it grows, and once more afterwards for when it shrinks
        await asyncio.to_thread(self._limit)
        try:
            await self._s.cri.update_resources(status.id, wanted)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            await self._event("Warning", "ResizeError", f"Cannot resize: {err}", container.name)
            return False
        await asyncio.to_thread(self._limit)
        self._resized[status.id] = resize.applied(wanted)
        await self._event("Normal", "ResizeCompleted", f"Resized container {container.name}", container.name)
        return True

    def _next(self, decided: plan.Plan) -> float | None:
        waits = [decided.wake_in_s]
        if self._held or self._sandbox_error is not None or self._refresh or self._resizing:
            waits.append(HELD_RETRY_S)
            waits.append(self._s.images.retry_in_s(self.pod.uid))
            # what held them is judged anew at the next pass
            self._held = {}
        if self._refresh_at is not None:
            waits.append(max(0.0, self._refresh_at - self._s.clock.now()))
        waits.append(self.machine.deadline_in_s(self._now_by_start()))
        due = [w for w in waits if w is not None]
        return max(0.05, min(due)) if due else None

    def _ages(self) -> dict[str, float]:
        """How long each dead container has been dead, by whichever clock says longer: the wall clock may have been set back."""
        wall, mono = self._s.clock.now(), self._s.clock.monotonic()
        return {
            c.id: max(wall - c.finished_at, mono - self._exits.get(c.id, mono))
            for c in self._runtime.containers
            if c.state is ContainerState.EXITED
        }

    def _health(self) -> plan.Health:
        failed: dict[probes.Kind, set[str]] = {kind: set() for kind in probes.Kind}
        started = set()
        for (container_id, kind), (state, _) in self._probes.items():
            if state.failed:
                failed[kind].add(container_id)
            if kind is probes.Kind.STARTUP and state.ready:
                started.add(container_id)
        return plan.Health(
            failed_liveness=frozenset(failed[probes.Kind.LIVENESS]),
            failed_startup=frozenset(failed[probes.Kind.STARTUP]),
            started=frozenset(started),
        )

    async def _perform(self, action: plan.Action, group: asyncio.TaskGroup) -> None:
        if isinstance(action, plan.CreateSandbox):
            await self._create_sandbox(action.attempt)
        elif isinstance(action, plan.StopSandbox):
            await self._kill_all(self.machine.grace_s)
            await self._s.cri.stop_sandbox(action.sandbox_id)
            await self._reread()
        elif isinstance(action, plan.RemoveContainer):
            await self._s.cri.remove_container(action.container_id)
            self._forget_container(action.container_id)
        elif isinstance(action, plan.KillContainer):
            await self._event("Normal", "Killing", action.message, action.name)
            status = next(c for c in self._runtime.containers if c.id == action.container_id)
            grace = action.grace_s if action.grace_s is not None else self.machine.grace_s
            await self._kill(status, grace)
            self._drop_probes(action.container_id)
            await self._reread()
        else:
            await self._start(self.pod.container(action.name), action.restart_count)
            self._mind_probes(group)

    async def _reread(self) -> None:
        if not await self._read():
            await asyncio.sleep(DOUBT_S)
            await self._read()

    def _sandbox_config(self, attempt: int) -> SandboxConfig:
        config = self.config
        host = spec.parse_resolv_conf(
            tree.read_bounded(config.resolv_conf.resolve(), 64 * 1024).decode("utf-8", "replace")
        )
        dns: Dns = spec.resolver(self.pod, config, host)
        return spec.sandbox_config(
            self.pod,
            attempt=attempt,
            config=config,
            dns=dns,
            kept=kept_pod(self._raw),
        )

    async def _create_sandbox(self, attempt: int) -> None:
        if self._handler is None:
            self._handler = await self._runtime_handler()
        try:
            config = self._sandbox_config(attempt)
        except Held as err:
            if err.reason == spec.TOO_LONG:
                # as in a kubelet it waits: the cluster's domain may change
                text = f"Failed to create pod sandbox: {err}"
                await self._event("Warning", "FailedCreatePodSandBox", text)
                raise CriError(f"cannot create sandbox: {err}", retryable=True) from err
            self.machine.fail(Outcome(phase="Failed", reason=err.reason, message=str(err)))
            self._ending.set()
            return
        await asyncio.to_thread(self._make_log_dirs)
        await asyncio.to_thread(self._limit)
        self._sandbox_error = None
        async with asyncio.TaskGroup() as both:
            both.create_task(self._report())
            made = both.create_task(self._run_sandbox(config))
        if isinstance(made.result(), CriError):
            error = made.result()
            assert isinstance(error, CriError)
            self._sandbox_error = str(error)
            await self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            raise error
        if self.config.cgroup_driver == "systemd":
            # the slice is there only now
            await asyncio.to_thread(self._limit)
        status = await self._s.cri.sandbox_status(str(made.result()))
        self._sandbox_cache[(status.id, status.ready)] = status
        self._adopt(replace(self._runtime, sandboxes=(status, *self._runtime.sandboxes)))

    async def _runtime_handler(self) -> str:
        """What the runtime calls the pod's RuntimeClass; empty for the default.  Raises CriError while it is not known."""
        name = self.pod.spec.runtime_class_name
        if not name:
            return ""
        raw = await self._s.objects.fetch("runtimeclass", "", name)
        if raw is None:
            text = f'RuntimeClass "{name[:253]}" not found'
            await self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {text}")
            raise CriError(f"cannot create sandbox: {text}", retryable=True)
        try:
            return msgspec.json.decode(raw, type=RuntimeClass).handler
        except msgspec.MsgspecError as err:
            raise CriError(
                f"cannot create sandbox: RuntimeClass {name[:253]}: {err}", retryable=True
            ) from err

    async def _run_sandbox(self, config: SandboxConfig) -> str | CriError:
        try:
            async with self._s.starts.place():
                return await self._s.cri.run_sandbox(config, handler=self._handler or "")
        except CriError as err:
            return err

    def _limit(self) -> None:
        """Give the pod's cgroup what the pod as a whole may use."""
        config = self.config
        cgroups.apply(
            spec.cgroup_parent(config, self.pod),
            config.cgroup_driver,
            cgroups.pod_values(self.pod, pids=config.pod_pids_limit),
        )

    def _make_log_dirs(self) -> None:
        folder = Path(spec.pod_log_dir(self.config, self.pod))
        for c in self.pod.every_container():
            tree.make_dirs(self.config.log_dir, f"{folder.name}/{c.name}", 0o755)

    async def _start(self, container: Container, count: int) -> None:
        """Start one container, or remember why it is held back."""
        name = container.name
        try:
            if any(c.name == name for c in self.pod.spec.ephemeral_containers):
                # it came after the pod was let in
                refused = self._s.permit(self.pod)
                if refused is not None:
                    raise Held(refused.reason, refused.message)
            image = await self._unless_ending(self._image(container))
            if image is None:
                return
            await self._start_with(container, count, image)
        except Held as err:
            self._held[name] = (err.reason, str(err))
            # what is wrong with an image was told where it was found
            told = err.reason if err.reason in images.REASONS else err
            await self._event("Warning", "Failed", f"Error: {told}", name)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            self._held[name] = ("CreateContainerError", err.said[:1024])
            await self._event("Warning", "Failed", f"Error: {err.said}", name)

    async def _image(self, container: Container) -> Image:
        sandbox = self._runtime.sandbox
        assert sandbox is not None

        async def emit(kind: str, reason: str, message: str) -> None:
            await self._event(kind, reason, message, container.name)

        pull_secrets = [
            data
            for ref in self.pod.spec.image_pull_secrets
            if (data := self._sources.refs.secrets.get(ref.name)) is not None
        ]
        auths = images.credentials(container.image, pull_secrets)
        return await self._s.images.ensure(
            self.pod.uid,
            container,
            auths,
            self._sandbox_config(sandbox.attempt),
            emit,
            known=self._started_images.get(container.image, ""),
        )

    async def _start_with(self, container: Container, count: int, image: Image) -> None:
        sandbox = self._runtime.sandbox
        assert sandbox is not None
        given = await self._s.plugins.allocate(self.pod, container)
        facts = self._facts()
        variables = env.environment(self.pod, container, self._sources.refs, facts)
        command, args = env.command(container, variables)
        try:
            mounts = await asyncio.to_thread(self._mounts, container, count, variables)
        except VolumeError as err:
            raise Held(env.CONFIG_ERROR, str(err)) from err
        claimed = claims.resolve(self.pod, container, self._s.find_device)
        config = spec.container_config(
            self.pod,
            container,
            restart_count=count,
            # by its id when it has no name any more: then no registry can change what is started
            image=image.id or container.image,
            image_user=image.user,
            env=variables,
            command=command,
            args=args,
            mounts=mounts,
            config=self.config,
            memory_capacity=self._s.node.memory_bytes,
            target_id=self._target(container),
            devices=claimed,
            given=given,
        )
        before = self._runtime.latest(container.name)
        if image.id:
            self._started_images[container.image] = image.id
        cri = self._s.cri
        sandbox_config = self._sandbox_config(sandbox.attempt)
        async with self._s.starts.place():
            container_id = await cri.create_container(sandbox.id, config, sandbox_config)
        await self._event("Normal", "Created", f"Created container: {container.name}", container.name)
        if before is not None and before.state is ContainerState.EXITED:
            earlier = None if adopt.changed(container, before) else self._delays.get(container.name)
            self._delays[container.name] = backoff.after_try(
                earlier, failed_at=before.finished_at, now=self._s.clock.now()
            )
        try:
            async with self._s.starts.place():
                await cri.start_container(container_id)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            self._held[container.name] = ("RunContainerError", str(err)[:1024])
            await self._event("Warning", "Failed", f"Error: {err.said}", container.name)
        else:
            await self._event("Normal", "Started", f"Started container {container.name}", container.name)
            await asyncio.to_thread(self._link_log, container.name, container_id, count)
            log.info(
                "Started container %s of pod %s/%s (restart %d)",
                container.name,
                self.pod.namespace,
                self.pod.name,
                count,
            )
        await self._read_back(container_id, sandbox.id)
        if container.name not in self._held and container.lifecycle is not None:
            await self._post_start(container, container_id)
        await self._report()

    def _link_log(self, name: str, container_id: str, count: int) -> None:
        folder = self.config.log_links
        if folder is None:
            return
        target = f"{spec.pod_log_dir(self.config, self.pod)}/{name}/{count}.log"
        try:
            loglinks.make(folder, self.pod, name, container_id, target)
        except OSError as err:
            self._complain(f"cannot link a log: {err}")

    def _target(self, container: Container) -> str:
        """Id of the container whose processes an ephemeral one is to see.  Raises Held while it does not run."""
        name = container.target_container_name
        if not name:
            return ""
        status = self._runtime.latest(name)
        if status is None or status.state is not ContainerState.RUNNING:
            raise Held(env.CONFIG_ERROR, f'target container "{name[:64]}" does not run')
        return status.id

    async def _read_back(self, container_id: str, sandbox_id: str) -> None:
        status = replace(await self._s.cri.container_status(container_id), sandbox_id=sandbox_id)
        self._container_cache[(status.id, status.state)] = status
        if status.state is ContainerState.EXITED:
            self._messages[status.id] = await asyncio.to_thread(self._termination_message, status)
        others = tuple(c for c in self._runtime.containers if c.id != container_id)
        self._adopt(replace(self._runtime, containers=(status, *others)))

    async def _post_start(self, container: Container, container_id: str) -> None:
        assert container.lifecycle is not None
        if container.lifecycle.post_start is None:
            return
        problem = await self._unless_ending(
            prober.hook(
                self._s.cri,
                container_id,
                container,
                container.lifecycle.post_start,
                pod_ip=self._pod_ip(),
                timeout_s=POST_START_S,
            )
        )
        if problem:
            await self._event(
                "Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}", container.name
            )
            status = next(c for c in self._runtime.containers if c.id == container_id)
            await self._kill(status, self.machine.grace_s)
            await self._reread()

    async def _unless_ending(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Do something long, but leave it as soon as the pod is to end; None then."""
        async with asyncio.TaskGroup() as race:
            task = race.create_task(_outcome(work))
            ending = race.create_task(self._ending.wait())
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not task.done():
                task.cancel()
                return None
        result, error = task.result()
        if error is not None:
            raise error
        return result

    def _facts(self) -> env.Facts:
        node = self._s.node
        return env.Facts(
            node_name=self._s.node_name,
            host_ips=node.ips,
            pod_ips=node.ips if self.pod.spec.host_network else self._runtime.ips,
            allocatable=node.allocatable,
            service=self._s.service_env,
        )

    def _pod_ip(self) -> str:
        ips = self._s.node.ips if self.pod.spec.host_network else self._runtime.ips
        return ips[0] if ips else "127.0.0.1"

    # -- volumes

    async def _volumes(self) -> bool:
        """Bring the volumes to what they should hold; False when that is not possible yet."""
        if not self._refresh and (self._refresh_at is None or self._s.clock.now() < self._refresh_at):
            return True
        self._sources = await self._gather()
        try:
            await asyncio.to_thread(self._check_host_paths)
            await asyncio.to_thread(
                volumes.prepare,
                self.pod,
                self._sources,
                root=self.config.root_dir,
                stamp=f"{self._s.clock.now():.6f}".replace(".", "_"),
            )
        except VolumeError as err:
            await self._event("Warning", "FailedMount", f"MountVolume.SetUp failed for {err}")
            if self._runtime.running():
                # it runs with what it has; missing information is no reason to disturb it
                return True
            self._complain(str(err))
            return False
        self._refresh = False
        return True

    async def _gather(self) -> volumes.Sources:
        """Fetch what the pod refers to.  What cannot be had now is missing, which holds back only what needs it."""
        config_maps, secrets = env.references(self.pod)
        # a pod that runs already is kept up to date from the store; only a start is worth asking the cloud
        objects = self._s.objects
        get = objects.get if self._runtime.running() else objects.fetch
        found: dict[str, dict[str, dict[str, bytes] | None]] = {"configmap": {}, "secret": {}}
        for kind, names, read in (
            ("configmap", config_maps, env.config_map_data),
            ("secret", secrets, env.secret_data),
        ):
            for name in sorted(names):
                try:
                    raw = await get(kind, self.pod.namespace, name)
                except SkerryError as err:
                    self._complain(f"cannot get {kind} {name}: {err}")
                    raw = None
                found[kind][name] = read(msgspec.json.decode(raw)) if raw is not None else None
        tokens = {}
        self._refresh_at = None
        for key in volumes.tokens_needed(self.pod):
            try:
                token, expires = await self._token(key)
            except SkerryError as err:
                self._complain(f"cannot get a token: {err}")
                self._refresh_at = self._s.clock.now() + HELD_RETRY_S
                continue
            tokens[key] = token
            now = self._s.clock.now()
            due = now + max(10.0, (expires - now) * TOKEN_REFRESH_SHARE)
            self._refresh_at = due if self._refresh_at is None else min(due, self._refresh_at)
        claims = {name: await self._claim(name) for name in volumes.claims_of(self.pod)}
        inline = {v.name: await self._inline(v) for v in self.pod.spec.volumes if v.csi is not None}
        return volumes.Sources(
            claims=claims,
            csi=inline,
            refs=env.References(config_maps=found["configmap"], secrets=found["secret"]),
            tokens=tokens,
            facts=self._facts(),
        )

    async def _claim(self, name: str) -> persistent.Claim | str:
        """Where a claim's data is, or why it cannot be used now."""
        objects, namespace = self._s.objects, self.pod.namespace
        # nobody tells the node when a claim is bound, or another of its name takes its place
        fresh = not self._runtime.running()
        try:
            claim = await objects.fetch("persistentvolumeclaim", namespace, name, fresh=fresh)
            bound = persistent.volume_name(name, claim)
            volume = await objects.fetch("persistentvolume", "", bound, fresh=fresh)
            assert claim is not None
            owner = self.pod.uid if volumes.is_own_claim(self.pod, name) else ""
            found = persistent.resolve(name, bytes(claim), volume, owner=owner)
            if isinstance(found, csi.Wanted):
                path = await self._s.storage.publish(self.pod, self.config.root_dir, found)
                return persistent.Claim(path=path, own=csi.group_applies(found))
            forbidden = await asyncio.to_thread(self._s.permit_path, self.pod, found.path)
        except SkerryError as err:
            return str(err)
        return forbidden or found

    async def _inline(self, volume: Volume) -> str:
        """Why a driver's volume is not there; nothing when it is."""
        try:
            await self._s.storage.publish(self.pod, self.config.root_dir, csi.inline(self.pod, volume))
        except VolumeError as err:
            return str(err)
        return ""

    async def _token(self, key: volumes.TokenKey) -> tuple[str, float]:
        account = self.pod.spec.service_account_name or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [key.audience] if key.audience else [],
                "expirationSeconds": key.expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": self.pod.name,
                    "uid": self.pod.uid,
                },
            },
        }
        answer = await self._s.objects.token(self.pod.namespace, account, msgspec.json.encode(request))
        return record.token(answer)

    def _check_host_paths(self) -> None:
        """What the pod's paths lead to must be allowed, too.  Blocking.  Raises VolumeError, PolicyError."""
        for volume in self.pod.spec.volumes:
            if volume.host_path is not None:
                forbidden = self._s.permit_path(self.pod, volume.host_path.path)
                if forbidden:
                    raise VolumeError(f'volume "{volume.name}": {forbidden}')

    def _mounts(self, container: Container, count: int, variables: Mapping[str, str]) -> list[Mount]:
        """Everything that is mounted into a container.  Blocking.  Raises VolumeError, Held."""
        root = self.config.root_dir
        # again: what a link leads to may be another since the container before this one
        self._check_host_paths()
        relative = {}
        for i, m in enumerate(container.volume_mounts):
            if m.sub_path:
                relative[i] = m.sub_path
            elif m.sub_path_expr:
                path = env.expand_strict(m.sub_path_expr, variables)
                if path.startswith("/") or ".." in path.split("/") or "\0" in path:
                    raise VolumeError(f'volume "{m.name}": subPathExpr leads out of the volume')
                relative[i] = path
        bound = volumes.bind_sub_paths(self.pod, container.name, relative, root=root)
        mounts = volumes.mounts(self.pod, container.name, root=root, sub_paths=bound)
        taken = {m.container_path for m in mounts}
        if container.termination_message_path and container.termination_message_path not in taken:
            folder = tree.make_dirs(root, f"{self.pod.uid}/containers/{container.name}")
            # anyone in the container may write its last words
            tree.write_file(folder, str(count), tree.File(data=b"", mode=0o666))
            mounts.append(
                Mount(container_path=container.termination_message_path, host_path=str(folder / str(count)))
            )
        if "/etc/hosts" not in taken:
            folder = tree.make_dirs(root, self.pod.uid)
            text = spec.hosts_file(
                self.pod,
                ips=self._runtime.ips,
                domain=self.config.cluster_domain,
                host_hosts=tree.read_bounded(Path("/etc/hosts"), 256 * 1024).decode("utf-8", "replace"),
            )
            tree.write_file(folder, "etc-hosts", tree.File(data=text.encode(), mode=0o644))
            mounts.append(Mount(container_path="/etc/hosts", host_path=str(folder / "etc-hosts")))
        return mounts

    # -- probes

    def _mind_probes(self, group: asyncio.TaskGroup) -> None:
        """Start the probes that should run, end those whose container does not run any more."""
        running = {c.id: c for c in self._runtime.containers if c.state is ContainerState.RUNNING}
        for container_id, _ in list(self._probes):
            if container_id not in running:
                self._drop_probes(container_id)
        known = {
            s.container_id: s
            for s in (*self._status.init_container_statuses, *self._status.container_statuses)
        }
        for status in running.values():
            try:
                container = self.pod.container(status.name)
            except KeyError:
                continue
            before = known.get(statuses.PREFIX + status.id)
            if container.startup_probe is not None:
                was = True if before is not None and before.started is True else None
                self._start_probe(group, status, container, probes.Kind.STARTUP, container.startup_probe, was)
                if not self._probes[(status.id, probes.Kind.STARTUP)][0].ready:
                    continue
            if container.liveness_probe is not None:
                self._start_probe(
                    group, status, container, probes.Kind.LIVENESS, container.liveness_probe, None
                )
            if container.readiness_probe is not None:
                was = True if before is not None and before.ready else None
                self._start_probe(
                    group, status, container, probes.Kind.READINESS, container.readiness_probe, was
                )

    def _start_probe(
        self,
        group: asyncio.TaskGroup,
        status: ContainerStatus,
        container: Container,
        kind: probes.Kind,
        check: Probe,
        was: bool | None,  # noqa: FBT001
    ) -> None:
        if (status.id, kind) in self._probes:
            return
        state = probes.ProbeState(kind, check, verdict=was)
        task = group.create_task(
            self._probe(status, container, state), name=f"{kind.value} {self.pod.name}/{container.name}"
        )
        self._probes[(status.id, kind)] = (state, task)

    async def _probe(self, status: ContainerStatus, container: Container, state: probes.ProbeState) -> None:
        while not state.done:
            try:
                await self._probe_on(status, container, state)
            except Exception:
                # a probe must not take its pod's worker down with it (P9)
                log.exception(
                    "Pod %s/%s: %s probe failed", self.pod.namespace, self.pod.name, state.kind.value
                )
                await asyncio.sleep(probes.period_s(state.probe))

    async def _probe_on(
        self, status: ContainerStatus, container: Container, state: probes.ProbeState
    ) -> None:
        running_for = max(0.0, self._s.clock.now() - status.started_at)
        await asyncio.sleep(probes.first_delay_s(state.probe, running_for_s=running_for))
        while not state.done:
            ok, text = await prober.probe(
                self._s.cri,
                status.id,
                container,
                state.probe,
                pod_ip=self._pod_ip(),
                timeout_s=probes.timeout_s(state.probe),
            )
            if ok is False or (ok is None and text):
                how = "failed" if ok is False else "errored and resulted in unknown state"
                await self._event(
                    "Warning", "Unhealthy", f"{state.kind.value.title()} probe {how}: {text}", container.name
                )
            if ok is not None and state.result(ok):
                self.poke()
            await asyncio.sleep(probes.period_s(state.probe))

    def _drop_probes(self, container_id: str) -> None:
        for kind in probes.Kind:
            entry = self._probes.pop((container_id, kind), None)
            if entry is not None:
                entry[1].cancel()

    def _verdicts(self) -> statuses.Verdicts:
        not_ready, not_started = set(), set()
        for c in self._runtime.running():
            try:
                container = self.pod.container(c.name)
            except KeyError:
                continue
            startup = self._probes.get((c.id, probes.Kind.STARTUP))
            if container.startup_probe is not None and not (startup and startup[0].ready):
                not_started.add(c.id)
            readiness = self._probes.get((c.id, probes.Kind.READINESS))
            if container.readiness_probe is not None and not (readiness and readiness[0].ready):
                not_ready.add(c.id)
        return statuses.Verdicts(not_ready=frozenset(not_ready), not_started=frozenset(not_started))

    # -- status

    def _compute(self, *, terminated: bool = False) -> PodStatus:
        view = statuses.View(
            now=self._s.clock.now(),
            previous=self._status,
            waiting={**self._waiting, **self._held},
            verdicts=self._verdicts(),
            messages=self._messages,
            host_ips=self._s.node.ips,
            outcome=self.machine.outcome,
            resizing=self._resizing,
            held=self.held,
            terminated=terminated or self.machine.life in (Life.TERMINATED, Life.FINISHED),
        )
        return statuses.compute_status(self.pod, self._runtime, view)

    async def _report(self, *, terminated: bool = False) -> None:
        """Report the status if it is another one than the last.  Durable when it returns."""
        status = self._compute(terminated=terminated)
        if status == self._status and not self._unsaved:
            return
        if self.machine.started_at is None:
            self.machine.started_at = self._s.clock.now()
            self._started_mono = self._s.clock.monotonic()
        # what is said later builds on it, whether it can be kept now or not
        self._status, self._unsaved = status, True
        pod = self.pod
        async with asyncio.TaskGroup() as both:
            both.create_task(self._s.state.save(record.key(pod.uid), self._record()))
            both.create_task(
                self._reports.pod_status(pod.namespace, pod.name, pod.uid, msgspec.json.encode(status))
            )
        self._unsaved = False
        await self._forget_end()

    async def _forget_end(self) -> None:
        if self._s.ends.find(self.pod.uid) is not None:
            await asyncio.to_thread(self._s.ends.forget, self.pod.uid)

    def _record(self) -> bytes:
        sandbox = self._runtime.sandbox
        return record.encode(
            status=self._status,
            delays=self._delays,
            outcome=self.machine.outcome,
            sandbox=sandbox.id if sandbox is not None and sandbox.ready else "",
            images=self._started_images,
            resized=self._resized,
            released=self._released,
            root_dir=_other(self.config.root_dir, self._s.config.root_dir),
            log_dir=_other(self.config.log_dir, self._s.config.log_dir),
        )

    async def _keep_end(self) -> None:
        """Before anything is stopped: the node ends it, and no agent after this one may run it again."""
        outcome = self.machine.outcome
        if outcome is None or outcome == self._end_kept:
            return
        try:
            await self._s.state.save(record.key(self.pod.uid), self._record())
        except SkerryError as err:
            self._complain(f"cannot keep that it ends: {err}")
            if not await asyncio.to_thread(self._s.ends.keep, self.pod.uid, outcome):
                # what cannot be kept anywhere must be ended all the same: it may be what fills the disk
                return
        self._end_kept = outcome

    async def _keep_last(self) -> None:
        """Its last status could not be kept: at least that it ended, and how."""
        last = self._status
        if last.phase in FINAL and self._end_kept is None:
            end = Outcome(phase=last.phase, reason=last.reason, message=last.message)
            if await asyncio.to_thread(self._s.ends.keep, self.pod.uid, end):
                self._end_kept = end

    async def _event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        field = self.pod.field_path(container) if container else ""
        event = self._events.make(kind, reason, message, now=self._s.clock.now(), field=field)
        if event is None:
            return
        try:
            await self._reports.event(event)
        except SkerryError as err:
            # a full disk must not keep a pod from being started, and least of all from being ended to free it
            log.debug("Pod %s/%s: cannot keep an event: %s", self.pod.namespace, self.pod.name, err)

    # -- ending

    async def _kill(self, status: ContainerStatus, grace_s: int) -> None:
        """preStop, then the stop signal, then the kill signal when the grace period is over."""
        began = self._s.clock.monotonic()
        try:
            container: Container | None = self.pod.container(status.name)
        except KeyError:
            container = None
        if (
            container is not None
            and container.lifecycle is not None
            and container.lifecycle.pre_stop is not None
            and grace_s > 0
        ):
            problem = await prober.hook(
                self._s.cri,
                status.id,
                container,
                container.lifecycle.pre_stop,
                pod_ip=self._pod_ip(),
                timeout_s=float(grace_s),
            )
            if problem:
                await self._event(
                    "Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}", status.name
                )
        used = self._s.clock.monotonic() - began
        await self._s.cri.stop_container(status.id, max(MIN_STOP_S if used > 1 else 0, round(grace_s - used)))

    async def _kill_all(self, grace_s: int) -> None:
        """End every container: the app ones together, then sidecars in reverse order."""
        sidecars = [c.name for c in self.pod.spec.init_containers if self.pod.is_sidecar(c)]
        running = self._runtime.running()
        began = self._s.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for status in running:
                if status.name not in sidecars:
                    group.create_task(self._kill(status, grace_s))
        for name in reversed(sidecars):
            for status in running:
                if status.name == name:
                    left = grace_s - (self._s.clock.monotonic() - began)
                    await self._kill(status, max(MIN_STOP_S, round(left)))

    async def _terminate(self) -> None:
        """Stop everything; the state moves on only when a reading shows that nothing runs."""
        for container_id, kind in list(self._probes):
            if kind is not probes.Kind.READINESS:
                self._drop_probes(container_id)
        self._waiting, self._held = {}, {}
        await self._keep_end()
        for status in self._runtime.running():
            await self._event("Normal", "Killing", f"Stopping container {status.name}", status.name)
        while self._runtime.running():
            self._grace_cut.clear()
            await self._kill_until_cut(self.machine.grace_s)
            await self._reread()
        for sandbox in self._runtime.sandboxes:
            if sandbox.ready:
                await self._s.cri.stop_sandbox(sandbox.id)
        await self._reread()
        if self._runtime.running() or any(s.ready for s in self._runtime.sandboxes):
            raise CriError("cannot end pod: something still runs", retryable=True)
        self.machine.stopped()
        for container_id, _ in list(self._probes):
            self._drop_probes(container_id)
        try:
            await self._report(terminated=True)
        except Exception:
            await self._keep_last()
            raise
        finally:
            # it may be what it holds that keeps the report from the disk
            if self.machine.outcome is not None and self.machine.outcome.reason == "Evicted":
                await self._free()
        log.info("Pod %s/%s ended (%s)", self.pod.namespace, self.pod.name, self.machine.reason)

    async def _free(self) -> None:
        """Give back what an evicted pod held: its volumes, and the layers and logs of its containers."""
        for container in self._runtime.containers:
            await self._s.cri.remove_container(container.id)
            self._forget_container(container.id)
        await self._s.storage.unpublish(self.pod.uid, self.config.root_dir)
        await asyncio.to_thread(tree.remove_tree, self.config.root_dir, self.pod.uid)
        folder = Path(spec.pod_log_dir(self.config, self.pod)).name
        await asyncio.to_thread(tree.remove_tree, self.config.log_dir, folder)

    async def _kill_until_cut(self, grace_s: int) -> None:
        """Kill, but begin anew when the grace period is shortened meanwhile."""
        async with asyncio.TaskGroup() as race:
            task = race.create_task(_outcome(self._kill_all(grace_s)))
            cut = race.create_task(self._grace_cut.wait())
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if not task.done():
                task.cancel()
                return
        _, error = task.result()
        if error is not None:
            raise error

    async def _clean(self) -> None:
        """Remove every trace, then say so.  Each step may be repeated."""
        cri, pod, config = self._s.cri, self.pod, self.config
        for sandbox in self._runtime.sandboxes:
            await cri.remove_sandbox(sandbox.id)
        for container in self._runtime.containers:
            await cri.remove_container(container.id)
        await self._s.storage.unpublish(pod.uid, config.root_dir)
        await asyncio.to_thread(tree.remove_tree, config.root_dir, pod.uid)
        await asyncio.to_thread(tree.remove_tree, config.log_dir, Path(spec.pod_log_dir(config, pod)).name)
        if config is not self._s.config:
            await asyncio.to_thread(tree.remove_tree, self._s.config.root_dir, pod.uid)
        await asyncio.to_thread(cgroups.remove, spec.cgroup_parent(config, pod), config.cgroup_driver)
        self._s.images.forget(pod.uid)
        if pod.deleting:
            await self._reports.pod_gone(pod.namespace, pod.name, pod.uid)
        await self._s.state.drop(record.key(pod.uid))
        await self._forget_end()
        self._runtime, self._alive = PodRuntime(), set()
        self.machine.cleaned()

    async def _collect(self) -> None:
        """Remove dead containers beyond the last of each name, and sandboxes that nothing needs any more."""
        newest = self._runtime.sandbox
        by_name: dict[str, list[ContainerStatus]] = {}
        for c in self._runtime.containers:
            by_name.setdefault(c.name, []).append(c)
        for records in by_name.values():
            for old in records[2:]:
                if old.state is ContainerState.EXITED:
                    await self._s.cri.remove_container(old.id)
                    self._forget_container(old.id)
                    await asyncio.to_thread(self._remove_log, old)
        needed = {c.sandbox_id for records in by_name.values() for c in records[:2]}
        for sandbox in self._runtime.sandboxes[1:]:
            if newest is not None and newest.ready and not sandbox.ready and sandbox.id not in needed:
                await self._s.cri.remove_sandbox(sandbox.id)
                rest = tuple(s for s in self._runtime.sandboxes if s.id != sandbox.id)
                self._adopt(replace(self._runtime, sandboxes=rest))

    def _remove_log(self, old: ContainerStatus) -> None:
        folder = Path(spec.pod_log_dir(self.config, self.pod)) / old.name
        if folder.is_dir():
            # the files it was rotated to as well
            current = f"{old.restart_count}.log"
            for name in [
                p.name for p in folder.iterdir() if p.name == current or p.name.startswith(f"{current}.")
            ]:
                tree.remove_tree(folder, name)
        messages = self._message_file(old.name, old.restart_count)
        if messages.parent.is_dir():
            tree.remove_tree(messages.parent, messages.name)

    def _forget_container(self, container_id: str) -> None:
        rest = tuple(c for c in self._runtime.containers if c.id != container_id)
        self._adopt(replace(self._runtime, containers=rest))


def _other(used: Path, usual: Path) -> str:
    return str(used) if used != usual else ""


def _latest_id(runtime: PodRuntime, name: str) -> str:
    latest = runtime.latest(name)
    return latest.id if latest is not None else ""


async def _outcome(work: Coroutine[Any, Any, _T]) -> tuple[_T | None, Exception | None]:
    """Result or error as a value, so that a race in a TaskGroup does not wrap it in a group."""
    try:
        return await work, None
    except Exception as err:
        # handed to the caller, which raises it
        return None, err


def statuses_start(status: PodStatus) -> float | None:
    """Unix seconds of a status' startTime."""
    return record.seconds(status.start_time) if status.start_time else None


def kept_pod(raw: bytes) -> bytes:
    """A pod as it is kept on its sandbox: without its status and managed fields."""
    try:
        pod = msgspec.json.decode(raw)
        pod.pop("status", None)
        pod["metadata"].pop("managedFields", None)
        return msgspec.json.encode(pod)
    except (msgspec.MsgspecError, AttributeError, KeyError):
        return b"{}"


def _expected(error: Exception) -> SkerryError | OSError | None:
    """The fault that may end a pass, the first of several at once; None: there is a bug among them."""
    if isinstance(error, ExceptionGroup):
        found = [_expected(each) for each in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, (SkerryError, OSError)) else None
