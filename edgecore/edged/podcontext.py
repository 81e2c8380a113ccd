"""What the parts of one pod's worker have in common: the pod, its place on this machine, and what is known of it.

Each part (podreading, podstarting, ...) holds the context and does one thing; `worker` calls them in turn.  All run in the
pod's own task, one after the other, so nothing in here is locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from beehive.errors import SkerryError
from edgecore.edged import backoff, cgroups, claims, env, events, images, resize, spec, volumes
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.ends import Ends
from edgecore.edged.pod import Container, Pod, ResourceRequirements
from edgecore.edged.podworker import Life, PodWorker
from edgecore.edged.ports import Clock, NoPlugins, NoStorage, Objects, Plugins, Reports, State, Storage
from edgecore.edged.runtime import PodRuntime, Resources
from edgecore.edged.starts import PREPARING, PREPARING_PATIENCE_S, Starts
from edgecore.edged.status import Outcome

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class NodeFacts(Protocol):
    """What a pod's environment and resources depend on of this machine."""

    @property
    def ips(self) -> tuple[str, ...]: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def memory_limits(self) -> bool: ...

    @property
    def unified(self) -> bool: ...

    @property
    def allocatable(self) -> Mapping[str, int]: ...


class Shared(msgspec.Struct, frozen=True, kw_only=True):
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
    # whose turn it is to be made ready for its sandbox
    turns: Starts = msgspec.field(default_factory=lambda: Starts(PREPARING, PREPARING_PATIENCE_S))
    plugins: Plugins = msgspec.field(default_factory=NoPlugins)
    storage: Storage = msgspec.field(default_factory=NoStorage)
    permit: Callable[[Pod], Outcome | None] = lambda _: None
    # why a pod that runs cannot have what it asks for now, if so
    short: Callable[[Pod], str] = lambda _: ""
    hold_path: Callable[[Pod, str], str] = lambda _pod, _path: ""
    # whether the machine was started since an agent last ran: then nothing of before it lives
    rebooted: Callable[[], bool] = lambda: False
    service_env: Mapping[str, str] = msgspec.field(default_factory=dict)
    find_device: claims.Find = claims.none


class PodContext:
    """One pod UID on this node."""

    def __init__(self, shared: Shared, pod: Pod, raw: bytes, *, reports: Reports | None = None) -> None:
        """reports: others than everybody's, for a pod that the cloud does not know."""
        self.shared = shared
        # the shared one, but where an agent before us put things for a pod of its
        self.config = shared.config
        self.reports = reports or shared.reports
        self.raw = raw
        self.machine = PodWorker(pod)
        self.poked = asyncio.Event()
        self.ending = asyncio.Event()
        self.grace_cut = asyncio.Event()
        # as last read
        self.runtime = PodRuntime()
        # container name -> (reason, message): of what could not be started, and of what the plan holds back
        self.held: dict[str, tuple[str, str]] = {}
        self.waiting: Mapping[str, tuple[str, str]] = {}
        self.delays: dict[str, backoff.Delay] = {}
        # image reference -> id of what was started for it
        self.started_images: dict[str, str] = {}
        # container id -> what it was given since it was created
        self.resized: dict[str, resize.Applied] = {}
        # what it may use, once it was let in
        self.given: dict[str, ResourceRequirements] | None = None
        self.resize = resize.Progress()
        self.released = False
        # seconds that it has to end, once the machine goes down
        self.resting: int | None = None
        # ids of containers that were ended for that
        self.cut_off: set[str] = set()
        # ... and of those that were ended to start others in their place
        self.replaced: set[str] = set()
        # where a restart of all containers is, as in restarts
        self.restart_all = ""
        # what its volumes and variables are made of, as last fetched
        self.sources = volumes.Sources()
        # variables of its namespace's Services
        self.service_links: Mapping[str, str] = {}
        # what of it is not here, and why
        self.missing: tuple[str, ...] = ()
        self.lost_images: tuple[str, ...] = ()
        self._complaint = ""
        self._events = events.of_pod(pod.metadata, shared.node_name)

    @property
    def pod(self) -> Pod:
        """As it is wanted now."""
        return self.machine.pod

    @property
    def granted(self) -> Pod:
        """As it may run now: with what it was granted of what it asks for."""
        return self.pod if self.given is None else resize.with_grant(self.pod, self.given)

    @property
    def syncing(self) -> bool:
        """Whether it should run: it is neither ending nor refused."""
        return self.machine.life is Life.SYNCING

    @property
    def active(self) -> bool:
        """Whether anything of it may be started."""
        return self.syncing and self.resting is None

    @property
    def on_hold(self) -> bool:
        """Whether it waits to be released; one that has run is not held any more."""
        return self.pod.on_hold and not self.released and self.syncing and not self.runtime.sandboxes

    @property
    def log_folder(self) -> Path:
        """Of this pod's containers."""
        return Path(spec.pod_log_dir(self.config, self.pod))

    def message_file(self, name: str, count: int) -> Path:
        """Where a container leaves its termination message; count: its restart count."""
        return self.config.root_dir / self.pod.uid / "containers" / name / str(count)

    def container(self, name: str) -> Container | None:
        """One of the pod as it is wanted now."""
        try:
            return self.pod.container(name)
        except KeyError:
            return None

    def poke(self) -> None:
        """Look again."""
        self.poked.set()

    def fail(self, outcome: Outcome) -> None:
        """The node ends the pod."""
        self.machine.fail(outcome)
        self.ending.set()

    def use_folders(self, root: str, logs: str) -> None:
        """Where its volumes and logs are, if elsewhere than usual."""
        usual = self.shared.config
        self.config = replace(
            usual,
            root_dir=Path(root) if root else usual.root_dir,
            log_dir=Path(logs) if logs else usual.log_dir,
        )

    def facts(self) -> env.Facts:
        """What variables and files of its containers may name."""
        node = self.shared.node
        return env.Facts(
            node_name=self.shared.node_name,
            host_ips=node.ips,
            pod_ips=node.ips if self.pod.spec.host_network else self.runtime.ips,
            allocatable=node.allocatable,
            service={**self.service_links, **self.shared.service_env},
        )

    def resources(self, container: Container) -> Resources:
        """What a container, as it is in `granted`, may use here."""
        node = self.shared.node
        return spec.resources(self.granted, container, node.memory_bytes, memory_limits=node.memory_limits)

    def pod_ip(self) -> str:
        """Where its probes and hooks reach it."""
        ips = self.shared.node.ips if self.pod.spec.host_network else self.runtime.ips
        return ips[0] if ips else "127.0.0.1"

    def limit(self) -> None:
        """Give the pod's cgroup what the pod as a whole may use.  Blocking."""
        config = self.config
        cgroups.apply(
            spec.cgroup_parent(config, self.pod),
            config.cgroup_driver,
            cgroups.pod_values(self.granted, pids=config.pod_pids_limit),
        )

    def complain(self, text: str) -> None:
        """Log it once, until something else is wrong."""
        level = logging.DEBUG if text == self._complaint else logging.WARNING
        self._complaint = text
        log.log(level, "Pod %s/%s: %s", self.pod.namespace, self.pod.name, text[:256])

    def content(self) -> None:
        """Nothing is wrong any more."""
        self._complaint = ""

    async def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Tell of the pod, or of one container."""
        field = self.pod.field_path(container) if container else ""
        event = self._events.make(kind, reason, message, now=self.shared.clock.now(), field=field)
        if event is None:
            return
        try:
            await self.reports.event(event)
        except SkerryError as err:
            # a full disk must not keep a pod from being started, and least of all from being ended to free it
            log.debug("Pod %s/%s: cannot keep an event: %s", self.pod.namespace, self.pod.name, err)

    async def unless_ending(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Do something long, but leave it as soon as the pod is to end; None then."""
        async with asyncio.TaskGroup() as race:
            task = race.create_task(as_value(work))
            ending = race.create_task(self.ending.wait())
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not task.done():
                task.cancel()
                return None
        result, error = task.result()
        if error is not None:
            raise error
        return result


async def as_value(work: Coroutine[Any, Any, _T]) -> tuple[_T | None, Exception | None]:
    """Result or error as a value, so that a race in a TaskGroup does not wrap it in a group."""
    try:
        return await work, None
    except Exception as err:
        # handed to the caller, which raises it
        return None, err
