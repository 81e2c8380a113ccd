"""What the API says about nodes, pods and devices, cut down to what `skerry` shows.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    namespace: str
    name: str
    phase: str
    ready: bool
    ip: str = ""
    reason: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    namespace: str
    name: str
    state: str
    last_online: float
    """Seconds since 1970; 0 when never."""
    readings: Mapping[str, str]


def node(item: Object) -> Node:
    for condition in item.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            reason = condition.get("message") or condition.get("reason") or ""
            return Node(name=_name(item), ready=condition.get("status") == "True", reason=reason)
    return Node(name=_name(item), ready=False, reason="it has not reported yet")


def pod(item: Object) -> Pod:
    status = item.get("status", {})
    containers = status.get("containerStatuses") or []
    reason = status.get("reason") or ""
    for container in containers:
        for state in ("waiting", "terminated"):
            detail = container.get("state", {}).get(state)
            if detail and not reason:
                reason = ": ".join(text for text in (detail.get("reason"), detail.get("message")) if text)
    if not reason:
        for condition in status.get("conditions") or ():
            if condition.get("status") == "False" and condition.get("message"):
                reason = condition["message"]
                break
    ready = bool(containers) and all(container.get("ready") for container in containers)
    return Pod(
        namespace=item["metadata"].get("namespace", "default"),
        name=_name(item),
        phase=status.get("phase", "Pending"),
        ready=ready,
        ip=status.get("podIP") or "",
        reason="" if ready else reason,
        restarts=sum(container.get("restartCount", 0) for container in containers),
    )


def device(item: Object) -> Device:
    """Of a DeviceStatus."""
    status = item.get("status") or {}
    readings = {
        twin["propertyName"]: twin["reported"].get("value", "")
        for twin in status.get("twins") or ()
        if twin.get("propertyName") and twin.get("reported")
    }
    return Device(
        namespace=item["metadata"].get("namespace", "default"),
        name=_name(item),
        state=status.get("state") or "unknown",
        last_online=_seconds(status.get("lastOnlineTime")),
        readings=readings,
    )


def renewed(item: Object) -> float:
    """When a Lease was renewed last, in seconds since 1970; 0 when never."""
    return _seconds((item.get("spec") or {}).get("renewTime"))


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _name(item: Object) -> str:
    name: str = item["metadata"]["name"]
    return name
