"""Objects as the table that kubectl prints.  Pure; the time is given.

A kubectl asks for a table first and prints what it gets; without one it shows names and ages only.  Pods and nodes have the
columns they have everywhere; every other kind has Name and Age.

Source: Kubernetes, meta/v1 Table; pkg/printers/internalversion (printPod, printNode); apimachinery's duration.HumanDuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from beehive import clock
from edgecore.metaserver.objects import Gvr

Json = dict[str, Any]
_NAME = ("Name", "string", "name", 0)
_AGE = ("Age", "string", "", 0)
_Column = tuple[str, str, str, int]

_POD: tuple[_Column, ...] = (
    _NAME,
    ("Ready", "string", "", 0),
    ("Status", "string", "", 0),
    ("Restarts", "integer", "", 0),
    _AGE,
    ("IP", "string", "", 1),
    ("Node", "string", "", 1),
)
_NODE: tuple[_Column, ...] = (
    _NAME,
    ("Status", "string", "", 0),
    ("Roles", "string", "", 0),
    _AGE,
    ("Version", "string", "", 0),
)


def wanted(accept: str) -> bool:
    """Whether a client would rather have a table than anything else."""
    first = accept.split(",")[0].replace(" ", "").lower()
    parts = first.split(";")
    return parts[0] == "application/json" and {"as=table", "v=v1", "g=meta.k8s.io"} <= set(parts[1:])


def table(
    gvr: Gvr,
    values: Iterable[bytes],
    *,
    version: int,
    now: float,
    more: str = "",
    include: str = "Metadata",
    head: bool = True,
) -> bytes:
    """more: the token that continues the list.   include: what of each object goes with its row, as `includeObject` says.
    head: with the columns' definitions, which a watch sends once only."""
    columns, cells = _KINDS.get((gvr.group, gvr.plural), ((_NAME, _AGE), _plain))
    rows = []
    for value in values:
        found: Json = msgspec.json.decode(value)
        rows.append({"cells": cells(found, now), "object": _object(found, include)})
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    definitions = [
        {"name": name, "type": kind, "format": form, "description": "", "priority": priority}
        for name, kind, form, priority in columns
    ]
    made: Json = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if head else [],
        "rows": rows,
    }
    return msgspec.json.encode(made)


def _object(found: Json, include: str) -> Json | None:
    if include == "None":
        return None
    if include == "Object":
        return found
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": found.get("metadata"),
    }


def _plain(found: Json, now: float) -> list[Any]:
    return [_name(found), _age(found, now)]


def _pod(found: Json, now: float) -> list[Any]:
    spec, state = _dict(found, "spec"), _dict(found, "status")
    containers = _list(state, "containerStatuses")
    restarts = sum(int(item.get("restartCount") or 0) for item in containers)
    ready = sum(1 for item in containers if item.get("ready"))
    return [
        _name(found),
        f"{ready}/{len(_list(spec, 'containers'))}",
        _pod_state(found, state, containers),
        restarts,
        _age(found, now),
        str(state.get("podIP") or "<none>"),
        str(spec.get("nodeName") or "<none>"),
    ]


def _pod_state(found: Json, state: Json, containers: list[Json]) -> str:
    """One word for how a pod is: the worst that one of its containers says, or its phase."""
    reason = str(state.get("reason") or state.get("phase") or "Unknown")
    inits = _list(state, "initContainerStatuses")
    for number, item in enumerate(inits):
        terminated, waiting = _dict(item, "state", "terminated"), _dict(item, "state", "waiting")
        if terminated and terminated.get("exitCode") == 0:
            continue
        why = terminated.get("reason") or waiting.get("reason") or ""
        reason = f"Init:{why}" if why not in ("", "PodInitializing") else f"Init:{number}/{len(inits)}"
        break
    else:
        running = False
        for item in reversed(containers):
            waiting, terminated = _dict(item, "state", "waiting"), _dict(item, "state", "terminated")
            if waiting.get("reason"):
                reason = str(waiting["reason"])
            elif terminated:
                code = terminated.get("exitCode")
                reason = str(terminated.get("reason") or f"ExitCode:{code}")
            elif item.get("ready") and _dict(item, "state", "running"):
                running = True
        if reason == "Completed" and running:
            reason = "Running"
    return "Terminating" if _dict(found, "metadata").get("deletionTimestamp") else reason


def _node(found: Json, now: float) -> list[Any]:
    conditions = _list(_dict(found, "status"), "conditions")
    ready = next((item.get("status") for item in conditions if item.get("type") == "Ready"), None)
    state = {"True": "Ready", "False": "NotReady"}.get(str(ready), "Unknown")
    if _dict(found, "spec").get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(
        key.removeprefix(prefix) for key in _dict(found, "metadata", "labels") if key.startswith(prefix)
    )
    return [
        _name(found),
        state,
        ",".join(roles) or "<none>",
        _age(found, now),
        str(_dict(found, "status", "nodeInfo").get("kubeletVersion") or ""),
    ]


_KINDS: dict[tuple[str, str], tuple[tuple[_Column, ...], Callable[[Json, float], list[Any]]]] = {
    ("", "pods"): (_POD, _pod),
    ("", "nodes"): (_NODE, _node),
}


def age(seconds: float) -> str:
    """A duration as kubectl shows it."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(0, whole)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    years = days // 365
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, unit: str, small: int, rest: str) -> str:
    return f"{large}{unit}{small}{rest}" if small else f"{large}{unit}"


def _age(found: Json, now: float) -> str:
    text = _dict(found, "metadata").get("creationTimestamp")
    try:
        return age(now - clock.parse_rfc3339(str(text)).timestamp())
    except ValueError:
        return "<unknown>"


def _name(found: Json) -> str:
    return str(_dict(found, "metadata").get("name", ""))


def _dict(found: Mapping[str, Any], *path: str) -> Json:
    """What is at the path, or an empty dict."""
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _list(found: Mapping[str, Any], name: str) -> list[Json]:
    value = found.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
