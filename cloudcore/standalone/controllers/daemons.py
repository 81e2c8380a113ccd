"""DaemonSets: one pod on every node that fits.

The decisions are `suits`, `plan` and `daemon_status`.  Pods of a node that nothing is heard of stay as they are.

Source: kubernetes, pkg/controller/daemon; the tolerations are those of AddOrUpdateDaemonPodTolerations."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from beehive import clock
from cloudcore.standalone.controllers.base import Event, Item, is_ready
from cloudcore.standalone.controllers.deployments import share
from cloudcore.standalone.controllers.owned import (
    FAULT_PAUSE_S,
    NODES,
    Workloads,
    available_in,
    is_silent,
    pod_from_template,
)
from cloudcore.standalone.controllers.placement import Node, node_matches, tolerates
from cloudcore.standalone.controllers.replicas import next_available
from cloudcore.standalone.controllers.revisions import LABEL, Revisions
from cloudcore.standalone.ids import PODS

Json = dict[str, Any]
KEY = ("apps", "daemonsets")
FAILED_PAUSE_S = 10.0
"""A pod that failed (evicted, refused by its node) is replaced when it is this old, so not in a tight loop."""
TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
TOLERATED_BY_HOST = ("node.kubernetes.io/network-unavailable", "NoSchedule")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def tolerations(spec: Json) -> list[Json]:
    """What pods with this spec tolerate when a DaemonSet made them."""
    found = list(spec.get("tolerations") or ())
    wanted = [*TOLERATED, *([TOLERATED_BY_HOST] if spec.get("hostNetwork") else [])]
    for key, effect in wanted:
        item = {"key": key, "operator": "Exists", "effect": effect}
        if item not in found:
            found.append(item)
    return found


def suits(spec: Json, node: Node) -> tuple[bool, bool]:
    """(should run there, may go on running there) for the template's pod spec."""
    if spec.get("nodeName", node.name) != node.name or not node_matches(spec, node):
        return False, False
    tolerated = tolerations(spec)
    refused = {taint.get("effect") for taint in node.taints if not tolerates(tolerated, taint)}
    return not refused & {"NoSchedule", "NoExecute"}, "NoExecute" not in refused


def node_of(pod: Json) -> str:
    """The node a pod is on or is meant for."""
    name: str = pod["spec"].get("nodeName", "")
    if name:
        return name
    rule = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED) or {}
    for term in rule.get("nodeSelectorTerms") or ():
        for item in term.get("matchFields") or ():
            if item.get("key") == "metadata.name" and item.get("operator") == "In" and item.get("values"):
                return str(item["values"][0])
    return ""


def daemon_pod(daemon_set: Json, node: str, letters: str) -> Json:
    """The pod for one node."""
    made = pod_from_template(daemon_set["spec"]["template"], daemon_set)
    made["metadata"]["labels"] = {**(made["metadata"].get("labels") or {}), LABEL: letters}
    spec = made["spec"] = copy.deepcopy(made["spec"])
    spec["tolerations"] = tolerations(spec)
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity[REQUIRED] = {"nodeSelectorTerms": [term]}
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Nodes to make a pod for, and pods to delete."""

    make: list[str] = field(default_factory=list)
    end: list[Json] = field(default_factory=list)
    again_s: float | None = None


def plan(daemon_set: Json, letters: str, nodes: list[Node], pods: list[Json], now: datetime) -> Plan:
    """`letters` name the template of today; pods have theirs in a label."""
    spec = daemon_set["spec"]["template"]["spec"]
    on: dict[str, list[Json]] = {}
    for pod in pods:
        on.setdefault(node_of(pod), []).append(pod)
    make: list[str] = []
    end: list[Json] = []
    again: float | None = None
    steady: dict[str, list[Json]] = {}
    for node in nodes:
        here = on.pop(node.name, [])
        run, stay = suits(spec, node)
        live = [pod for pod in here if "deletionTimestamp" not in pod["metadata"]]
        over = [pod for pod in live if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
        standing = [pod for pod in live if pod not in over]
        if not stay:
            end += live
            continue
        for pod in over:
            left = FAILED_PAUSE_S - _age(pod, now)
            if left <= 0:
                end.append(pod)
            else:
                again = left if again is None else min(again, left)
        if run and not here:
            make.append(node.name)
        # several of one template: the oldest stays
        seen: set[str] = set()
        for pod in standing:
            of = pod["metadata"].get("labels", {}).get(LABEL, "")
            if of in seen:
                end.append(pod)
            seen.add(of)
        if run and standing:
            steady[node.name] = [pod for pod in standing if pod not in end]
    for name, left_over in on.items():
        # without a node, and for a node that is not there: those that run on one are podgc's to judge
        end += [pod for pod in left_over if not pod["spec"].get("nodeName") or not name]
    wanted = sum(suits(spec, node)[0] for node in nodes)
    replaced, extra = _roll(daemon_set, letters, steady, wanted, now)
    return Plan(make=make + extra, end=end + replaced, again_s=again)


def _age(pod: Json, now: datetime) -> float:
    born = pod["metadata"].get("creationTimestamp")
    return (now - clock.parse_rfc3339(born)).total_seconds() if born else FAILED_PAUSE_S


def _roll(
    daemon_set: Json, letters: str, steady: dict[str, list[Json]], wanted: int, now: datetime
) -> tuple[list[Json], list[str]]:
    """(old pods to delete, nodes to surge on)."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return [], []
    rolling = strategy.get("rollingUpdate") or {}
    surge = share(rolling.get("maxSurge", 0), wanted, up=True)
    missing = share(rolling.get("maxUnavailable", 1), wanted, up=True)
    if surge == 0 and missing == 0:
        missing = 1
    wait = daemon_set["spec"].get("minReadySeconds", 0)

    def good(pods: list[Json]) -> bool:
        return any(available_in(pod, wait, now) == 0 for pod in pods)

    end: list[Json] = []
    make: list[str] = []
    standing = sum(good(pods) for pods in steady.values())
    budget = missing - (wanted - standing)
    surging = sum(len(pods) > 1 for pods in steady.values())
    for name, pods in steady.items():
        old = [pod for pod in pods if pod["metadata"].get("labels", {}).get(LABEL) != letters]
        new = [pod for pod in pods if pod not in old]
        if not old:
            continue
        if surge:
            if good(new):
                end += old
            elif not new and surging < surge:
                make.append(name)
                surging += 1
        elif not good(old):
            end += old
        elif budget > 0:
            end += old
            budget -= 1
    return end, make


def daemon_status(daemon_set: Json, letters: str, nodes: list[Node], pods: list[Json], now: datetime) -> Json:
    spec, wait = daemon_set["spec"]["template"]["spec"], daemon_set["spec"].get("minReadySeconds", 0)
    on: dict[str, list[Json]] = {}
    for pod in pods:
        if "deletionTimestamp" not in pod["metadata"]:
            on.setdefault(node_of(pod), []).append(pod)
    counts = dict.fromkeys(("wanted", "current", "wrong", "ready", "available", "updated"), 0)
    for node in nodes:
        run, _ = suits(spec, node)
        here = on.get(node.name, [])
        counts["wrong"] += bool(here) and not run
        if not run:
            continue
        counts["wanted"] += 1
        if here:
            first = here[0]
            counts["current"] += 1
            counts["ready"] += any(is_ready(pod) for pod in here)
            counts["available"] += any(available_in(pod, wait, now) == 0 for pod in here)
            counts["updated"] += first["metadata"].get("labels", {}).get(LABEL) == letters
    status: Json = {
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["wrong"],
        "desiredNumberScheduled": counts["wanted"],
        "numberReady": counts["ready"],
        "observedGeneration": daemon_set["metadata"].get("generation", 1),
    }
    for name, value in (
        ("updatedNumberScheduled", counts["updated"]),
        ("numberAvailable", counts["available"]),
        ("numberUnavailable", counts["wanted"] - counts["available"]),
    ):
        if value:
            status[name] = value
    return status


class DaemonSets(Workloads):
    name = "daemonset-controller"
    key, kind_name = KEY, "DaemonSet"
    watches = (KEY, PODS, NODES)

    def node_matters(self, event: Event) -> bool:
        if event.before is None or event.type == "DELETED":
            return True
        before, after = event.before.decode(), event.record.decode()

        def seen(body: Json) -> tuple[Any, ...]:
            return body["metadata"].get("labels"), (body.get("spec") or {}).get("taints"), is_silent(body)

        return seen(before) != seen(after)

    async def reconcile(self, item: Item) -> float | None:
        daemon_set = self.get(KEY, *item)
        if daemon_set is None:
            return None
        pods = await self.claimed(daemon_set)
        again: float | None = None
        revisions = Revisions(self, daemon_set)
        if "deletionTimestamp" in daemon_set["metadata"]:
            return None
        letters = (await revisions.current())["metadata"]["labels"][LABEL]
        now = self.resources.now()
        todo = plan(daemon_set, letters, self._nodes(), pods, now)
        again = todo.again_s
        for pod in todo.end:
            await self.end(daemon_set, pod)
        for node in todo.make:
            if await self.make(daemon_set, daemon_pod(daemon_set, node, letters)):
                again = FAULT_PAUSE_S
                break
        fresh = self.get(KEY, *item)
        if fresh is None:
            return None
        pods = await self.claimed(fresh)
        await self.set_status(KEY, fresh, daemon_status(fresh, letters, self._nodes(), pods, now))
        used = {pod["metadata"].get("labels", {}).get(LABEL, "") for pod in pods}
        await revisions.forget({*used, letters}, fresh["spec"].get("revisionHistoryLimit", 10))
        soon = next_available(pods, fresh["spec"].get("minReadySeconds", 0), now)
        return min((value for value in (again, soon) if value is not None), default=None)

    def _nodes(self) -> list[Node]:
        bodies: Iterable[Json] = (record.decode() for record in self.store.select(NODES))
        return [Node.of(body) for body in bodies if "deletionTimestamp" not in body["metadata"]]
