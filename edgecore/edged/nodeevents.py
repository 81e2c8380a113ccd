"""What is told of the node itself, with a kubelet's reasons.  Pure.

Source: kubelet, events/event.go, nodestatus/setters.go, kubelet_node_status.go (recordNodeStatusEvent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# condition -> reason while it is False, and while it is True
_REASONS = {
    "MemoryPressure": ("NodeHasSufficientMemory", "NodeHasInsufficientMemory"),
    "DiskPressure": ("NodeHasNoDiskPressure", "NodeHasDiskPressure"),
    "PIDPressure": ("NodeHasSufficientPID", "NodeHasInsufficientPID"),
    "Ready": ("NodeNotReady", "NodeReady"),
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """kind: Normal or Warning."""

    kind: str
    reason: str
    message: str


STARTING = Told(kind="Normal", reason="Starting", message="Starting kubelet.")
ENFORCED = Told(
    kind="Normal", reason="NodeAllocatableEnforced", message="Updated Node Allocatable limit across pods"
)
NO_IMAGE_DISK = Told(
    kind="Warning", reason="InvalidDiskCapacity", message="invalid capacity 0 on image filesystem"
)


def of_conditions(node: str, before: Mapping[str, tuple[str, str]], status: Mapping[str, Any]) -> list[Told]:
    """What is different now.  before: condition -> (status, transition), as in `node.Before`; without any, all is news."""
    found = []
    for condition in status.get("conditions", ()):
        name, now = condition["type"], condition["status"]
        was = before.get(name)
        if name in _REASONS and (was is None or was[0] != now):
            reason = _REASONS[name][now == "True"]
            found.append(Told(kind="Normal", reason=reason, message=f"Node {node} status is now: {reason}"))
    return found


def rebooted(node: str, before: str, now: str) -> Told | None:
    """The machine was started since edged last looked.  before, now: the kernel's boot ids; empty: not known."""
    if not before or not now or before == now:
        return None
    return Told(kind="Warning", reason="Rebooted", message=f"Node {node} has been rebooted, boot id: {now}")


def shortage(resource: str) -> Told:
    """Something is to be ended or removed for it.  resource: as a kubelet names it (memory, ephemeral-storage)."""
    return Told(kind="Warning", reason="EvictionThresholdMet", message=f"Attempting to reclaim {resource}")


def system_oom(pid: int, name: str) -> Told:
    """The kernel ended a program because the machine was out of memory."""
    return Told(
        kind="Warning",
        reason="SystemOOM",
        message=f"System OOM encountered, victim process: {name}, pid: {pid}",
    )


def unsafe_runtime(why: str) -> Told:
    """The container runtime does not keep images away from the machine."""
    return Told(kind="Warning", reason="UnsafeRuntime", message=why)


def images_stay(wanted: int, freed: int) -> Told:
    """The images' disk stays fuller than it should be.  Bytes."""
    return Told(
        kind="Warning",
        reason="FreeDiskSpaceFailed",
        message="Failed to garbage collect required amount of images. "
        f"Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free.",
    )
