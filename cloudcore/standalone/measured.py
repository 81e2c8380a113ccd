"""metrics.k8s.io/v1beta1: what nodes and pods use, in the shape that `kubectl top` reads.  Pure over the store.

Numbers come from nodes, and a node is believed about itself and the pods that are bound to it, about nothing else.
Source: k8s.io/metrics, pkg/apis/metrics/v1beta1/types.go; metrics-server, pkg/api, for what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from beehive import clock
from cloudcore.cloudstream.usage import NodeUsage, Usage
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.listing import Query
from cloudcore.standalone.status import not_found
from cloudcore.standalone.store import Record, Store

Json = dict[str, Any]
GROUP = "metrics.k8s.io"
VERSION = "v1beta1"
READ = ("get", "list")
OVER = ("Succeeded", "Failed")


class UsageSource(Protocol):
    """Whoever can read what nodes use."""

    async def usage(self) -> Mapping[str, NodeUsage]:
        """By node; one that was not measured twice is not in it."""
        ...


def rows() -> list[Kind]:
    """The kinds to serve when there is a source."""
    return [
        Kind(
            group=GROUP,
            version=VERSION,
            kind=kind,
            plural=plural,
            singular="",
            list_kind=f"{kind}List",
            namespaced=namespaced,
            verbs=READ,
            virtual=True,
        )
        for kind, plural, namespaced in (("NodeMetrics", "nodes", False), ("PodMetrics", "pods", True))
    ]


def listed(kind: Kind, store: Store, query: Query, used: Mapping[str, NodeUsage]) -> Json:
    """What was measured of the objects that a query selects; the others are left out."""
    records = store.select(("", kind.plural), query.namespace, query.matcher())
    items = [body for record in records if (body := _measured(kind, record, used)) is not None]
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": {}, "items": items}


def single(kind: Kind, store: Store, namespace: str, name: str, used: Mapping[str, NodeUsage]) -> Json:
    """What was measured of one.  Raises ApiError when it does not exist or was not measured yet."""
    record = store.get(("", kind.plural), namespace, name)
    body = _measured(kind, record, used) if record is not None else None
    if record is None:
        raise not_found(kind.plural, "", name)
    if body is None:
        raise not_found(kind.kind.lower(), GROUP, f"{namespace}/{name}" if namespace else name)
    return body


def _measured(kind: Kind, record: Record, used: Mapping[str, NodeUsage]) -> Json | None:
    if not kind.namespaced:
        on = used.get(record.name)
        if on is None or on.node is None:
            return None
        return {**_head(kind, record, on.at, on.node), "usage": _amounts(on.node)}
    pod = record.decode()
    spec = pod.get("spec") or {}
    on = used.get(spec.get("nodeName") or "")
    place = (record.namespace, record.name)
    if on is None or place in on.unready or (pod.get("status") or {}).get("phase") in OVER:
        return None
    known = {
        item.get("name")
        for field in ("containers", "initContainers", "ephemeralContainers")
        for item in spec.get(field) or ()
    }
    parts = {name: part for name, part in sorted(on.pods.get(place, {}).items()) if name in known}
    if not parts:
        return None
    longest = max(parts.values(), key=lambda part: part.window_s)
    containers = [{"name": name, "usage": _amounts(part)} for name, part in parts.items()]
    return {**_head(kind, record, on.at, longest), "containers": containers}


def _head(kind: Kind, record: Record, at: float, part: Usage) -> Json:
    moment = clock.rfc3339(datetime.fromtimestamp(at, UTC))
    metadata: Json = {"name": record.name, "creationTimestamp": moment}
    if kind.namespaced:
        metadata["namespace"] = record.namespace
    if record.labels:
        metadata["labels"] = record.labels
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "timestamp": moment,
        "window": f"{part.window_s:g}s",
    }


def _amounts(part: Usage) -> Json:
    return {"cpu": f"{part.cpu_nanocores}n", "memory": f"{part.memory_bytes // 1024}Ki"}
