"""Which node a pod fits on, and which of those is best.  Pure.

Source: kubernetes, pkg/scheduler/framework/plugins; the texts of reasons are the scheduler's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cloudcore.standalone import podresources, quantity
from cloudcore.standalone.selectors import BadSelector, Requirement, from_object

Json = dict[str, Any]
DEFAULT_PODS = 110


@dataclass(slots=True, kw_only=True)
class Node:
    """One node with what runs on it."""

    name: str
    labels: dict[str, str]
    taints: list[Json]
    unschedulable: bool
    allocatable: dict[str, Decimal]
    used: dict[str, Decimal] = field(default_factory=dict)
    pods: list[Json] = field(default_factory=list)
    ports: set[tuple[str, int]] = field(default_factory=set)
    apart: list[Json] = field(default_factory=list)
    """Those of `pods` that want no others of some kind near them."""
    owners: Counter[str] = field(default_factory=Counter)
    """How many of `pods` each object owns, by uid."""

    @classmethod
    def of(cls, body: Json) -> Node:
        status, spec = body.get("status") or {}, body.get("spec") or {}
        amounts = status.get("allocatable") or status.get("capacity") or {}
        return cls(
            name=body["metadata"]["name"],
            labels=body["metadata"].get("labels") or {},
            taints=spec.get("taints") or [],
            unschedulable=bool(spec.get("unschedulable")),
            allocatable={name: quantity.parse(amount) for name, amount in amounts.items()},
        )

    def add(self, pod: Json) -> None:
        self.pods.append(pod)
        for name, amount in requests(pod["spec"]).items():
            self.used[name] = self.used.get(name, Decimal(0)) + amount
        self.ports |= host_ports(pod["spec"])
        if _anti_affinity(pod):
            self.apart.append(pod)
        self.owners.update(_owners(pod))

    def remove(self, uid: str) -> None:
        """Take the pod with that uid away, if it is here."""
        pod = next((item for item in self.pods if item["metadata"].get("uid") == uid), None)
        if pod is None:
            return
        self.pods = [item for item in self.pods if item is not pod]
        for name, amount in requests(pod["spec"]).items():
            self.used[name] -= amount
        if host_ports(pod["spec"]):
            self.ports = set().union(*(host_ports(other["spec"]) for other in self.pods))
        self.apart = [other for other in self.apart if other is not pod]
        self.owners.subtract(_owners(pod))

    def without(self, gone: list[Json]) -> Node:
        """The same node on which some pods are not."""
        left = Node(
            name=self.name,
            labels=self.labels,
            taints=self.taints,
            unschedulable=self.unschedulable,
            allocatable=self.allocatable,
        )
        for pod in self.pods:
            if not any(pod is other for other in gone):
                left.add(pod)
        return left


KEPT_METADATA = ("uid", "name", "namespace", "labels", "ownerReferences", "deletionTimestamp")
KEPT_SPEC = ("affinity", "priority", "nodeName", "overhead", "resources")


def trimmed(pod: Json) -> Json:
    """What is needed to know of a pod that runs somewhere, and no more: thousands of these are held."""
    metadata, spec = pod["metadata"], pod["spec"]
    kept: Json = {name: spec[name] for name in KEPT_SPEC if spec.get(name)}
    given = _given(pod)
    for field_name in ("containers", "initContainers"):
        if spec.get(field_name):
            kept[field_name] = [
                _trimmed_container(container, given.get(container["name"])) for container in spec[field_name]
            ]
    kept_metadata = {name: metadata[name] for name in KEPT_METADATA if metadata.get(name)}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": kept_metadata, "spec": kept}


def _given(pod: Json) -> Json:
    """Of a pod that its node can never give what it asks for, what its containers have.

    Source: component-helpers, resource/helpers.go (determineContainerReqs)."""
    status = pod.get("status") or {}
    if not any(
        condition.get("type") == "PodResizePending" and condition.get("reason") == "Infeasible"
        for condition in status.get("conditions") or ()
    ):
        return {}
    return {
        item["name"]: item.get("allocatedResources") or {}
        for field_name in ("containerStatuses", "initContainerStatuses")
        for item in status.get(field_name) or ()
    }


def _trimmed_container(container: Json, given: Json | None) -> Json:
    kept: Json = {}
    asked = podresources.written(container, "requests") if given is None else given
    if asked:
        kept["resources"] = {"requests": asked}
    ports = [port for port in container.get("ports") or () if port.get("hostPort")]
    if ports:
        kept["ports"] = ports
    if container.get("restartPolicy"):
        kept["restartPolicy"] = container["restartPolicy"]
    return kept


def _owners(pod: Json) -> list[str]:
    return [str(ref.get("uid")) for ref in pod["metadata"].get("ownerReferences") or ()]


def _anti_affinity(pod: Json) -> list[Json]:
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []


def requests(spec: Json) -> podresources.Amounts:
    """What a pod asks for, with what its runtime needs beside."""
    return podresources.total(spec, "requests", overhead=True)


def host_ports(spec: Json) -> set[tuple[str, int]]:
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def tolerates(tolerations: list[Json], taint: Json) -> bool:
    for item in tolerations:
        if item.get("effect") and item["effect"] != taint.get("effect"):
            continue
        if item.get("key") and item["key"] != taint.get("key"):
            continue
        if item.get("operator", "Equal") == "Exists":
            return True
        if item.get("key") and item.get("value", "") == taint.get("value", ""):
            return True
    return False


def refusing_taint(tolerations: list[Json], taints: list[Json]) -> Json | None:
    return next(
        (
            taint
            for taint in taints
            if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint)
        ),
        None,
    )


def term_matches(term: Json, node: Node) -> bool:
    """A NodeSelectorTerm; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    names = {
        "In": "in",
        "NotIn": "notin",
        "Exists": "exists",
        "DoesNotExist": "absent",
        "Gt": "gt",
        "Lt": "lt",
    }
    for labels, items in ((node.labels, expressions), ({"metadata.name": node.name}, fields)):
        for item in items:
            operator = names.get(item.get("operator", ""))
            if operator is None:
                return False
            requirement = Requirement(item.get("key", ""), operator, frozenset(item.get("values") or ()))
            if not requirement.matches(labels):
                return False
    return True


def node_matches(spec: Json, node: Node) -> bool:
    """nodeSelector and required node affinity."""
    if any(node.labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def refusals(pod: Json, node: Node, nodes: list[Node]) -> list[str]:
    """Why `pod` cannot go to `node`; empty when it can."""
    spec = pod["spec"]
    tolerations = spec.get("tolerations") or []
    if node.unschedulable and not tolerates(
        tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    if not node_matches(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    taint = refusing_taint(tolerations, node.taints)
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"]
    if host_ports(spec) & node.ports:
        return ["node(s) didn't have free ports for the requested pod ports"]
    found = []
    if len(node.pods) + 1 > node.allocatable.get("pods", Decimal(DEFAULT_PODS)):
        found.append("Too many pods")
    for name, amount in sorted(requests(spec).items()):
        if amount and node.used.get(name, Decimal(0)) + amount > node.allocatable.get(name, Decimal(0)):
            found.append(f"Insufficient {name}")
    if found:
        return found
    if not _spread_allows(pod, node, nodes):
        return ["node(s) didn't match pod topology spread constraints"]
    return _affinity_refusals(pod, node, nodes)


def _domain(node: Node, key: str, nodes: list[Node]) -> list[Node]:
    value = node.labels.get(key)
    return [] if value is None else [other for other in nodes if other.labels.get(key) == value]


def _selected(term: Json, other: Json, home: str) -> bool:
    selector = from_object(term.get("labelSelector"))
    namespaces = term.get("namespaces") or [home]
    return (
        selector is not None
        and (other["metadata"].get("namespace") in namespaces or term.get("namespaceSelector") == {})
        and selector.matches(other["metadata"].get("labels") or {})
    )


def _affinity_refusals(pod: Json, node: Node, nodes: list[Node]) -> list[str]:
    affinity = pod["spec"].get("affinity") or {}
    home = pod["metadata"].get("namespace", "")
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    for term in (affinity.get("podAffinity") or {}).get(rule) or ():
        domain = _domain(node, term.get("topologyKey", ""), nodes)
        there = any(_selected(term, other, home) for one in domain for other in one.pods)
        anywhere = any(_selected(term, other, home) for one in nodes for other in one.pods)
        first = not anywhere and _selected(term, pod, home) and bool(domain)
        if not there and not first:
            return ["node(s) didn't match pod affinity rules"]
    for term in (affinity.get("podAntiAffinity") or {}).get(rule) or ():
        domain = _domain(node, term.get("topologyKey", ""), nodes)
        if any(_selected(term, other, home) for one in domain for other in one.pods):
            return ["node(s) didn't match pod anti-affinity rules"]
    for one in nodes:
        for other in one.apart:
            for term in _anti_affinity(other):
                if _selected(term, pod, other["metadata"].get("namespace", "")) and one in _domain(
                    node, term.get("topologyKey", ""), nodes
                ):
                    return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    return []


def _spread_allows(pod: Json, node: Node, nodes: list[Node]) -> bool:
    home = pod["metadata"].get("namespace", "")
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
            continue
        key = constraint.get("topologyKey", "")
        if key not in node.labels:
            return False
        counts: Counter[str] = Counter()
        for one in nodes:
            value = one.labels.get(key)
            if value is None or not node_matches(pod["spec"], one):
                continue
            counts[value] += sum(_selected(constraint, other, home) for other in one.pods)
        mine = int(_selected(constraint, pod, home))
        here = counts[node.labels[key]] + mine
        if here - min(counts.values(), default=0) > constraint.get("maxSkew", 1):
            return False
    return True


def score(pod: Json, node: Node, nodes: list[Node]) -> float:
    """Higher is better: room, preferred affinities, few pods like this one, preferred taints."""
    asked = requests(pod["spec"])
    room = []
    for name in ("cpu", "memory"):
        total = node.allocatable.get(name, Decimal(0))
        if total:
            room.append(
                float((total - node.used.get(name, Decimal(0)) - asked.get(name, Decimal(0))) / total)
            )
    points = 100 * (sum(room) / len(room) if room else 0.0)
    affinity = pod["spec"].get("affinity") or {}
    rule = "preferredDuringSchedulingIgnoredDuringExecution"
    for item in (affinity.get("nodeAffinity") or {}).get(rule) or ():
        if term_matches(item.get("preference") or {}, node):
            points += item.get("weight", 1)
    home = pod["metadata"].get("namespace", "")
    for name, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for item in (affinity.get(name) or {}).get(rule) or ():
            term = item.get("podAffinityTerm") or {}
            domain = _domain(node, term.get("topologyKey", ""), nodes)
            if any(_selected(term, other, home) for one in domain for other in one.pods):
                points += sign * item.get("weight", 1)
    tolerations = pod["spec"].get("tolerations") or []
    points -= 10 * sum(
        taint.get("effect") == "PreferNoSchedule" and not tolerates(tolerations, taint)
        for taint in node.taints
    )
    points -= 20 * sum(node.owners[uid] for uid in _owners(pod))
    return float(points - len(node.pods) * 0.1)


def preemption(
    pod: Json, nodes: list[Node], refuse: Callable[[Node], str] | None = None
) -> tuple[str, list[Json]] | None:
    """The node on which `pod` would fit if pods of lower priority went, and those pods; None when there is none.

    As few and as unimportant as can be.  Source: kubernetes, framework/preemption (budgets are not looked at)."""
    rank = priority(pod)
    if pod["spec"].get("preemptionPolicy") == "Never":
        return None
    found = []
    for node in nodes:
        lower = [other for other in node.pods if priority(other) < rank]
        if not lower or (refuse is not None and refuse(node)):
            continue
        left = node.without(lower)
        others = [left if one is node else one for one in nodes]
        if refusals(pod, left, others):
            continue
        victims = []
        for other in sorted(lower, key=priority, reverse=True):
            left.add(other)
            if refusals(pod, left, others):
                victims.append(other)
                gone = left.without([other])
                others = [gone if one is left else one for one in others]
                left = gone
        if victims:
            cost = (max(map(priority, victims)), sum(map(priority, victims)), len(victims), node.name)
            found.append((cost, node.name, victims))
    if not found:
        return None
    _, name, victims = min(found, key=lambda item: item[0])
    return name, victims


def priority(pod: Json) -> int:
    return int(pod["spec"].get("priority") or 0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Either a node, or the words why there is none."""

    node: str = ""
    message: str = ""


def choose(pod: Json, nodes: list[Node], refuse: Callable[[Node], str] | None = None) -> Decision:
    """`refuse`: a further reason against a node, empty when there is none."""
    if not nodes:
        return Decision(message="no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    fitting = []
    for node in nodes:
        try:
            found = refusals(pod, node, nodes)
            if not found and refuse is not None and (why := refuse(node)):
                found = [why]
        except BadSelector as error:
            found = [str(error)]
        if found:
            reasons.update(found)
        else:
            fitting.append(node)
    if fitting:
        # ties go by name, so that the same state gives the same answer
        best = max(fitting, key=lambda node: (score(pod, node, nodes), node.name))
        return Decision(node=best.name)
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return Decision(message=f"0/{len(nodes)} nodes are available: {listed}.")
