"""What an edge should see of endpoints: the API server beside it, and services that keep to its own node group.  Pure.

| object                                                  | becomes                                             |
|---------------------------------------------------------|-----------------------------------------------------|
| EndpointSlice or Endpoints `default/kubernetes`         | for a stock edge one endpoint: the node's own API   |
| those of a service with topology `range-nodegroup`      | only endpoints on nodes of the receiving node's group |
| everything else                                         | as it is                                            |

Pods of our edges find the API by their environment; the address it has on a node is the node's business.
KubeEdge applies the first to every item of a list, so that all services lose their addresses; here the name is tested.
Source: KubeEdge, cloud/pkg/dynamiccontroller/filter; protocol notes on the hub, 6.9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from beehive.application import Target
from beehive.message import UNREADABLE

TOPOLOGY_ANNOTATION = "apps.kubeedge.io/service-topology"
TOPOLOGY_GROUP = "range-nodegroup"
GROUP_LABEL = "apps.kubeedge.io/belonging-to"
SERVICE_LABEL = "kubernetes.io/service-name"
STOCK_HOST, STOCK_PORT = "127.0.0.1", 10550
"""Where KubeEdge's edges have their API."""

Json = dict[str, Any]
Members = Callable[[str, str], frozenset[str] | None]
"""Namespace and name of a service → the nodes that its endpoints may be on, or None for all."""


def concerns(target: Target) -> bool:
    """Whether objects of this resource are looked into at all."""
    return (target.group, target.resource) in (("", "endpoints"), ("discovery.k8s.io", "endpointslices"))


def service_of(found: Json) -> tuple[str, str]:
    """Namespace and name of the service that an EndpointSlice or Endpoints belongs to."""
    meta = found.get("metadata") or {}
    labels = meta.get("labels") or {}
    return str(meta.get("namespace", "")), str(labels.get(SERVICE_LABEL) or meta.get("name", ""))


def rewrite(body: bytes, members: Members, *, stock: bool) -> bytes:
    """An object, or a list of them, as the edge should see it.  What cannot be read goes through as it is."""
    try:
        found = msgspec.json.decode(body, type=Json)
    except UNREADABLE:
        return body
    items = found.get("items")
    changed = (
        [_one(item, members, stock=stock) for item in items if isinstance(item, dict)]
        if isinstance(items, list)
        else [_one(found, members, stock=stock)]
    )
    return msgspec.json.encode(found) if any(changed) else body


def _one(found: Json, members: Members, *, stock: bool) -> bool:
    namespace, service = service_of(found)
    if stock and (namespace, service) == ("default", "kubernetes"):
        host, port = STOCK_HOST, STOCK_PORT
        if "subsets" in found:
            ports = [{"name": "https", "port": port, "protocol": "TCP"}]
            found["subsets"] = [{"addresses": [{"ip": host}], "ports": ports}]
        else:
            found["endpoints"] = [{"addresses": [host], "conditions": {"ready": True}}]
            found["ports"] = [{"name": "https", "port": port, "protocol": "TCP"}]
        return True
    allowed = members(namespace, service)
    if allowed is None:
        return False
    for key in ("endpoints",):
        if isinstance(found.get(key), list):
            found[key] = [item for item in found[key] if _node(item) in allowed]
    for subset in found.get("subsets") or ():
        for key in ("addresses", "notReadyAddresses"):
            if isinstance(subset.get(key), list):
                subset[key] = [item for item in subset[key] if _node(item) in allowed]
    return True


def _node(item: Any) -> str:
    return str(item.get("nodeName", "")) if isinstance(item, dict) else ""
