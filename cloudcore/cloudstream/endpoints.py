"""What a Node says of where its kubelet is: at the hub, on a port of its own.  Pure.

The API server connects to the node's first InternalIP and to `status.daemonEndpoints.kubeletEndpoint.Port`.  An edge cannot be
reached at its own address, so the hub writes its own there; the board's stay in an annotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from beehive.message import UNREADABLE

OWN_ADDRESSES = "skerry.dev/node-addresses"
"""Annotation: the InternalIP addresses the edge itself reported, separated by commas."""


class Ports:
    """One port for each node, out of a range.  A node keeps the port it has been told of."""

    def __init__(self, first: int, last: int) -> None:
        self._range = range(first, last + 1)
        self._by_node: dict[str, int] = {}
        self._taken: dict[int, str] = {}

    def of(self, node: str, told: int = 0) -> int | None:
        """The node's port; `told`: what its Node object says.  None when the range is used up."""
        port = self._by_node.get(node)
        if port is not None:
            return port
        candidates = [told] if told in self._range and told not in self._taken else self._range
        for port in candidates:
            if port not in self._taken:
                self._by_node[node], self._taken[port] = port, node
                return port
        return None

    def bad(self, node: str) -> None:
        """Somebody else listens on the node's port: never give it again."""
        port = self._by_node.pop(node, None)
        if port is not None:
            self._taken[port] = ""

    def release(self, node: str) -> None:
        """The node is deleted."""
        port = self._by_node.pop(node, None)
        if port is not None:
            del self._taken[port]


def with_endpoint(patch: Mapping[str, Any], address: str, port: int) -> dict[str, Any]:
    """A patch of a Node's status as the edge sent it, with the hub's address and the node's port.

    What has a wrong form is left for the API to say so."""
    out = dict(patch)
    given, metadata = patch.get("status") or {}, patch.get("metadata") or {}
    if not isinstance(given, Mapping) or not isinstance(metadata, Mapping):
        return out
    status = dict(given)
    addresses = status.get("addresses")
    annotations = metadata.get("annotations") or {}
    if isinstance(addresses, list) and isinstance(annotations, Mapping):
        own: list[str] = []
        rest: list[Any] = []
        for item in addresses:
            if isinstance(item, Mapping) and item.get("type") == "InternalIP":
                own.append(str(item.get("address", "")))
            else:
                rest.append(item)
        status["addresses"] = [{"type": "InternalIP", "address": address}, *rest]
        out["metadata"] = {**metadata, "annotations": {**annotations, OWN_ADDRESSES: ",".join(own)}}
    status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    out["status"] = status
    return out


class _Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    Port: int = 0


class _Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    kubeletEndpoint: _Endpoint = _Endpoint()


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    daemonEndpoints: _Endpoints = _Endpoints()


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    status: _Status = _Status()


def told_port(node: bytes) -> int:
    """The port that a Node object names; 0 if it names none."""
    try:
        return msgspec.json.decode(node, type=_Node).status.daemonEndpoints.kubeletEndpoint.Port
    except UNREADABLE:
        return 0
