"""Give pods their nodes.  The decisions are in placement.py."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from cloudcore.standalone import volumes
from cloudcore.standalone.controllers.base import FIRST_RETRY_S, Controller, Event, Item, set_condition
from cloudcore.standalone.controllers.placement import Node, choose, preemption, priority, trimmed
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS, Key
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Record
from cloudcore.standalone.verbs import Resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
NODES = ("", "nodes")
CLAIMS, VOLUMES = ("", "persistentvolumeclaims"), ("", "persistentvolumes")
CLASSES = ("storage.k8s.io", "storageclasses")
NAME = "default-scheduler"
NO_CLAIMS = volumes.Needs("", lambda node: "")
_GENERATION = re.compile(rb'"generation":(\d+)')


def _asked(record: Record) -> tuple[object, ...]:
    """What is another one whenever a pod counts for another amount: it was resized, or that cannot be."""
    found = _GENERATION.search(record.body)
    return found and found[1], b'"reason":"Infeasible"' in record.body


class Scheduler(Controller):
    name = NAME
    watches = (PODS, NODES, CLAIMS, VOLUMES, CLASSES)

    def __init__(self, resources: Resources, *, clock: Callable[[], float]) -> None:
        super().__init__(resources, clock=clock)
        self._world: dict[str, Node] | None = None
        self._homes: dict[str, tuple[object, ...]] = {}
        """Where each pod is, by uid, with what else was known of it."""
        self._promised: dict[str, Record] = {}
        """The pods for which room was made and that are not there yet, by uid."""

    def everything(self) -> Iterable[Item]:
        # said at the start, after events were missed, and once a minute: what is remembered is looked up anew
        self._world = None
        return self._all_waiting()

    def _all_waiting(self) -> list[Item]:
        return [(record.namespace, record.name) for record in self.store.select(PODS, matches=_waiting)]

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == NODES:
            if not _node_matters(event):
                return []
            self._world = None
            return self._all_waiting()
        if record.key != PODS:
            return self._all_waiting()
        self._place(record, gone=event.type == "DELETED")
        if event.type == "DELETED":
            return self._all_waiting() if record.fields.get("spec.nodeName") else []
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
        done = self.resources.bind_soon(self.kind(PODS), pod, condition, self.options)
        # the next decision counts on this one, which is on its way to the disk
        bound = self.store.head(PODS, *item)
        if bound is not None:
            self._place(bound)
        if done is not None:
            done.add_done_callback(lambda landed: self._bound(landed, item))
        await self.event(pod, "Scheduled", f"Successfully assigned {item[0]}/{item[1]} to {decision.node}")
        return None

    def _bound(self, landed: asyncio.Future[None], item: Item) -> None:
        if landed.cancelled() or landed.exception() is None:
            return
        log.warning("Cannot bind %s: %s", "/".join(item), landed.exception())
        self._world = None
        self.touch_after(FIRST_RETRY_S, item)

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
        if self._world is None:
            self._world = self._look()
        nodes = dict(self._world)
        for record in self._promised.values():
            other, name = record.decode(), record.fields["status.nominatedNodeName"]
            if (
                name in nodes
                and other["metadata"]["uid"] != pod["metadata"]["uid"]
                and priority(other) >= priority(pod)
            ):
                nodes[name] = nodes[name].without([])
                nodes[name].add(other)
        return list(nodes.values())

    def _look(self) -> dict[str, Node]:
        """Every node with what runs on it."""
        self._homes.clear()
        self._promised.clear()
        world = {}
        for record in self.store.select(NODES):
            body = record.decode()
            if "deletionTimestamp" not in body["metadata"]:
                world[record.name] = Node.of(body)
        self._world = world
        for record in self.store.select(PODS):
            self._place(record)
        return world

    def _place(self, record: Record, *, gone: bool = False) -> None:
        """Bring one pod's place up to date; telling the same twice does no harm."""
        if self._world is None:
            return
        self._promised.pop(record.uid, None)
        if not gone and _nominated(record):
            self._promised[record.uid] = record
        ended = gone or record.fields.get("status.phase") in ("Succeeded", "Failed")
        name = "" if ended else record.fields.get("spec.nodeName", "")
        seen = (name, record.labels, self._ending(record) if name else False, _asked(record) if name else ())
        if self._homes.get(record.uid) == seen:
            return
        before = self._homes.pop(record.uid, None)
        if before is not None and before[0] in self._world:
            self._world[before[0]].remove(record.uid)
        if name:
            self._homes[record.uid] = seen
            if name in self._world:
                self._world[name].add(trimmed(record.decode()))

    def _ending(self, record: Record) -> bool:
        # the only thing about a pod's end that placement asks for, and bytes are cheaper to search than to decode
        return b'"deletionTimestamp"' in record.body and "deletionTimestamp" in record.decode()["metadata"]

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


def _nominated(record: Record) -> bool:
    return bool(record.fields.get("status.nominatedNodeName")) and _waiting(record)


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
