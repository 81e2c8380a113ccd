"""Give pods their nodes.  The decisions are in placement.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudcore.standalone import volumes
from cloudcore.standalone.controllers.base import Controller, Event, Item, set_condition
from cloudcore.standalone.controllers.placement import Node, choose, preemption, priority
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Key, Record
from cloudcore.standalone.verbs import PODS, DeleteOptions

Json = dict[str, Any]
NODES = ("", "nodes")
CLAIMS, VOLUMES = ("", "persistentvolumeclaims"), ("", "persistentvolumes")
CLASSES = ("storage.k8s.io", "storageclasses")
NAME = "default-scheduler"
NO_CLAIMS = volumes.Needs("", lambda node: "")


class Scheduler(Controller):
    name = NAME
    watches = (PODS, NODES, CLAIMS, VOLUMES, CLASSES)

    def everything(self) -> Iterable[Item]:
        return [(record.namespace, record.name) for record in self.store.select(PODS, matches=_waiting)]

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == NODES:
            return self.everything() if _node_matters(event) else []
        if record.key != PODS:
            return self.everything()
        if event.type == "DELETED":
            return self.everything() if record.fields.get("spec.nodeName") else []
        return [(record.namespace, record.name)] if _waiting(record) else []

    async def reconcile(self, item: Item) -> float | None:
        record = self.store.get(PODS, *item)
        if record is None or not _waiting(record):
            return None
        pod = record.decode()
        if "deletionTimestamp" in pod["metadata"] or pod["spec"].get("schedulingGates"):
            return None
        wants = self._wants(pod)
        if wants.fault:
            await self._unschedulable(pod, wants.fault)
            return None
        nodes = self._nodes(pod)
        decision = choose(pod, nodes, wants.refuse)
        if not decision.node:
            await self._unschedulable(pod, decision.message)
            await self._make_room(pod, nodes, wants)
            return None
        if wants.waiting:
            # the claims get their volumes on this node first; the pod is looked at again when they have
            await self._select_node(wants.waiting, decision.node)
            return None
        pod["spec"]["nodeName"] = decision.node
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self.resources.timestamp(),
        }
        await self.resources.bind(self.kind(PODS), pod, condition, self.options)
        await self.event(pod, "Scheduled", f"Successfully assigned {item[0]}/{item[1]} to {decision.node}")
        return None

    async def _make_room(self, pod: Json, nodes: list[Node], wants: volumes.Needs) -> None:
        """Let pods of lower priority go when that lets this one fit; it is looked at again when they have gone."""
        rank = priority(pod)
        nominated = (pod.get("status") or {}).get("nominatedNodeName")
        for node in nodes:
            if node.name == nominated and any(
                "deletionTimestamp" in other["metadata"] and priority(other) < rank for other in node.pods
            ):
                return
        found = preemption(pod, nodes, wants.refuse)
        if found is None:
            return
        name, victims = found
        fresh = self.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        if fresh is None:
            return
        await self.set_status(PODS, fresh, {**(fresh.get("status") or {}), "nominatedNodeName": name})
        for victim in victims:
            metadata = victim["metadata"]
            text = f"Preempted by pod {pod['metadata']['uid']} on node {name}"
            await self.event(victim, "Preempted", text)
            try:
                await self.resources.delete(
                    self.kind(PODS),
                    metadata["namespace"],
                    metadata["name"],
                    DeleteOptions(uid=metadata["uid"]),
                )
            except ApiError as error:
                if error.code not in (404, 409):
                    raise

    def _wants(self, pod: Json) -> volumes.Needs:
        if not volumes.claim_names(pod["spec"]):
            return NO_CLAIMS

        def named(key: Key, namespace: str = "") -> dict[str, Json]:
            return {record.name: record.decode() for record in self.store.select(key, namespace)}

        claims = named(CLAIMS, pod["metadata"]["namespace"])
        return volumes.needs(pod["spec"], claims, named(VOLUMES), named(CLASSES))

    async def _select_node(self, claims: Iterable[Json], node: str) -> None:
        for claim in claims:
            metadata = claim["metadata"]
            notes = metadata.setdefault("annotations", {})
            if notes.get(volumes.SELECTED_NODE) != node:
                notes[volumes.SELECTED_NODE] = node
                await self.resources.update(
                    self.kind(CLAIMS), metadata["namespace"], metadata["name"], claim, self.options
                )

    def _nodes(self, pod: Json) -> list[Node]:
        """As `pod` finds them: with what runs there, and what room was made for."""
        nodes = {}
        for record in self.store.select(NODES):
            body = record.decode()
            if "deletionTimestamp" not in body["metadata"]:
                nodes[record.name] = Node.of(body)
        for record in self.store.select(PODS):
            node = nodes.get(record.fields.get("spec.nodeName", ""))
            if node is not None and record.fields.get("status.phase") not in ("Succeeded", "Failed"):
                node.add(record.decode())
            nominated = nodes.get(record.fields.get("status.nominatedNodeName", ""))
            if nominated is not None and _waiting(record):
                other = record.decode()
                if other["metadata"]["uid"] != pod["metadata"]["uid"] and priority(other) >= priority(pod):
                    nominated.add(other)
        return list(nodes.values())

    async def _unschedulable(self, pod: Json, message: str) -> None:
        status = dict(pod.get("status") or {})
        old: Json = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), {})
        if (old.get("status"), old.get("message")) == ("False", message):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
        }
        status["conditions"] = set_condition(
            status.get("conditions") or [], condition, self.resources.timestamp()
        )
        await self.set_status(PODS, pod, status)
        await self.event(pod, "FailedScheduling", message, warning=True)


def _waiting(record: Record) -> bool:
    return (
        not record.fields.get("spec.nodeName")
        and record.fields.get("spec.schedulerName") == NAME
        and record.fields.get("status.phase") in ("Pending", "")
    )


def _node_matters(event: Event) -> bool:
    """Whether a node's change can let a pod fit; heartbeats cannot."""
    if event.before is None or event.type == "DELETED":
        return True
    before, after = event.before.decode(), event.record.decode()

    def seen(body: Json) -> tuple[Any, ...]:
        return (
            body["metadata"].get("labels"),
            body.get("spec"),
            (body.get("status") or {}).get("allocatable"),
        )

    return seen(before) != seen(after)
