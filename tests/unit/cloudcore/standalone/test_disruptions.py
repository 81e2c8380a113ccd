from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import disruptions
from cloudcore.standalone.controllers.placement import Node, preemption

Json = dict[str, Any]


def pod(name: str = "p", owner: str = "", *, ready: bool = True, ending: bool = False, **spec: Any) -> Json:
    metadata: Json = {"name": name, "namespace": "ns"}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def budget(**spec: Any) -> Json:
    return {"metadata": {"name": "b", "generation": 2}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "ready", "ill", "allowed"),
    [
        ({"minAvailable": 2}, 3, 0, 1),
        ({"minAvailable": 2}, 2, 1, 0),
        ({"minAvailable": "50%"}, 3, 1, 1),
        ({"maxUnavailable": 1}, 4, 0, 1),
        ({"maxUnavailable": 1}, 3, 1, 0),
        ({"maxUnavailable": "30%"}, 4, 0, 2),
        ({"minAvailable": 0}, 0, 0, 0),
    ],
)
def test_how_many_may_be_disrupted(spec: Json, ready: int, ill: int, allowed: int) -> None:
    pods = [pod(owner="o") for _ in range(ready)] + [pod(owner="o", ready=False) for _ in range(ill)]
    now = disruptions.status(budget(**spec), pods, {"o": 4})
    assert now["disruptionsAllowed"] == allowed
    assert (now["currentHealthy"], now["observedGeneration"]) == (ready, 2)


def test_a_pod_on_its_way_out_is_not_healthy() -> None:
    pods = [pod("a"), pod("b"), pod("c", ending=True)]
    assert disruptions.status(budget(minAvailable=2), pods, {})["disruptionsAllowed"] == 0


def test_who_may_be_evicted() -> None:
    spec = budget(minAvailable=2)
    full = disruptions.status(spec, [pod(), pod(), pod()], {})
    short = disruptions.status(spec, [pod(), pod()], {})
    assert disruptions.refusal("b", spec, full, pod()) == ""
    assert disruptions.refusal("b", spec, short, pod()) == (
        "The disruption budget b needs 2 healthy pods and has 2 currently"
    )
    # what is not healthy is let go while the others are enough, or always when the budget says so
    assert disruptions.refusal("b", spec, short, pod(ready=False)) == ""
    none = disruptions.status(spec, [pod()], {})
    assert disruptions.refusal("b", spec, none, pod(ready=False)) != ""
    always = budget(minAvailable=2, unhealthyPodEvictionPolicy="AlwaysAllow")
    assert disruptions.refusal("b", always, none, pod(ready=False)) == ""
    assert disruptions.refusal("b", spec, short, {**pod(), "status": {"phase": "Pending"}}) == ""


def node(name: str, *pods: Json, cpu: str = "2", **spec: Any) -> Node:
    made = Node.of(
        {
            "metadata": {"name": name},
            "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"}},
        }
    )
    for item in pods:
        made.add(item)
    return made


def asks(name: str, cpu: str, priority: int, **spec: Any) -> Json:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return pod(name, containers=[container], priority=priority, **spec)


def test_the_least_important_pods_make_room() -> None:
    nodes = [
        node("a", asks("a1", "1", 5), asks("a2", "1", 1)),
        node("b", asks("b1", "1", 2), asks("b2", "1", 2)),
    ]
    found = preemption(asks("new", "1", 10), nodes)
    assert found is not None
    assert (found[0], [item["metadata"]["name"] for item in found[1]]) == ("a", ["a2"])


def test_nobody_makes_room_in_vain() -> None:
    full = [node("a", asks("a1", "2", 5))]
    assert preemption(asks("new", "1", 5), full) is None
    assert preemption(asks("new", "3", 10), full) is None
    assert preemption(asks("new", "1", 10, preemptionPolicy="Never"), full) is None
    tainted = [node("a", asks("a1", "2", 1), taints=[{"key": "k", "effect": "NoSchedule"}])]
    assert preemption(asks("new", "1", 10), tainted) is None
    assert preemption(asks("new", "1", 10), full, lambda node: "no") is None
