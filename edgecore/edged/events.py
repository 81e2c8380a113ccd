"""Kubernetes Events as a kubelet writes them, with repeats counted instead of repeated.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgecore.edged.pod import ObjectMeta
from edgecore.edged.status import timestamp

# client-go's spam filter: so many at once for one object, then one in five minutes
BURST = 25
REFILL_S = 300.0
# the same event again is counted, and the count is sent at most this often
REPEAT_S = 10.0
MAX_MESSAGE = 1024
MAX_KEYS = 256


class _Seen(msgspec.Struct):
    name: str
    first: float
    sent: float
    count: int


class Events:
    """The events of one object: `make` gives the JSON to send, or None when it is held back."""

    def __init__(self, involved: Mapping[str, str], namespace: str, node_name: str) -> None:
        """involved: what they are about.  namespace: where they live."""
        self._involved = involved
        self._namespace = namespace
        self._node = node_name
        self._seen: dict[tuple[str, str, str, str], _Seen] = {}
        self._tokens = float(BURST)
        self._refilled = 0.0

    def make(self, kind: str, reason: str, message: str, *, now: float, field: str = "") -> bytes | None:
        """kind: Normal or Warning.  field: the part of the pod that it is about, as in `Pod.field_path`."""
        message = message[:MAX_MESSAGE]
        key = (kind, reason, message, field)
        seen = self._seen.get(key)
        if seen is not None:
            seen.count += 1
            if now - seen.sent < REPEAT_S:
                return None
        if not self._take(now):
            return None
        if seen is None:
            if len(self._seen) >= MAX_KEYS:
                del self._seen[next(iter(self._seen))]
            suffix = f"{int(now * 1e6):x}{len(self._seen):02x}"
            seen = self._seen[key] = _Seen(f"{self._involved['name'][:230]}.{suffix}", now, now, 1)
        seen.sent = now
        involved = {**self._involved, "fieldPath": field} if field else self._involved
        return msgspec.json.encode(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": seen.name, "namespace": self._namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": "kubelet", "host": self._node},
                "firstTimestamp": timestamp(seen.first),
                "lastTimestamp": timestamp(now),
                "count": seen.count,
                "reportingComponent": "kubelet",
                "reportingInstance": self._node,
            }
        )

    def _take(self, now: float) -> bool:
        if self._refilled:
            self._tokens = min(BURST, self._tokens + max(0.0, now - self._refilled) / REFILL_S)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def of_pod(meta: ObjectMeta, node_name: str) -> Events:
    """A pod's."""
    involved = {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }
    return Events(involved, meta.namespace, node_name)


def of_node(node_name: str) -> Events:
    """The node's own, which as in a kubelet carry its name for a UID."""
    return Events({"kind": "Node", "name": node_name, "uid": node_name}, "default", node_name)
