"""In-place resize: what a pod was granted, what it should have, and how a running container gets there.  Pure.

A node grants a pod what it asks for when it is let in, and again whenever it asks for something else and there is room.  Until
then the pod goes on with what it was granted, and counts for that.

Source: kubelet, kuberuntime_manager.go (computePodResizeAction), allocation_manager.go (canResizePod), KEP-1287.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from edgecore.edged import quantity
from edgecore.edged.pod import Container, Pod, PodStatus, ResourceRequirements
from edgecore.edged.resources import WHOLE, pod_requests
from edgecore.edged.runtime import Resources

INFEASIBLE, DEFERRED, PENDING = "Infeasible", "Deferred", "PodResizePending"

Grant = Mapping[str, ResourceRequirements]
"""What the containers of a pod were granted, by their names; who is not there was granted nothing."""
_NOTHING = ResourceRequirements()


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pod does not have what it asks for: INFEASIBLE (the node never has so much) or DEFERRED (others have it now)."""

    reason: str
    message: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the resize of a pod is.

    running: containers that run with something else than they were granted.   error: why one of them could not be changed."""

    pending: Pending | None = None
    running: frozenset[str] = msgspec.field(default_factory=frozenset)
    error: str = ""

    @property
    def again(self) -> bool:
        """Whether another try may come to something else without a change of the pod."""
        return bool(self.running) or (self.pending is not None and self.pending.reason == DEFERRED)


class Way(enum.Enum):
    """How a running container gets its new resources."""

    NOTHING = "nothing"
    UPDATE = "update"
    RESTART = "restart"


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a container was given; as JSON it is put on the container and kept over restarts of the agent."""

    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0


def applied(r: Resources) -> Applied:
    return Applied(
        cpu_quota_us=r.cpu_quota_us, cpu_shares=r.cpu_shares, memory_limit_bytes=r.memory_limit_bytes
    )


def encode(a: Applied) -> str:
    return msgspec.json.encode(a).decode()


def last_told(status: PodStatus) -> dict[str, ResourceRequirements]:
    """What a status says that containers have, by their names."""
    statuses = (*status.init_container_statuses, *status.container_statuses)
    told = {
        s.name: s.resources if isinstance(s.resources, ResourceRequirements) else _NOTHING for s in statuses
    }
    return {name: found for name, found in told.items() if _readable(found)}


def decode(text: str) -> Applied | None:
    """None for a container of an agent that did not write it down: nothing is changed on it."""
    try:
        return msgspec.json.decode(text, type=Applied)
    except (msgspec.MsgspecError, RecursionError):
        return None


def grant(pod: Pod) -> dict[str, ResourceRequirements]:
    """All that a pod asks for."""
    return {c.name: c.resources for c in pod.all_containers() if c.resources != _NOTHING}


def granted_before(pod: Pod, status: PodStatus) -> dict[str, ResourceRequirements]:
    """What an agent granted that did not write it down: all that the pod asks for, unless it said that this had to wait."""
    found = grant(pod)
    if any(c.type == PENDING for c in status.conditions):
        for s in (*status.init_container_statuses, *status.container_statuses):
            if isinstance(s.resources, ResourceRequirements) and _readable(s.resources):
                found[s.name] = s.resources
    return found


def _readable(r: ResourceRequirements) -> bool:
    """Nobody checked a status, which may come from the cloud."""
    try:
        _amounts(r)
    except ValueError:
        return False
    return True


def with_grant(pod: Pod, given: Grant) -> Pod:
    """The pod as it may run now."""
    if not differs(pod, given):
        return pod

    def as_granted(c: Container) -> Container:
        return msgspec.structs.replace(c, resources=given.get(c.name, _NOTHING))

    return msgspec.structs.replace(
        pod,
        spec=msgspec.structs.replace(
            pod.spec,
            containers=[as_granted(c) for c in pod.spec.containers],
            init_containers=[as_granted(c) for c in pod.spec.init_containers],
        ),
    )


def differs(pod: Pod, given: Grant) -> bool:
    """Whether a pod asks for another amount of cpu or memory than it was granted."""
    return any(_amounts(c.resources) != _amounts(given.get(c.name, _NOTHING)) for c in pod.all_containers())


def _amounts(r: ResourceRequirements) -> list[int | None]:
    return [
        quantity.parse(amounts[name]) if name in amounts else None
        for amounts in (r.requests, r.limits)
        for name in WHOLE
    ]


def grows(pod: Pod, given: Grant) -> bool:
    """Whether a pod asks for more than it was granted."""
    has = pod_requests(with_grant(pod, given))
    return any(value > has.get(name, 0) for name, value in pod_requests(pod).items())


def beyond(pod: Pod, allocatable: Mapping[str, int]) -> str:
    """Why a node never has what a pod asks for; empty when it has.   allocatable: nano-units by resource name."""
    for name, value in pod_requests(pod).items():
        capacity = allocatable.get(name)
        if name in ("cpu", "memory") and capacity is not None and value > capacity:
            show = quantity.milli if name == "cpu" else quantity.units
            return f"Node didn't have enough capacity: {name}, requested: {show(value)}, capacity: {show(capacity)}"
    return ""


def decide(
    container: Container, has: Applied | None, wanted: Applied, told: ResourceRequirements | None = None
) -> Way:
    """How to bring a running container from what it has to what is wanted.

    told: what its status said last that it has.  Where that is what it is to have, nobody resized it: an agent before this one
    read the same pod in another way, and a container is not started again for that."""
    if has is None or has == wanted:
        return Way.NOTHING
    if told is not None and _amounts(told) == _amounts(container.resources):
        return Way.UPDATE
    policies: Mapping[str, str] = {p.resource_name: p.restart_policy for p in container.resize_policy}
    cpu = (has.cpu_quota_us, has.cpu_shares) != (wanted.cpu_quota_us, wanted.cpu_shares)
    memory = has.memory_limit_bytes != wanted.memory_limit_bytes
    for changed, name in ((cpu, "cpu"), (memory, "memory")):
        if changed and policies.get(name) == "RestartContainer":
            return Way.RESTART
    return Way.UPDATE
