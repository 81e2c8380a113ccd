"""Delete the pods that a NoExecute taint of their node does not let stay.

Only taints that somebody put there count.  Those for a node that is not ready or not reachable are the control plane's
own guess about it, and its pods run on (see nodes.py).

Source: kubernetes, pkg/controller/tainteviction/taint_eviction.go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cloudcore.standalone.controllers.base import Controller, Event, Item
from cloudcore.standalone.controllers.nodes import OURS
from cloudcore.standalone.controllers.placement import tolerates
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]
NODES = ("", "nodes")


def stay_s(tolerations: list[Json], taints: list[Json]) -> float | None:
    """How long a pod may stay on a node with these taints, from when they were first seen; None for ever.  Pure."""
    limits: list[float] = []
    for taint in taints:
        if taint.get("effect") != "NoExecute" or taint.get("key") in OURS:
            continue
        used = [item for item in tolerations if tolerates([item], taint)]
        if not used:
            return 0.0
        limits += [
            float(max(0, seconds)) for item in used if (seconds := item.get("tolerationSeconds")) is not None
        ]
    return min(limits, default=None)


class TaintEvictions(Controller):
    """Items are (namespace, name) of pods, and (node,)."""

    name = "taint-eviction-controller"
    watches = (NODES, PODS)

    def __init__(self, resources: Resources, *, clock: Callable[[], float]) -> None:
        super().__init__(resources, clock=clock)
        # UID of a pod that may not stay for ever -> when that was first seen
        self._since: dict[str, float] = {}

    def everything(self) -> Iterable[Item]:
        pods = self.store.select(PODS)
        self._since = {uid: at for uid, at in self._since.items() if uid in {record.uid for record in pods}}
        return [(record.namespace, record.name) for record in pods if record.fields.get("spec.nodeName")]

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        return [(record.name,)] if record.key == NODES else [(record.namespace, record.name)]

    async def reconcile(self, item: Item) -> float | None:
        if len(item) == 1:
            self.touch(
                (record.namespace, record.name)
                for record in self.store.select(PODS)
                if record.fields.get("spec.nodeName") == item[0]
            )
            return None
        namespace, name = item
        pod = self.get(PODS, namespace, name)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return None
        uid = pod["metadata"]["uid"]
        node = self.get(NODES, "", pod["spec"].get("nodeName", "")) if pod["spec"].get("nodeName") else None
        taints = ((node or {}).get("spec") or {}).get("taints") or []
        limit = stay_s(pod["spec"].get("tolerations") or [], taints)
        if limit is None:
            self._since.pop(uid, None)
            return None
        left = self._since.setdefault(uid, self._clock()) + limit - self._clock()
        if left > 0:
            return left
        await self.event(pod, "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}")
        await self.resources.delete(self.kind(PODS), namespace, name, DeleteOptions(uid=uid))
        self._since.pop(uid, None)
        return None
