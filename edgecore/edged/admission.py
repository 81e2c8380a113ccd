"""May a new pod run here?  Pure.

What runs already is never asked again: a full node refuses newcomers and ends nothing, except that a critical pod may end
others to get in.

Source: kubelet, lifecycle/predicate.go, preemption/preemption.go, eviction/eviction_manager.go (Admit).
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from beehive.message import UNREADABLE
from edgecore.edged import claims, quantity
from edgecore.edged.pod import Pod, Toleration
from edgecore.edged.resources import pod_requests, qos_class
from edgecore.edged.status import Outcome

REJECTED = "Pod was rejected: "
CRITICAL_PRIORITY = 2_000_000_000
NO_PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
PREEMPTING = Outcome(phase="Failed", reason="Preempting", message="Preempted in order to admit critical pod")
# containers would have the groups of the image's /etc/group, which they must not
STRICT_GROUPS = Outcome(
    phase="Failed",
    reason="SupplementalGroupsPolicyNotSupported",
    message="SupplementalGroupsPolicy=Strict is not supported in this node",
)
_COUNTED = ("cpu", "memory", "ephemeral-storage")
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm"}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """refused: why the pod may not run.  preempt: UIDs of pods that must end first, when it may."""

    refused: Outcome | None = None
    preempt: tuple[str, ...] = ()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """allocatable: nano-units by resource name.  pressures: the conditions that are on (MemoryPressure, ...).
    labels: the node's as the cloud has them; empty while that is not known.  strict_groups: whether its runtime can keep the
    image's groups away from containers."""

    allocatable: Mapping[str, int] = msgspec.field(default_factory=dict)
    max_pods: int = 110
    pressures: frozenset[str] = frozenset()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    strict_groups: bool = False


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()


def labels_of(node: bytes) -> dict[str, str]:
    """A Node's labels; none of one that cannot be read."""
    try:
        return msgspec.json.decode(node, type=_Labelled).metadata.labels or {}
    except UNREADABLE:
        return {}


def critical(pod: Pod) -> bool:
    """Whether a pod is one that a node cannot do without; static ones are given the priority."""
    return (pod.spec.priority or 0) >= CRITICAL_PRIORITY


def decide(pod: Pod, others: Sequence[Pod], room: Room) -> Decision:
    """others: the pods that were admitted and have not ended."""
    if pod.strict_groups and not room.strict_groups:
        return Decision(refused=STRICT_GROUPS)
    foreign = _foreign(pod, room.labels)
    if foreign is not None:
        return Decision(refused=foreign)
    if not critical(pod):
        low = _pressure(pod, room.pressures)
        if low is not None:
            return Decision(refused=low)
    if any(_collide(mine, theirs) for mine in _ports(pod) for other in others for theirs in _ports(other)):
        return Decision(refused=_failed("NodePorts", f"Pod was rejected: {NO_PORTS}"))
    device = claims.taken(pod, others)
    if device:
        return Decision(refused=_failed("OutOfDevices", f"Pod was rejected: another pod has device {device}"))
    short = _short(pod, others, room)
    if short is None:
        return Decision()
    if critical(pod):
        victims = _victims(pod, others, room)
        if victims:
            return Decision(preempt=victims)
    return Decision(refused=short)


def _foreign(pod: Pod, labels: Mapping[str, str]) -> Outcome | None:
    if pod.spec.os is not None and pod.spec.os.name not in ("", "linux"):
        return _failed("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    machine = platform.machine()
    wanted = {
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _ARCH.get(machine, machine),
    }
    has = {**labels, **wanted}
    for label, value in pod.spec.node_selector.items():
        if has.get(label) != value and (labels or label in wanted):
            return _failed(
                "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node selector"
            )
    return None


def _ports(pod: Pod) -> set[tuple[str, int, str]]:
    """Protocol, number and address of each port of the machine that a pod takes; an empty address is all of them."""
    return {
        (port.protocol, port.host_port, "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip)
        for container in (*pod.spec.containers, *filter(pod.is_sidecar, pod.spec.init_containers))
        for port in container.ports
        if port.host_port > 0
    }


def _collide(one: tuple[str, int, str], other: tuple[str, int, str]) -> bool:
    return one[:2] == other[:2] and (not one[2] or not other[2] or one[2] == other[2])


def _pressure(pod: Pod, pressures: Collection[str]) -> Outcome | None:
    on = [p for p in ("MemoryPressure", "DiskPressure", "PIDPressure") if p in pressures]
    if on == ["MemoryPressure"] and (
        qos_class(pod) != "BestEffort"
        or tolerates(pod.spec.tolerations, "node.kubernetes.io/memory-pressure")
    ):
        return None
    if not on:
        return None
    return _failed("Evicted", f"Pod was rejected: The node had condition: [{' '.join(on)}]. ")


def tolerates(tolerations: Iterable[Toleration], taint: str) -> bool:
    """Whether a taint with that key, no value and effect NoSchedule is tolerated."""
    return any(
        t.effect in ("", "NoSchedule")
        and (
            (not t.key and t.operator == "Exists")
            or (t.key == taint and (t.operator == "Exists" or not t.value))
        )
        for t in tolerations
    )


def _failed(reason: str, message: str) -> Outcome:
    return Outcome(phase="Failed", reason=reason, message=message)


def short(pod: Pod, others: Sequence[Pod], room: Room) -> str:
    """Why a pod that runs cannot have what it asks for beside the others; empty when it can."""
    found = _short(pod, others, room)
    return found.message.removeprefix(REJECTED) if found is not None else ""


def _short(pod: Pod, others: Sequence[Pod], room: Room) -> Outcome | None:
    if len(others) + 1 > room.max_pods:
        return _out("pods", 1, len(others), room.max_pods)
    asked = pod_requests(pod)
    used: dict[str, int] = {}
    for other in others:
        for name, value in pod_requests(other).items():
            used[name] = used.get(name, 0) + value
    extended = sorted(name for name in room.allocatable if "/" in name)
    for name in (*_COUNTED, *extended):
        want, have, capacity = asked.get(name, 0), used.get(name, 0), room.allocatable.get(name)
        if want and capacity is not None and want + have > capacity:
            show = quantity.milli if name == "cpu" else quantity.units
            return _out(name, show(want), show(have), show(capacity))
    return None


def _out(name: str, want: int, used: int, capacity: int) -> Outcome:
    return _failed(
        f"OutOf{name}",
        f"{REJECTED}Node didn't have enough resource: {name}, "
        f"requested: {want}, used: {used}, capacity: {capacity}",
    )


def _victims(pod: Pod, others: Sequence[Pod], room: Room) -> tuple[str, ...]:
    """Few and cheap pods whose end makes room: best effort first, then by what they are worth."""
    order = {"BestEffort": 0, "Burstable": 1, "Guaranteed": 2}
    candidates = sorted(
        (o for o in others if not critical(o) and (o.spec.priority or 0) < (pod.spec.priority or 0)),
        key=lambda o: (order[qos_class(o)], o.spec.priority or 0),
    )
    left = list(others)
    chosen: list[Pod] = []
    for candidate in candidates:
        if _short(pod, left, room) is None:
            break
        left.remove(candidate)
        chosen.append(candidate)
    if _short(pod, left, room) is not None:
        return ()
    # whoever would not have had to go stays, the most valuable first
    for candidate in reversed(list(chosen)):
        if _short(pod, [*left, candidate], room) is None:
            left.append(candidate)
            chosen.remove(candidate)
    return tuple(c.uid for c in chosen)
