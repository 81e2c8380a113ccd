"""ReplicaSets: keep as many pods as asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudcore.standalone.controllers.base import (
    Controller,
    Event,
    Item,
    is_active,
    is_ready,
    owner_of,
    reference_to,
    set_condition,
)
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.verbs import PODS, DeleteOptions

Json = dict[str, Any]
KEY = ("apps", "replicasets")
BURST = 100
"""Pods made or deleted in one look at one ReplicaSet."""


def pod_from_template(template: Json, owner: Json) -> Json:
    """A pod as `owner` makes it, without a name."""
    metadata = template.get("metadata") or {}
    made: Json = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [reference_to(owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if metadata.get(field):
            made[field] = metadata[field]
    return {"kind": "Pod", "apiVersion": "v1", "metadata": made, "spec": template["spec"]}


def deletion_order(pod: Json) -> tuple[Any, ...]:
    """Which pods go first: not scheduled, not running, not ready, cheap, young.

    Source: controller_utils.go, ActivePods; ages are compared by creation time, newest first."""
    status = pod.get("status") or {}
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    newest = pod["metadata"].get("creationTimestamp", "")
    return (
        bool(pod["spec"].get("nodeName")),
        phases.get(status.get("phase", "Pending"), 0),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        tuple(-ord(letter) for letter in newest),
    )


def replica_status(replica_set: Json, pods: list[Json], now: str, fault: str) -> Json:
    """The status of a ReplicaSet that has these active pods."""
    labels = (replica_set["spec"].get("template") or {}).get("metadata", {}).get("labels") or {}
    status: Json = {"replicas": len(pods), "observedGeneration": replica_set["metadata"].get("generation", 1)}
    labeled = sum(
        all((pod["metadata"].get("labels") or {}).get(k) == v for k, v in labels.items()) for pod in pods
    )
    ready = sum(is_ready(pod) for pod in pods)
    for name, value in (
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
    ):
        if value:
            status[name] = value
    conditions = (replica_set.get("status") or {}).get("conditions") or []
    if fault:
        status["conditions"] = set_condition(
            conditions,
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": fault},
            now,
        )
    else:
        kept = [item for item in conditions if item["type"] != "ReplicaFailure"]
        if kept:
            status["conditions"] = kept
    return status


class ReplicaSets(Controller):
    name = "replicaset-controller"
    watches = (KEY, PODS)

    def everything(self) -> Iterable[Item]:
        return self.ids(KEY)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == KEY:
            return [(record.namespace, record.name)]
        if not record.owners:
            return []
        owner = owner_of(record)
        if owner is None or owner.get("kind") != "ReplicaSet":
            return []
        return [(record.namespace, owner["name"])]

    async def reconcile(self, item: Item) -> float | None:
        namespace, name = item
        found = self.store.get(KEY, namespace, name)
        if found is None:
            return None
        replica_set = found.decode()
        fault = ""
        if "deletionTimestamp" not in replica_set["metadata"]:
            fault = await self._scale(replica_set)
        found = self.store.get(KEY, namespace, name)
        if found is None:
            return None
        replica_set = found.decode()
        status = replica_status(replica_set, self._pods(replica_set), self.resources.timestamp(), fault)
        await self.set_status(KEY, replica_set, status)
        return 5.0 if fault else None

    def _pods(self, replica_set: Json) -> list[Json]:
        pods = [
            record.decode()
            for record in self.store.dependents(replica_set["metadata"]["uid"])
            if record.key == PODS
        ]
        return [pod for pod in pods if is_active(pod)]

    async def _scale(self, replica_set: Json) -> str:
        pods = self._pods(replica_set)
        wanted = replica_set["spec"].get("replicas", 1)
        kind, namespace = self.kind(PODS), replica_set["metadata"]["namespace"]
        for _ in range(min(wanted - len(pods), BURST)):
            try:
                outcome = await self.resources.create(
                    kind,
                    namespace,
                    pod_from_template(replica_set["spec"]["template"], replica_set),
                    self.options,
                )
            except ApiError as error:
                await self.event(replica_set, "FailedCreate", f"Error creating: {error}", warning=True)
                return str(error)
            await self.event(
                replica_set, "SuccessfulCreate", f"Created pod: {outcome.body['metadata']['name']}"
            )
        surplus = len(pods) - wanted
        for pod in sorted(pods, key=deletion_order)[: max(min(surplus, BURST), 0)]:
            name = pod["metadata"]["name"]
            await self.resources.delete(kind, namespace, name, DeleteOptions(uid=pod["metadata"]["uid"]))
            await self.event(replica_set, "SuccessfulDelete", f"Deleted pod: {name}")
        return ""
