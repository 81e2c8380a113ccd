"""What to do next for one pod: `compute_pod_actions(pod, runtime, ...) -> Plan`.  Pure; safe to call at any time.

The plan is what a kubelet's computePodActions decides, as a list in the order to perform it.  Planning again after the
actions were performed gives none.  Nothing in here removes anything because it is missing from a listing; that the runtime's
answer can be believed is the worker's business (two agreeing readings).

Source: kubelet, kuberuntime_manager.go (computePodActions, doBackOff), kuberuntime_container.go (computeInitContainerActions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from edgecore.edged import adopt, backoff, restarts
from edgecore.edged.pod import Container, Pod
from edgecore.edged.runtime import ContainerState, ContainerStatus, PodRuntime


class CreateSandbox(msgspec.Struct, frozen=True, kw_only=True):
    attempt: int


class StopSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a sandbox that cannot be used, after killing what runs in it."""

    sandbox_id: str


class StartContainer(msgspec.Struct, frozen=True, kw_only=True):
    """restart_count: also the container's attempt, so that no two of a name share one."""

    name: str
    restart_count: int


class KillContainer(msgspec.Struct, frozen=True, kw_only=True):
    """grace_s: None means the pod's own.  again: another one is started in its place, with whatever it ends."""

    container_id: str
    name: str
    reason: str
    message: str
    grace_s: int | None = None
    again: bool = False


class RemoveContainer(msgspec.Struct, frozen=True, kw_only=True):
    """Remove one that was created and never started: an agent died between the two calls."""

    container_id: str


class RestartAll(msgspec.Struct, frozen=True, kw_only=True):
    """End and remove every container but the ephemeral ones, in the sandbox that stays; then they start as in a new pod.

    name: of the container whose end says so; empty: an agent before us began with it."""

    name: str
    message: str


# A container that was ended by a signal may be the first sign of a sandbox that is being stopped: the runtime ends the
# containers, then the network, and says of the sandbox only then that it is not ready.  What is started in between dies
# with it and counts as one more restart, so such a container is looked at again before it is started anew.
SETTLE_S = 0.5
CHANGED = "Changed"
_SIGNALS = (128 + 9, 128 + 15)

Action = CreateSandbox | StopSandbox | StartContainer | KillContainer | RemoveContainer | RestartAll


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """actions: in order.  waiting: container -> (reason, message) for those held back.

    wake_in_s: when to plan again though nothing changed; None means at the next event.
    """

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    wake_in_s: float | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes say, by container id.  Absent means no verdict against the container."""

    failed_liveness: frozenset[str] = frozenset()
    failed_startup: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker remembers of a pod's containers, by name; outlives the containers and the agent.

    restarts: the highest restart count reported.  delays: back-off.  finished: exit code of containers that were last
    seen dead, for when the runtime has lost their records.  restart_all: restarts.ENDING, restarts.STARTING or nothing.
    replaced: ids of containers that were ended to start others in their place.
    """

    restarts: Mapping[str, int] = msgspec.field(default_factory=dict)
    delays: Mapping[str, backoff.Delay] = msgspec.field(default_factory=dict)
    finished: Mapping[str, int] = msgspec.field(default_factory=dict)
    restart_all: str = ""
    replaced: frozenset[str] = frozenset()


def compute_pod_actions(
    pod: Pod,
    runtime: PodRuntime,
    *,
    memory: Memory,
    health: Health,
    exited_for_s: Mapping[str, float],
) -> Plan:
    """Decide which sandbox and containers of a pod to start or stop.

    exited_for_s: seconds since each dead container (by id) ended.
    """
    sandbox = runtime.sandbox
    usable = (
        sandbox is not None
        and sandbox.ready
        and (pod.spec.host_network or bool(sandbox.ips))
        and sandbox.host_network == pod.spec.host_network
        and sum(s.ready for s in runtime.sandboxes) == 1
    )
    if not usable:
        return _new_sandbox(pod, runtime, memory)
    assert sandbox is not None
    return _containers(pod, runtime, memory, health, exited_for_s)


def _new_sandbox(pod: Pod, runtime: PodRuntime, memory: Memory) -> Plan:
    stops = [StopSandbox(sandbox_id=s.id) for s in runtime.sandboxes if s.ready]
    if runtime.sandbox is not None and not runtime.sandbox.ready and runtime.running():
        # a sandbox whose pause process died leaves containers without a network: they go first
        stops.insert(0, StopSandbox(sandbox_id=runtime.sandbox.id))
    if not _anything_to_run(pod, runtime, memory):
        return Plan(actions=tuple(stops))
    attempt = runtime.sandbox.attempt + 1 if runtime.sandbox is not None else 0
    return Plan(actions=(*stops, CreateSandbox(attempt=attempt)))


def _anything_to_run(pod: Pod, runtime: PodRuntime, memory: Memory) -> bool:
    """Whether a pod without a sandbox still has something to run; a finished Job pod has not."""
    ran = False
    for c in pod.spec.containers:
        code = _last_exit(c.name, runtime, memory)
        if code is None:
            # never started, or cut off while it ran: run it, unless it may not be run twice
            status = runtime.latest(c.name)
            if status is None or status.state is ContainerState.CREATED:
                return True
            code = restarts.CUT_OFF
        status = runtime.latest(c.name)
        if status is not None and status.id in memory.replaced:
            return True
        if restarts.app(pod, c, code):
            return True
        ran = True
    return not ran


def _last_exit(name: str, runtime: PodRuntime, memory: Memory) -> int | None:
    status = runtime.latest(name)
    if status is not None and status.state is ContainerState.EXITED:
        return status.exit_code
    if status is None:
        return memory.finished.get(name)
    return None


class _Planner:
    def __init__(
        self, pod: Pod, runtime: PodRuntime, memory: Memory, health: Health, ages: Mapping[str, float]
    ) -> None:
        self.pod = pod
        self.runtime = runtime
        self.memory = memory
        self.health = health
        self.ages = ages
        self.actions: list[Action] = []
        self.waiting: dict[str, tuple[str, str]] = {}
        self.wake: float | None = None

    def plan(self) -> Plan:
        return Plan(actions=tuple(self.actions), waiting=self.waiting, wake_in_s=self.wake)

    def status(self, name: str) -> ContainerStatus | None:
        return self.runtime.latest(name)

    def wake_at_most(self, wait_s: float) -> None:
        self.wake = wait_s if self.wake is None else min(self.wake, wait_s)

    def start(self, c: Container) -> None:
        """Start a container, after its back-off and after removing one that was never started."""
        status = self.status(c.name)
        known = self.memory.restarts.get(c.name)
        if status is None:
            # nothing left of the earlier run (a reboot): the count goes on from what we remember
            count = 0 if known is None else known + 1
        elif status.state is ContainerState.CREATED:
            self.actions.append(RemoveContainer(container_id=status.id))
            count = max(status.restart_count, known or 0)
        else:
            count = max(status.restart_count, known or 0) + 1
        if status is not None and status.state is ContainerState.EXITED:
            dead_for = self.ages.get(status.id, 0.0)
            # another image has not failed yet
            delay = None if adopt.changed(c, status) else self.memory.delays.get(c.name)
            left = backoff.remaining_s(delay, failed_at=status.finished_at, failed_for_s=dead_for)
            if left <= 0 and dead_for < SETTLE_S and _cut_off(status, c):
                self.wake_at_most(SETTLE_S - dead_for)
                return
            if left > 0:
                assert delay is not None
                self.waiting[c.name] = (
                    "CrashLoopBackOff",
                    f"back-off {_span(delay.delay_s)} restarting failed container={c.name} "
                    f"pod={self.pod.name}_{self.pod.namespace}({self.pod.uid})",
                )
                self.wake_at_most(left)
                return
        self.actions.append(StartContainer(name=c.name, restart_count=count))

    def kill(
        self, c: Container, status: ContainerStatus, reason: str, message: str, *, again: bool = False
    ) -> None:
        grace = None
        probe = {"FailedLiveness": c.liveness_probe, "FailedStartup": c.startup_probe}.get(reason)
        if probe is not None and probe.termination_grace_period_seconds is not None:
            grace = probe.termination_grace_period_seconds
        self.actions.append(
            KillContainer(
                container_id=status.id,
                name=c.name,
                reason=reason,
                message=f"{message}, will be restarted" if again else message,
                grace_s=grace,
                again=again,
            )
        )

    def unhealthy(self, c: Container, status: ContainerStatus) -> tuple[str, str] | None:
        """Why a running container must go, if it must."""
        if adopt.changed(c, status):
            return CHANGED, f"Container {c.name} definition changed"
        if status.id in self.health.failed_liveness:
            return "FailedLiveness", f"Container {c.name} failed liveness probe"
        if status.id in self.health.failed_startup:
            return "FailedStartup", f"Container {c.name} failed startup probe"
        return None

    def keep(self, c: Container, again: Callable[[int], bool]) -> None:
        """Bring one container to what is wanted of it.  again: whether it is started after an end with that code."""
        status = self.status(c.name)
        if status is None:
            code = self.memory.finished.get(c.name)
            if code is not None and not again(code):
                return
            self.start(c)
        elif status.state is ContainerState.RUNNING:
            why = self.unhealthy(c, status)
            if why is not None:
                # only killed here: when it starts again is decided on what it left behind; another image
                # starts whatever the policy is
                reason, message = why
                self.kill(c, status, reason, message, again=reason == CHANGED or again(restarts.CUT_OFF))
        elif status.state is ContainerState.UNKNOWN:
            # dead or alive, nobody can say: make sure before another one starts (P4)
            self.kill(c, status, "Unknown", f"Container {c.name} is in an unknown state")
        elif (
            status.state is ContainerState.CREATED
            or status.id in self.memory.replaced
            or again(status.exit_code)
        ):
            self.start(c)


def _cut_off(status: ContainerStatus, c: Container) -> bool:
    """Whether a dead container was ended by somebody else than itself, the kernel's lack of memory, or a new image."""
    return status.exit_code in _SIGNALS and status.reason != "OOMKilled" and not adopt.changed(c, status)


def _span(seconds: float) -> str:
    """Go's Duration.String() for whole seconds, which is what users know: 10s, 2m40s, 5m0s."""
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def _containers(
    pod: Pod, runtime: PodRuntime, memory: Memory, health: Health, ages: Mapping[str, float]
) -> Plan:
    p = _Planner(pod, runtime, memory, health, ages)
    for c in pod.spec.ephemeral_containers:
        # started once, whatever the others do, and never again
        status = p.status(c.name)
        known = c.name in memory.restarts or c.name in memory.finished
        if (status is None and not known) or (status is not None and status.state is ContainerState.CREATED):
            p.start(c)
    everything = _restart_all(p)
    if everything is not None:
        return Plan(actions=(*p.actions, everything), waiting=p.waiting)
    if memory.restart_all == restarts.STARTING:
        reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
        p.waiting |= {c.name: (reason, "") for c in pod.all_containers() if p.status(c.name) is None}
    if not _init(p):
        return p.plan()
    for c in pod.spec.containers:
        p.keep(c, partial(restarts.app, pod, c))
    return p.plan()


def _restart_all(p: _Planner) -> RestartAll | None:
    """Whether all containers are to start anew by now."""
    if p.memory.restart_all == restarts.ENDING:
        return RestartAll(name="", message="")
    for c in p.pod.all_containers():
        status = p.status(c.name)
        if status is None or status.state is not ContainerState.EXITED or not _in_sandbox(status, p):
            continue
        if restarts.everything(p.pod, c, status.exit_code):
            left = backoff.remaining_s(
                p.memory.delays.get(c.name),
                failed_at=status.finished_at,
                failed_for_s=p.ages.get(status.id, 0.0),
            )
            if left <= 0:
                code = status.exit_code
                return RestartAll(
                    name=c.name,
                    message=f"Container {c.name} exited with code {code}, restarting all containers",
                )
    return None


def _init(p: _Planner) -> bool:
    """Plan the init containers; True when the app containers may run."""
    pod = p.pod
    if not pod.spec.init_containers:
        return True
    # once an app container has run in this sandbox, plain init containers are history
    initialized = _initialized(p)
    for c in pod.spec.init_containers:
        status = p.status(c.name)
        if pod.is_sidecar(c):
            p.keep(c, lambda _: True)
            up = status is not None and status.state is ContainerState.RUNNING
            if initialized or (
                up and status is not None and (c.startup_probe is None or status.id in p.health.started)
            ):
                continue
            return False
        if initialized:
            continue
        if status is None or status.state is ContainerState.CREATED:
            p.start(c)
            return False
        if status.state is ContainerState.RUNNING:
            return False
        if status.state is ContainerState.UNKNOWN:
            p.kill(c, status, "Unknown", f"Container {c.name} is in an unknown state")
            return False
        if status.exit_code == 0 and _in_sandbox(status, p):
            continue
        if status.exit_code != 0 and not restarts.init(pod, c, status.exit_code):
            # the pod has failed; nothing more is started
            return False
        p.start(c)
        return False
    return True


def _in_sandbox(status: ContainerStatus, p: _Planner) -> bool:
    """Whether a container belongs to the sandbox in use: init containers run again in a new one."""
    sandbox = p.runtime.sandbox
    return sandbox is not None and status.sandbox_id == sandbox.id


def _initialized(p: _Planner) -> bool:
    for c in p.pod.spec.containers:
        status = p.status(c.name)
        if status is not None and status.state is not ContainerState.CREATED and _in_sandbox(status, p):
            return True
    return False


def init_failed(pod: Pod, runtime: PodRuntime) -> bool:
    """Whether an init container failed for good."""
    for c in pod.spec.init_containers:
        if pod.is_sidecar(c):
            continue
        status = runtime.latest(c.name)
        if status is not None and status.state is ContainerState.EXITED and status.exit_code != 0:
            return not restarts.init(pod, c, status.exit_code)
    return False
