"""Notice nodes that went silent, and mirror nodes' conditions in taints.

A node is silent when neither its lease nor its Ready heartbeat changed for the grace period, by our own clock: the
times a node writes are its own.  Its Ready turns Unknown and it is tainted, so nothing new goes there.  Its pods are
left alone for ever: they run on without us, and missing information is no reason to stop them.  Only when the node or its
group says so (`reschedule`) are they ended after that time, so that others take their place; and when somebody deletes the Node
object they are removed, after a delay.

Source: kubernetes, pkg/controller/nodelifecycle and pkg/controller/podgc."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cloudcore import reschedule
from cloudcore.standalone.controllers.base import Controller, Event, Item
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.store import Record
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]
NODES = ("", "nodes")
LEASES = ("coordination.k8s.io", "leases")
LEASE_NAMESPACE = "kube-node-lease"
GROUPS = ("apps.kubeedge.io", "nodegroups")
GRACE_S = 40.0
"""node-monitor-grace-period: leases are renewed every 10 s and live 40 s."""
QUARANTINE_S = 40.0
"""How long a Node must have been gone before its pods are removed."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
CONDITION_TAINTS = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
OURS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *CONDITION_TAINTS.values()})
NEVER_REPORTED = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
STOPPED = ("NodeStatusUnknown", "Kubelet stopped posting node status.")


def wanted_taints(node: Json) -> list[Json]:
    """The node's taints with ours as its conditions call for, others kept."""
    spec = node.get("spec") or {}
    before = spec.get("taints") or []
    conditions = {
        item["type"]: item.get("status") for item in (node.get("status") or {}).get("conditions") or ()
    }
    wanted: list[tuple[str, str]] = []
    ready = conditions.get("Ready")
    if ready in (None, "False"):
        wanted.append((NOT_READY, "NoSchedule"))
    if ready == "False":
        wanted.append((NOT_READY, "NoExecute"))
    if ready == "Unknown":
        wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    if spec.get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    wanted += [
        (key, "NoSchedule") for name, key in CONDITION_TAINTS.items() if conditions.get(name) == "True"
    ]
    kept = [
        taint
        for taint in before
        if taint.get("key") not in OURS or (taint["key"], taint.get("effect")) in wanted
    ]
    there = {(taint.get("key"), taint.get("effect")) for taint in kept}
    return kept + [{"key": key, "effect": effect} for key, effect in wanted if (key, effect) not in there]


def unknown_conditions(node: Json, now: str) -> list[Json]:
    """The conditions of a node that nothing is heard of."""
    found = list((node.get("status") or {}).get("conditions") or ())
    for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
        at = next((i for i, item in enumerate(found) if item["type"] == kind), None)
        reason, message = NEVER_REPORTED if at is None else STOPPED
        if at is None:
            created = node["metadata"].get("creationTimestamp", now)
            found.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": created,
                    "lastTransitionTime": now,
                }
            )
        elif found[at].get("status") != "Unknown":
            found[at] = {
                **found[at],
                "status": "Unknown",
                "reason": reason,
                "message": message,
                "lastTransitionTime": now,
            }
    return found


@dataclass(slots=True)
class _Heard:
    """The last sign of life of one node, and when we saw it (our clock)."""

    sign: tuple[str, str]
    at: float


class Nodes(Controller):
    """Items are (name,)."""

    name = "node-lifecycle-controller"
    watches = (NODES, LEASES)
    resync_s = 10.0

    def __init__(self, resources: Resources, *, clock: Callable[[], float], grace_s: float = GRACE_S) -> None:
        super().__init__(resources, clock=clock)
        self._grace = grace_s
        self._heard: dict[str, _Heard] = {}
        self._gone: dict[str, float] = {}

    def everything(self) -> Iterable[Item]:
        names = {record.name for record in self.store.select(NODES)}
        names |= {record.fields.get("spec.nodeName", "") for record in self.store.select(PODS)}
        return [(name,) for name in sorted(names - {""})]

    def concerns(self, event: Event) -> Iterable[Item]:
        if event.record.key == LEASES and event.record.namespace != LEASE_NAMESPACE:
            return []
        return [(event.record.name,)]

    async def reconcile(self, item: Item) -> float | None:
        name = item[0]
        node = self.get(NODES, "", name)
        if node is None:
            self._heard.pop(name, None)
            return await self._remove_pods(name)
        self._gone.pop(name, None)
        silent_s = self._silence(name, node)
        if silent_s >= self._grace:
            conditions = unknown_conditions(node, self.resources.timestamp())
            if conditions != (node.get("status") or {}).get("conditions"):
                ready = next(c for c in conditions if c["type"] == "Ready")
                await self.set_status(NODES, node, {**(node.get("status") or {}), "conditions": conditions})
                if ready["reason"] == STOPPED[0]:
                    await self.event(
                        node, "NodeNotReady", f"Node {name} status is now: NodeNotReady", warning=True
                    )
                node = self.get(NODES, "", name)
                if node is None:
                    return None
        taints = wanted_taints(node)
        if taints != (node["spec"].get("taints") or []):
            node["spec"].pop("taints", None)
            if taints:
                node["spec"]["taints"] = taints
            await self.resources.update(self.kind(NODES), "", name, node, self.options)
        if silent_s < self._grace:
            return max(self._grace - silent_s, 1.0)
        return await self._reschedule(name, node, silent_s - self._grace)

    async def _reschedule(self, name: str, node: Json, unknown_s: float) -> float | None:
        """End the pods of a node that is silent for as long as its owner waits.  Seconds until then."""
        after_s = reschedule.choose(_annotation(node), _annotation(self._group(node)), None)
        if after_s is None:
            return None
        if unknown_s < after_s:
            return after_s - unknown_s
        for record in self.store.select(PODS, matches=lambda record: _on(record, name)):
            pod = record.decode()
            if "deletionTimestamp" in pod["metadata"] or reschedule.stays(
                pod["spec"].get("tolerations") or []
            ):
                continue
            await self.resources.delete(
                self.kind(PODS), record.namespace, record.name, DeleteOptions(uid=record.uid)
            )
            text = f"Node {name} is silent for {int(unknown_s + self._grace)} s: the pod is made elsewhere if it is wanted"
            await self.event(pod, "NodeSilent", text, warning=True)
        return None

    def _group(self, node: Json) -> Json:
        name = (node["metadata"].get("labels") or {}).get(reschedule.GROUP_LABEL, "")
        if not name or self.resources.registry.stored(GROUPS) is None:
            return {}
        return self.get(GROUPS, "", name) or {}

    def _silence(self, name: str, node: Json) -> float:
        lease = self.get(LEASES, LEASE_NAMESPACE, name)
        ready: Json = next(
            (c for c in (node.get("status") or {}).get("conditions") or () if c["type"] == "Ready"), {}
        )
        renewed = ((lease or {}).get("spec") or {}).get("renewTime", "")
        # a Ready that we turned Unknown ourselves keeps its heartbeat, so it is no sign of life
        sign = (renewed, ready.get("lastHeartbeatTime") or "")
        heard = self._heard.get(name)
        now = self._clock()
        if heard is None or heard.sign != sign:
            self._heard[name] = _Heard(sign, now)
            return 0.0
        return now - heard.at

    async def _remove_pods(self, name: str) -> float | None:
        pods = self.store.select(PODS, matches=lambda record: _on(record, name))
        if not pods:
            self._gone.pop(name, None)
            return None
        now = self._clock()
        since = self._gone.setdefault(name, now)
        if now - since < QUARANTINE_S:
            return QUARANTINE_S - (now - since)
        for record in pods:
            await self.resources.delete(
                self.kind(PODS), record.namespace, record.name, DeleteOptions(grace_s=0, uid=record.uid)
            )
        return None


def _annotation(body: Json) -> str:
    found = ((body.get("metadata") or {}).get("annotations") or {}).get(reschedule.ANNOTATION)
    return found if isinstance(found, str) else ""


def _on(record: Record, name: str) -> bool:
    return record.fields.get("spec.nodeName") == name
