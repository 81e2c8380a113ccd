from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cloudcore.standalone.autoscale import Memory, MetricError, Used, decide, measure

Json = dict[str, Any]


def pod(name: str, *, ready: bool = True, cpu: str | None = "100m", phase: str = "Running") -> Json:
    resources = {"requests": {"cpu": cpu, "memory": "100Mi"}} if cpu else {}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": resources}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def use(*cpu_millis: int) -> Used:
    return {f"p{n}": {"c": (Decimal(m) / 1000, Decimal(50 * 2**20))} for n, m in enumerate(cpu_millis)}


def cpu(percent: int = 50) -> Json:
    return resource("cpu", averageUtilization=percent)


def resource(name: str, **target: Any) -> Json:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def pods(number: int, **more: Any) -> list[Json]:
    return [pod(f"p{n}", **more) for n in range(number)]


@pytest.mark.parametrize(
    ("millis", "wanted"),
    [((50, 50), 2), ((54, 54), 2), ((46, 46), 2), ((100, 100), 4), ((200, 100), 6), ((10, 10), 1)],
)
def test_replicas_follow_the_load(millis: tuple[int, ...], wanted: int) -> None:
    found = measure(cpu(), 2, pods(2), use(*millis))
    assert found.replicas == wanted
    share = found.current["resource"]["current"]["averageUtilization"]
    assert share == sum(millis) * 100 // 200


def test_an_average_value_needs_no_requests() -> None:
    metric = resource("memory", averageValue="25Mi")
    assert measure(metric, 2, pods(2, cpu=None), use(1, 1)).replicas == 4
    assert measure(metric, 2, pods(2), use(1, 1)).current["resource"]["current"] == {
        "averageValue": str(50 * 2**20)
    }


def test_who_is_not_measured_argues_against_a_change() -> None:
    # one of three at three times the goal: the others count as idle, which makes it no reason to grow
    assert measure(cpu(), 3, pods(3), use(150)).replicas == 3
    # one of three idle: the others count as at the goal
    assert measure(cpu(), 3, pods(3), use(10)).replicas == 3
    assert measure(cpu(), 2, pods(2), use(300)).replicas == 6


def test_pods_that_are_not_ready_are_no_reason_to_grow() -> None:
    assert measure(cpu(), 2, [pod("p0"), pod("p1", ready=False)], use(90, 500)).replicas == 2


def test_one_container_of_a_pod() -> None:
    metric = {
        "type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "c", "target": {"averageUtilization": 50}},
    }
    assert measure(metric, 1, pods(1), use(100)).replicas == 2
    metric["containerResource"]["container"] = "sidecar"
    with pytest.raises(MetricError):
        measure(metric, 1, pods(1), use(100))


@pytest.mark.parametrize(
    ("metric", "there", "text"),
    [
        ({"type": "External"}, pods(1), "are not served here"),
        (resource("gpu", averageUtilization=1), pods(1), "only cpu and memory"),
        (cpu(), pods(1, cpu=None), "missing request for cpu in container c of Pod p0"),
        (cpu(), [], "did not receive metrics"),
        (resource("cpu"), pods(1), "neither utilization nor value"),
        (resource("cpu", averageValue="0"), pods(1), "greater than 0"),
    ],
)
def test_metrics_that_cannot_be_had(metric: Json, there: list[Json], text: str) -> None:
    with pytest.raises(MetricError, match=text):
        measure(metric, 1, there, use(100))


def scaler(**more: Any) -> Json:
    return {"minReplicas": 1, "maxReplicas": 10, **more}


def test_it_grows_at_once_and_at_most_doubles_or_adds_four() -> None:
    memory = Memory()
    assert decide(scaler(), 1, 9, memory, 0).replicas == 5
    memory.note_change(0, 1, 5)
    assert decide(scaler(), 5, 9, memory, 10).replicas == 5
    assert decide(scaler(), 5, 9, memory, 16).replicas == 9
    assert decide(scaler(maxReplicas=3), 2, 9, Memory(), 0).limited[1] == "TooManyReplicas"


def test_it_shrinks_only_after_the_window() -> None:
    memory = Memory()
    assert decide(scaler(), 5, 5, memory, 0).replicas == 5
    held = decide(scaler(), 5, 2, memory, 299)
    assert (held.replicas, held.able[0]) == (5, "ScaleDownStabilized")
    assert decide(scaler(), 5, 2, memory, 301).replicas == 2


def test_behavior_sets_windows_and_rates() -> None:
    slow = scaler(
        behavior={
            "scaleDown": {
                "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
            },
            "scaleUp": {"selectPolicy": "Disabled"},
        }
    )
    memory = Memory()
    first = decide(slow, 5, 1, memory, 0)
    assert (first.replicas, first.limited[1]) == (4, "ScaleDownLimit")
    memory.note_change(0, 5, 4)
    assert decide(slow, 4, 1, memory, 30).replicas == 4
    assert decide(slow, 4, 1, memory, 61).replicas == 3
    assert decide(slow, 4, 9, Memory(), 0).replicas == 4


def test_the_least_of_several_rates_can_be_asked_for() -> None:
    policies = [
        {"type": "Pods", "value": 4, "periodSeconds": 60},
        {"type": "Percent", "value": 10, "periodSeconds": 60},
    ]
    behavior = {"scaleUp": {"selectPolicy": "Min", "policies": policies}}
    assert decide(scaler(behavior=behavior), 5, 10, Memory(), 0).replicas == 6


def test_the_bounds_hold_whatever_is_there() -> None:
    assert decide(scaler(minReplicas=3), 1, 1, Memory(), 0).replicas == 3
    assert decide(scaler(maxReplicas=4), 9, 9, Memory(), 0).replicas == 4
    assert decide(scaler(), 3, 3, Memory(), 0).limited[0] is False
