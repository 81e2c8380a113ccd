"""metrics.k8s.io without the cloud: what this node and its pods use, by the node's own measures.  Pure.

`kubectl top` reads it; of other nodes nothing is known here.

Source: k8s.io/metrics, pkg/apis/metrics/v1beta1/types.go; k8s.io/kubelet, pkg/apis/stats/v1alpha1/types.go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from beehive.errors import ProtocolError
from beehive.message import UNREADABLE
from edgecore.metaserver.objects import Gvr, Object

Json = dict[str, Any]
GROUP = "metrics.k8s.io"
OVER = ("Succeeded", "Failed")


class _List(msgspec.Struct, frozen=True, kw_only=True):
    items: list[msgspec.Raw] | None = None


class Measures(Protocol):
    """Whoever reads what the node and its containers use."""

    async def read(self) -> tuple[bytes, float]:
        """A stats/v1alpha1 Summary whose rates are of the last so many seconds.  Raises Unavailable."""
        ...


def source(gvr: Gvr) -> Gvr:
    """The kind whose objects are measured."""
    return Gvr("", "v1", gvr.plural)


def items(gvr: Gvr, found: Iterable[Object], summary: bytes, window_s: float) -> list[Json]:
    """What was measured of `found`, nodes or pods; those that are not of this node, or do not run, are left out.

    Raises ProtocolError: not a summary."""
    try:
        said: Json = msgspec.json.decode(summary)
        node: Json = said["node"]
        pods = {pod["podRef"]["uid"]: pod for pod in said.get("pods") or ()}
        if gvr.plural == "nodes":
            rows = [
                _head(gvr, item, node["cpu"]["time"], window_s) | {"usage": _amounts(node)}
                for item in found
                if item.name == node["nodeName"]
            ]
        else:
            rows = [
                row
                for item in found
                if item.uid in pods and (row := _pod(gvr, item, pods[item.uid], window_s)) is not None
            ]
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"cannot read what the node measured: {error!r}") from error
    return rows


def _pod(gvr: Gvr, item: Object, measured: Mapping[str, Any], window_s: float) -> Json | None:
    pod: Json = msgspec.json.decode(item.value)
    if (pod.get("status") or {}).get("phase") in OVER:
        return None
    containers = [{"name": part["name"], "usage": _amounts(part)} for part in measured["containers"]]
    if not containers:
        return None
    return _head(gvr, item, measured["cpu"]["time"], window_s) | {"containers": containers}


def _head(gvr: Gvr, item: Object, at: str, window_s: float) -> Json:
    metadata: Json = {"name": item.name, "creationTimestamp": at}
    if item.namespace:
        metadata["namespace"] = item.namespace
    if item.labels:
        metadata["labels"] = dict(item.labels)
    return {
        "kind": gvr.kind,
        "apiVersion": gvr.api_version,
        "metadata": metadata,
        "timestamp": at,
        "window": f"{window_s:.3f}s",
    }


def _amounts(measured: Mapping[str, Any]) -> Json:
    return {
        "cpu": f"{int(measured['cpu']['usageNanoCores'])}n",
        "memory": f"{int(measured['memory']['workingSetBytes']) // 1024}Ki",
    }


def list_body(gvr: Gvr, rows: list[Json]) -> bytes:
    return msgspec.json.encode(
        {"kind": f"{gvr.kind}List", "apiVersion": gvr.api_version, "metadata": {}, "items": rows}
    )


def rows(body: bytes) -> list[bytes]:
    """The items of a list, whoever made it.  Raises ProtocolError."""
    try:
        found = msgspec.json.decode(body, type=_List)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the list of measures: {error}") from error
    return [bytes(item) for item in found.items or ()]
