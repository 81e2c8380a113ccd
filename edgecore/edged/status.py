"""What the runtime shows of a pod -> PodStatus, as a kubelet reports it.  Pure.

Source: kubelet_pods.go (getPhase, convertToAPIContainerStatuses), status/generate.go (conditions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from edgecore.edged import closure, resize, restarts
from edgecore.edged.pod import (
    Condition,
    Container,
    ContainerStatusJson,
    HostIp,
    Pod,
    PodStatus,
    Quantity,
    ResourceRequirements,
    State,
    StateRunning,
    StateTerminated,
    StateWaiting,
)
from edgecore.edged.resources import qos_class
from edgecore.edged.runtime import ContainerState, ContainerStatus, PodRuntime

PREFIX = "containerd://"
IN_PROGRESS = "PodResizeInProgress"
# conditions of this node's own that are there only while they are so
PASSING = (resize.PENDING, IN_PROGRESS)
# Ways in which a node ends a pod that has done nothing wrong.
# KEP-5532: while every container is ended to be started anew
_RESTARTING = "AllContainersRestarting"
_DISRUPTIONS = ("Evicted", "Preempting", "Terminated")
LOST_MESSAGE = "The container could not be located when the pod was terminated"


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes say, by container id.  A container without such a probe is in neither set.

    not_ready: its readiness probe has not succeeded (last).  not_started: its startup probe has not succeeded yet.
    """

    not_ready: frozenset[str] = frozenset()
    not_started: frozenset[str] = frozenset()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a pod was ended by the node rather than by its containers: DeadlineExceeded, Evicted, ..."""

    phase: str
    reason: str
    message: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a status is made from besides the pod and the runtime.

    restart_all: where a restart of all containers is, as in restarts.
    held: the pod waits for somebody at the edge to let it start.
    resizing: where that is.   granted: what containers may use now, by their names; who is not there as their spec says.
    missing: what it needs to start again and is not on this node.
    waiting: container -> (reason, message) of those held back.  messages: container id -> termination message.
    """

    now: float
    previous: PodStatus = msgspec.field(default_factory=PodStatus)
    waiting: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    verdicts: Verdicts = msgspec.field(default_factory=Verdicts)
    messages: Mapping[str, str] = msgspec.field(default_factory=dict)
    host_ips: tuple[str, ...] = ()
    outcome: Outcome | None = None
    terminated: bool = False
    resizing: resize.Progress = msgspec.field(default_factory=resize.Progress)
    granted: resize.Grant = msgspec.field(default_factory=dict)
    held: bool = False
    restart_all: str = ""
    missing: tuple[str, ...] = ()


def timestamp(seconds: float) -> str:
    """Unix seconds as metav1.Time."""
    return datetime.fromtimestamp(max(0.0, seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compute_status(pod: Pod, runtime: PodRuntime, view: View) -> PodStatus:
    """The whole status of a pod.

    A restart count never goes down; a phase that is final stays; a condition keeps its time while its status is the same.
    """
    previous = {
        s.name: s
        for s in (
            *view.previous.init_container_statuses,
            *view.previous.container_statuses,
            *view.previous.ephemeral_container_statuses,
        )
    }
    ephemeral = [
        _container(pod, c, runtime, view, previous.get(c.name), init=False)
        for c in pod.spec.ephemeral_containers
    ]
    init = [
        _container(pod, c, runtime, view, previous.get(c.name), init=True) for c in pod.spec.init_containers
    ]
    app = [_container(pod, c, runtime, view, previous.get(c.name), init=False) for c in pod.spec.containers]
    phase = compute_phase(pod, init, app)
    if view.outcome is not None:
        phase = view.outcome.phase
    elif view.previous.phase in ("Succeeded", "Failed"):
        phase = view.previous.phase
    elif view.terminated and phase not in ("Succeeded", "Failed"):
        # every container is gone: a pod that was ended has succeeded or failed, it is not pending any more
        phase = "Failed" if any(_failed(s) for s in app) or not app else "Succeeded"
    if phase in ("Succeeded", "Failed"):
        app = [replace(s, ready=False) for s in app]
    ips = runtime.ips
    if pod.spec.host_network:
        ips = view.host_ips if runtime.sandbox is not None else ()
    if not ips and view.previous.pod_ip:
        # a kubelet goes on showing the last address of a pod whose sandbox is gone
        ips = tuple(ip.ip for ip in view.previous.pod_ips)
    outcome = view.outcome
    status = PodStatus(
        observed_generation=pod.metadata.generation,
        phase=phase,
        reason=outcome.reason if outcome is not None else "",
        message=outcome.message if outcome is not None else "",
        host_ip=view.host_ips[0] if view.host_ips else "",
        host_ips=[HostIp(ip=ip) for ip in view.host_ips],
        pod_ip=ips[0] if ips else "",
        pod_ips=[HostIp(ip=ip) for ip in ips],
        start_time=view.previous.start_time or timestamp(view.now),
        init_container_statuses=init,
        container_statuses=app,
        # they are never ready: nothing waits for them
        ephemeral_container_statuses=[replace(s, ready=False) for s in ephemeral],
        qos_class=qos_class(pod),
    )
    return replace(status, conditions=_conditions(pod, runtime, status, view))


def _failed(s: ContainerStatusJson) -> bool:
    return s.state.terminated is None or s.state.terminated.exit_code != 0


def _container(
    pod: Pod,
    c: Container,
    runtime: PodRuntime,
    view: View,
    previous: ContainerStatusJson | None,
    *,
    init: bool,
) -> ContainerStatusJson:
    records = [r for r in runtime.containers if r.name == c.name]
    latest = records[0] if records else None
    count = max(
        latest.restart_count if latest is not None else 0,
        previous.restart_count if previous is not None else 0,
    )
    last = _last_state(latest, records, view, previous)
    if latest is None:
        return _without_record(pod, c, view, previous, count, last)
    container_id = PREFIX + latest.id
    held = view.waiting.get(c.name)
    started: bool | None = False
    ready = False
    if latest.state is ContainerState.RUNNING:
        state = State(running=StateRunning(started_at=timestamp(latest.started_at)))
        started = latest.id not in view.verdicts.not_started
        ready = started and latest.id not in view.verdicts.not_ready
        if init and not pod.is_sidecar(c):
            ready = False
    elif latest.state is ContainerState.EXITED:
        ended = _terminated(latest, view)
        if held is not None and not view.terminated:
            state = State(waiting=StateWaiting(reason=held[0], message=held[1]))
            last = State(terminated=ended)
        else:
            state = State(terminated=ended)
            ready = init and latest.exit_code == 0 and not pod.is_sidecar(c)
    elif latest.state is ContainerState.CREATED:
        reason, message = held or ("ContainerCreating", "")
        state = State(waiting=StateWaiting(reason=reason, message=message))
    elif previous is not None and previous.container_id == container_id:
        # the runtime does not know: say what was last known
        return previous
    else:
        state = State(waiting=StateWaiting(reason="ContainerStatusUnknown"))
    return ContainerStatusJson(
        name=c.name,
        state=state,
        last_state=last,
        ready=ready,
        restart_count=count,
        image=latest.image or c.image,
        image_id=latest.image_ref,
        container_id=container_id,
        started=started,
        resources=_resources(c, view, previous),
        allocated_resources=_allocated(c, view),
    )


def _allocated(c: Container, view: View) -> dict[str, Quantity] | UnsetType:
    """What the node keeps for a container."""
    return dict(view.granted.get(c.name, c.resources).requests) or UNSET


def _resources(
    c: Container, view: View, previous: ContainerStatusJson | None
) -> ResourceRequirements | UnsetType:
    """What a container runs with: what it was granted, or had before a resize that has not happened yet."""
    if c.name in view.resizing.running and previous is not None:
        return previous.resources
    found = view.granted.get(c.name, c.resources)
    return found if found != ResourceRequirements() else UNSET


def _last_state(
    latest: ContainerStatus | None,
    records: list[ContainerStatus],
    view: View,
    previous: ContainerStatusJson | None,
) -> State:
    for record in records[1:]:
        if record.state is ContainerState.EXITED:
            return State(terminated=_terminated(record, view))
    if previous is None:
        return State()
    if latest is not None and previous.container_id == PREFIX + latest.id:
        return previous.last_state
    # its own record is gone already; what was reported of it is what is known
    if previous.state.terminated is not None:
        return State(terminated=previous.state.terminated)
    if previous.state.running is not None and previous.container_id is not UNSET:
        return State(
            terminated=StateTerminated(
                exit_code=137,
                reason="ContainerStatusUnknown",
                message=LOST_MESSAGE,
                container_id=previous.container_id,
            )
        )
    return previous.last_state


def _without_record(
    pod: Pod,
    c: Container,
    view: View,
    previous: ContainerStatusJson | None,
    count: int,
    last: State,
) -> ContainerStatusJson:
    """A container of which the runtime has nothing: not started yet, or its record is gone."""
    held = view.waiting.get(c.name)
    if previous is not None and held is None:
        if previous.state.terminated is not None:
            return previous
        if view.terminated and last.terminated is not None:
            return replace(previous, state=last, last_state=State(), ready=False, started=False)
    if held is None:
        reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
        held = (reason, "")
    return ContainerStatusJson(
        name=c.name,
        state=State(waiting=StateWaiting(reason=held[0], message=held[1])),
        last_state=last,
        ready=False,
        restart_count=count,
        image=c.image,
        started=False,
    )


def _terminated(record: ContainerStatus, view: View) -> StateTerminated:
    reason = record.reason or ("Completed" if record.exit_code == 0 else "Error")
    return StateTerminated(
        exit_code=record.exit_code,
        reason=reason,
        message=view.messages.get(record.id, record.message),
        started_at=timestamp(record.started_at),
        finished_at=timestamp(record.finished_at),
        container_id=PREFIX + record.id,
    )


def compute_phase(pod: Pod, init: Iterable[ContainerStatusJson], app: Iterable[ContainerStatusJson]) -> str:
    """The phase that container states add up to."""
    by_name = {c.name: c for c in pod.all_containers()}
    for s in init:
        if pod.is_sidecar(by_name[s.name]):
            if not s.started and s.state.terminated is None and s.last_state.terminated is None:
                return "Pending"
            continue
        ended = s.state.terminated
        if ended is None:
            # one that failed and waits for its next try keeps the pod pending, as does one that runs
            return "Pending"
        if ended.exit_code != 0:
            return "Pending" if restarts.init(pod, by_name[s.name], ended.exit_code) else "Failed"
    waiting = running = stopped = succeeded = coming = 0
    for s in app:
        ended = s.state.terminated or s.last_state.terminated
        if s.state.running is not None:
            running += 1
        elif ended is not None:
            stopped += 1
            succeeded += s.state.terminated is not None and ended.exit_code == 0
            # one that waits is on its way
            coming += s.state.terminated is None or restarts.app(pod, by_name[s.name], ended.exit_code)
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or coming or not stopped:
        return "Running" if running or coming else "Pending"
    return "Succeeded" if stopped == succeeded else "Failed"


def _conditions(pod: Pod, runtime: PodRuntime, status: PodStatus, view: View) -> list[Condition]:
    generation = pod.metadata.generation
    made: list[Condition] = []

    def add(kind: str, ok: bool, reason: str = "", message: str = "") -> None:  # noqa: FBT001
        made.append(
            Condition(
                type=kind,
                status="True" if ok else "False",
                reason="" if ok and reason != "PodCompleted" else reason,
                message="" if ok else message,
                observed_generation=generation,
            )
        )

    sandbox = runtime.sandbox
    add(
        "PodReadyToStartContainers",
        sandbox is not None and sandbox.ready and (pod.spec.host_network or bool(sandbox.ips)),
    )
    add("Initialized", *_initialized(pod, status))
    containers = _containers_ready(pod, status)
    add("Ready", *_ready(pod, containers))
    add("ContainersReady", *containers)
    add("PodScheduled", True)
    if view.outcome is not None and view.outcome.reason in _DISRUPTIONS:
        made.append(
            Condition(
                type="DisruptionTarget",
                status="True",
                reason="TerminationByKubelet",
                message=view.outcome.message,
                observed_generation=generation,
            )
        )
    restarting = view.restart_all == restarts.ENDING
    if restarting or any(c.type == _RESTARTING for c in view.previous.conditions):
        made.append(
            Condition(
                type=_RESTARTING,
                status="True" if restarting else "False",
                reason="ContainerExited" if restarting else "",
                observed_generation=generation,
            )
        )
    pending = view.resizing.pending
    if pending is not None:
        made.append(
            Condition(
                type=resize.PENDING,
                status="True",
                reason=pending.reason,
                message=pending.message,
                observed_generation=generation,
            )
        )
    if view.resizing.running:
        made.append(
            Condition(
                type=IN_PROGRESS,
                status="True",
                reason="Error" if view.resizing.error else "",
                message=view.resizing.error,
                observed_generation=generation,
            )
        )
    if pod.on_hold:
        reason = "HoldUpgradeEnabled" if view.held else ""
        made.append(
            Condition(
                type="HeldUpgrade",
                status="True" if view.held else "False",
                reason=reason,
                observed_generation=generation,
            )
        )
    if view.missing or any(c.type == closure.CONDITION for c in view.previous.conditions):
        add(
            closure.CONDITION,
            not view.missing,
            closure.REASON if view.missing else "",
            closure.sentence(view.missing) if view.missing else "",
        )
    before = {c.type: c for c in view.previous.conditions}
    out = []
    for c in made:
        old = before.pop(c.type, None)
        same = old is not None and old.status == c.status and old.last_transition_time is not None
        out.append(
            replace(c, last_transition_time=old.last_transition_time if same and old else timestamp(view.now))
        )
    # conditions of others (readiness gates, DisruptionTarget) stay as they were
    ours = {c.type for c in out}
    out += [c for c in pod.status.conditions if c.type not in ours and c.type not in PASSING]
    return out


def _names(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _initialized(pod: Pod, status: PodStatus) -> tuple[bool, str, str]:
    if status.phase == "Succeeded":
        return True, "PodCompleted", ""
    by_name = {c.name: c for c in pod.spec.init_containers}
    unfinished = [
        s.name
        for s in status.init_container_statuses
        if not (s.started if pod.is_sidecar(by_name[s.name]) else s.ready)
    ]
    # a pod whose app containers have run was initialized, even when a later sandbox repeats its init containers
    if unfinished and not any(s.state.running or s.state.terminated for s in status.container_statuses):
        return False, "ContainersNotInitialized", f"containers with incomplete status: {_names(unfinished)}"
    return True, "", ""


def _containers_ready(pod: Pod, status: PodStatus) -> tuple[bool, str, str]:
    if status.phase == "Succeeded":
        return False, "PodCompleted", ""
    if status.phase == "Failed":
        return False, "PodFailed", ""
    by_name = {c.name: c for c in pod.spec.init_containers}
    unready = [
        s.name for s in status.init_container_statuses if pod.is_sidecar(by_name[s.name]) and not s.ready
    ]
    unready += [s.name for s in status.container_statuses if not s.ready]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: {_names(unready)}"
    return True, "", ""


def _ready(pod: Pod, containers: tuple[bool, str, str]) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    conditions = {c.type: c.status for c in pod.status.conditions}
    unmet = [g.condition_type for g in pod.spec.readiness_gates if conditions.get(g.condition_type) != "True"]
    if unmet:
        texts = []
        for name in unmet:
            if name in conditions:
                texts.append(
                    f'the status of pod readiness gate "{name}" is not "True", but {conditions[name]}'
                )
            else:
                texts.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        return False, "ReadinessGatesNotReady", "; ".join(texts)
    return True, "", ""


def failed_status(
    raw_generation: int, previous: PodStatus, reason: str, message: str, now: float
) -> PodStatus:
    """The status of a pod that cannot be run at all."""
    return PodStatus(
        observed_generation=raw_generation,
        phase="Failed",
        reason=reason,
        message=message,
        start_time=previous.start_time or timestamp(now),
        conditions=[
            Condition(
                type="Ready",
                status="False",
                reason="PodFailed",
                message=message,
                observed_generation=raw_generation,
                last_transition_time=timestamp(now),
            )
        ],
        container_statuses=previous.container_statuses,
        init_container_statuses=previous.init_container_statuses,
    )
