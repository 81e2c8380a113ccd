"""In-place resize: what a running container has, what it should have, and how to get there.  Pure.

Source: kubelet, kuberuntime_manager.go (computePodResizeAction), KEP-1287.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from edgecore.edged import quantity
from edgecore.edged.pod import Container, Pod
from edgecore.edged.resources import pod_requests
from edgecore.edged.runtime import Resources


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


def decode(text: str) -> Applied | None:
    """None for a container of an agent that did not write it down: nothing is changed on it."""
    try:
        return msgspec.json.decode(text, type=Applied)
    except (msgspec.MsgspecError, RecursionError):
        return None


def beyond(pod: Pod, allocatable: Mapping[str, int]) -> str:
    """Why a node never has what a pod asks for; empty when it has.   allocatable: nano-units by resource name."""
    for name, value in pod_requests(pod).items():
        capacity = allocatable.get(name)
        if name in ("cpu", "memory") and capacity is not None and value > capacity:
            show = quantity.milli if name == "cpu" else quantity.units
            return f"Node didn't have enough capacity: {name}, requested: {show(value)}, capacity: {show(capacity)}"
    return ""


def decide(container: Container, has: Applied | None, wanted: Applied) -> Way:
    """How to bring a running container from what it has to what is wanted."""
    if has is None or has == wanted:
        return Way.NOTHING
    policies: Mapping[str, str] = {p.resource_name: p.restart_policy for p in container.resize_policy}
    cpu = (has.cpu_quota_us, has.cpu_shares) != (wanted.cpu_quota_us, wanted.cpu_shares)
    memory = has.memory_limit_bytes != wanted.memory_limit_bytes
    for changed, name in ((cpu, "cpu"), (memory, "memory")):
        if changed and policies.get(name) == "RestartContainer":
            return Way.RESTART
    return Way.UPDATE
