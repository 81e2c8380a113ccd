"""StatefulSets: pods with names and volumes of their own, made and replaced in order.

The decision is `plan`.  A pod whose node is silent keeps its name and its volume: no second one is ever made beside it.
Unlike Kubernetes, a pod that never became ready does not block the update that would mend it.

Source: kubernetes, pkg/controller/statefulset."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cloudcore.standalone.controllers.base import Item, is_ready, reference_to
from cloudcore.standalone.controllers.owned import (
    FAULT_PAUSE_S,
    NODES,
    Workloads,
    available_in,
    pod_from_template,
)
from cloudcore.standalone.controllers.replicas import next_available
from cloudcore.standalone.controllers.revisions import LABEL, Revisions, template_of
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.status import ApiError

Json = dict[str, Any]
KEY = ("apps", "statefulsets")
CLAIMS = ("", "persistentvolumeclaims")
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordinals to make a pod for, and pods to delete, in this order."""

    make: list[int] = field(default_factory=list)
    end: list[Json] = field(default_factory=list)


def ordinal(name: str, pod: str) -> int:
    """The number of a pod of the set `name`; -1 when it is none."""
    tail = pod.removeprefix(f"{name}-")
    return int(tail) if tail != pod and tail.isdigit() and str(int(tail)) == tail else -1


def partition(spec: Json) -> int | None:
    """Pods from this ordinal on are updated; None when only deleting them updates them."""
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return None
    return int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def wanted_ordinals(spec: Json) -> range:
    start = int((spec.get("ordinals") or {}).get("start") or 0)
    return range(start, start + spec.get("replicas", 1))


def plan(stateful_set: Json, letters: str, pods: list[Json], now: datetime) -> Plan:
    """What to do next; `letters` name the template of today."""
    spec, name = stateful_set["spec"], stateful_set["metadata"]["name"]
    one_by_one = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    wait, from_on = spec.get("minReadySeconds", 0), partition(spec)
    by_ordinal = {ordinal(name, pod["metadata"]["name"]): pod for pod in pods}
    wanted = wanted_ordinals(spec)
    make: list[int] = []
    end: list[Json] = []

    def old(number: int, pod: Json) -> bool:
        ours = pod["metadata"].get("labels", {}).get(LABEL)
        return from_on is not None and number >= from_on and ours != letters

    def leaving(pod: Json) -> bool:
        return "deletionTimestamp" in pod["metadata"]

    for number in wanted:
        pod = by_ordinal.get(number)
        if pod is None:
            make.append(number)
        elif not leaving(pod) and (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            end.append(pod)
        elif available_in(pod, wait, now) == 0 and not leaving(pod):
            continue
        elif old(number, pod) and not leaving(pod) and not is_ready(pod):
            end.append(pod)
        if one_by_one:
            return Plan(make=make, end=end)
    condemned = sorted((n for n in by_ordinal if n >= 0 and n not in wanted), reverse=True)
    for number in condemned:
        if leaving(by_ordinal[number]):
            if one_by_one:
                return Plan(make=make, end=end)
            continue
        end.append(by_ordinal[number])
        if one_by_one:
            return Plan(make=make, end=end)
    if make or end:
        return Plan(make=make, end=end)
    for number in reversed(wanted):
        pod = by_ordinal[number]
        if old(number, pod) and not leaving(pod):
            return Plan(end=[pod])
        if available_in(pod, wait, now) != 0 or leaving(pod):
            return Plan()
    return Plan()


def stateful_pod(stateful_set: Json, template: Json, number: int, letters: str) -> Json:
    """The pod of one ordinal."""
    metadata, spec = stateful_set["metadata"], stateful_set["spec"]
    made = pod_from_template(copy.deepcopy(template), stateful_set)
    del made["metadata"]["generateName"]
    name = made["metadata"]["name"] = f"{metadata['name']}-{number}"
    labels = made["metadata"].get("labels") or {}
    made["metadata"]["labels"] = {**labels, LABEL: letters, POD_NAME: name, POD_INDEX: str(number)}
    made["spec"]["hostname"] = name
    if spec.get("serviceName"):
        made["spec"]["subdomain"] = spec["serviceName"]
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    others = [item for item in made["spec"].get("volumes") or () if item["name"] not in claims]
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims]
    if others or volumes:
        made["spec"]["volumes"] = [*volumes, *others]
    return made


def stateful_claims(stateful_set: Json, number: int) -> list[Json]:
    """The volume claims that the pod of one ordinal needs."""
    metadata, spec = stateful_set["metadata"], stateful_set["spec"]
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    found = []
    for template in spec.get("volumeClaimTemplates") or ():
        claim = copy.deepcopy(template)
        about = claim["metadata"]
        claim["metadata"] = {
            "name": f"{about['name']}-{metadata['name']}-{number}",
            "namespace": metadata["namespace"],
            "labels": {
                **(about.get("labels") or {}),
                **((spec.get("selector") or {}).get("matchLabels") or {}),
            },
            **({"annotations": about["annotations"]} if about.get("annotations") else {}),
        }
        if retention.get("whenDeleted") == "Delete":
            claim["metadata"]["ownerReferences"] = [reference_to(stateful_set)]
        claim.pop("status", None)
        found.append(claim)
    return found


def stateful_status(stateful_set: Json, pods: list[Json], current: str, update: str, now: datetime) -> Json:
    """`current` and `update` are the names of revisions."""
    spec, wait = stateful_set["spec"], stateful_set["spec"].get("minReadySeconds", 0)
    name = stateful_set["metadata"]["name"]
    standing = [pod for pod in pods if ordinal(name, pod["metadata"]["name"]) >= 0]
    live = [pod for pod in standing if "deletionTimestamp" not in pod["metadata"]]

    def of(revision: str) -> int:
        return sum(f"{name}-{pod['metadata'].get('labels', {}).get(LABEL)}" == revision for pod in live)

    ready = sum(is_ready(pod) for pod in live)
    available = sum(available_in(pod, wait, now) == 0 for pod in live)
    wanted = spec.get("replicas", 1)
    if partition(spec) == 0 and of(update) == len(standing) == ready == wanted:
        current = update
    status: Json = {
        "observedGeneration": stateful_set["metadata"].get("generation", 1),
        "replicas": len(standing),
        "availableReplicas": available,
        "collisionCount": 0,
        "currentRevision": current,
        "updateRevision": update,
    }
    for field_name, value in (
        ("readyReplicas", ready),
        ("currentReplicas", of(current)),
        ("updatedReplicas", of(update)),
    ):
        if value:
            status[field_name] = value
    return status


class StatefulSets(Workloads):
    name = "statefulset-controller"
    key, kind_name = KEY, "StatefulSet"
    watches = (KEY, PODS, NODES)

    async def reconcile(self, item: Item) -> float | None:
        stateful_set = self.get(KEY, *item)
        if stateful_set is None:
            return None
        pods = await self.claimed(stateful_set)
        if "deletionTimestamp" in stateful_set["metadata"]:
            return None
        revisions = Revisions(self, stateful_set)
        update = await revisions.current()
        known = {revision["metadata"]["name"]: revision for revision in revisions.all()}
        current = known.get((stateful_set.get("status") or {}).get("currentRevision", ""), update)
        now = self.resources.now()
        fault = await self._act(stateful_set, current, update, pods, now)
        fresh = self.get(KEY, *item)
        if fresh is None:
            return None
        pods = await self.claimed(fresh)
        names = current["metadata"]["name"], update["metadata"]["name"]
        await self.set_status(KEY, fresh, stateful_status(fresh, pods, *names, now))
        used = {pod["metadata"].get("labels", {}).get(LABEL, "") for pod in pods}
        used |= {revision["metadata"]["labels"][LABEL] for revision in (current, update)}
        await revisions.forget(used, fresh["spec"].get("revisionHistoryLimit", 10))
        if fault:
            return FAULT_PAUSE_S
        return next_available(pods, fresh["spec"].get("minReadySeconds", 0), now)

    async def _act(
        self, stateful_set: Json, current: Json, update: Json, pods: list[Json], now: datetime
    ) -> str:
        letters = update["metadata"]["labels"][LABEL]
        todo = plan(stateful_set, letters, pods, now)
        for pod in todo.end:
            await self.end(stateful_set, pod)
        from_on = partition(stateful_set["spec"])
        for number in todo.make:
            revision = current if from_on is None or number < from_on else update
            fault = await self._claims(stateful_set, number)
            fault = fault or await self.make(
                stateful_set,
                stateful_pod(
                    stateful_set, template_of(revision), number, revision["metadata"]["labels"][LABEL]
                ),
            )
            if fault:
                return fault
        return ""

    async def _claims(self, stateful_set: Json, number: int) -> str:
        for claim in stateful_claims(stateful_set, number):
            metadata = claim["metadata"]
            if self.store.head(CLAIMS, metadata["namespace"], metadata["name"]) is not None:
                continue
            try:
                await self.resources.create(self.kind(CLAIMS), metadata["namespace"], claim, self.options)
            except ApiError as error:
                await self.event(stateful_set, "FailedCreate", f"Error creating: {error}", warning=True)
                return str(error)
        return ""
