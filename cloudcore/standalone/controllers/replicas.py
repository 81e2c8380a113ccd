"""ReplicaSets: keep as many pods as asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cloudcore.standalone.controllers.base import Item, is_active, is_ready, set_condition
from cloudcore.standalone.controllers.owned import (
    FAULT_PAUSE_S,
    NODES,
    Workloads,
    available_in,
    deletion_order,
    pod_from_template,
)
from cloudcore.standalone.ids import PODS

Json = dict[str, Any]
KEY = ("apps", "replicasets")
BURST = 100
"""Pods made or deleted in one look at one ReplicaSet."""


def plan(wanted: int, pods: list[Json]) -> tuple[int, list[Json]]:
    """(how many pods to make, which to delete) for these active pods."""
    surplus = max(min(len(pods) - wanted, BURST), 0)
    return max(min(wanted - len(pods), BURST), 0), sorted(pods, key=deletion_order)[:surplus]


def replica_status(replica_set: Json, pods: list[Json], now: datetime, stamp: str, fault: str) -> Json:
    """The status of a ReplicaSet that has these active pods.  `stamp` is `now` as the API writes it."""
    spec = replica_set["spec"]
    labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
    status: Json = {"replicas": len(pods), "observedGeneration": replica_set["metadata"].get("generation", 1)}
    labeled = sum(
        all((pod["metadata"].get("labels") or {}).get(k) == v for k, v in labels.items()) for pod in pods
    )
    wait = spec.get("minReadySeconds", 0)
    for name, value in (
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", sum(is_ready(pod) for pod in pods)),
        ("availableReplicas", sum(available_in(pod, wait, now) == 0 for pod in pods)),
    ):
        if value:
            status[name] = value
    conditions = (replica_set.get("status") or {}).get("conditions") or []
    if fault:
        status["conditions"] = set_condition(
            conditions,
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": fault},
            stamp,
        )
    else:
        kept = [item for item in conditions if item["type"] != "ReplicaFailure"]
        if kept:
            status["conditions"] = kept
    return status


def next_available(pods: list[Json], seconds: int, now: datetime) -> float | None:
    """Seconds until the next ready pod becomes available, if one will."""
    return min((left for pod in pods if (left := available_in(pod, seconds, now))), default=None)


class ReplicaSets(Workloads):
    name = "replicaset-controller"
    key, kind_name = KEY, "ReplicaSet"
    watches = (KEY, PODS, NODES)

    async def reconcile(self, item: Item) -> float | None:
        replica_set = self.get(KEY, *item)
        if replica_set is None:
            return None
        fault = ""
        if "deletionTimestamp" not in replica_set["metadata"]:
            fault = await self._scale(replica_set)
        replica_set = self.get(KEY, *item)
        if replica_set is None:
            return None
        pods = [pod for pod in await self.claimed(replica_set) if is_active(pod)]
        now = self.resources.now()
        status = replica_status(replica_set, pods, now, self.resources.timestamp(), fault)
        await self.set_status(KEY, replica_set, status)
        if fault:
            return FAULT_PAUSE_S
        return next_available(pods, replica_set["spec"].get("minReadySeconds", 0), now)

    async def _scale(self, replica_set: Json) -> str:
        pods = [pod for pod in await self.claimed(replica_set) if is_active(pod)]
        missing, surplus = plan(replica_set["spec"].get("replicas", 1), pods)
        for _ in range(missing):
            fault = await self.make(
                replica_set, pod_from_template(replica_set["spec"]["template"], replica_set)
            )
            if fault:
                return fault
        for pod in surplus:
            await self.end(replica_set, pod)
        return ""
