from __future__ import annotations

from typing import Any

from cloudcore.standalone import shapes

Json = dict[str, Any]


def metric(name: str, share: int) -> Json:
    target = {"type": "Utilization", "averageUtilization": share}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def scaler(**spec: Any) -> Json:
    return {
        "kind": "HorizontalPodAutoscaler",
        "apiVersion": "autoscaling/v2",
        "metadata": {"name": "a"},
        "spec": spec,
    }


def test_an_autoscaler_of_version_1_asks_for_cpu() -> None:
    made = shapes.scaler_to_v2(scaler(maxReplicas=3, targetCPUUtilizationPercentage=50))
    assert made["spec"] == {"minReplicas": 1, "maxReplicas": 3, "metrics": [metric("cpu", 50)]}
    assert made["apiVersion"] == "autoscaling/v2"


def test_what_version_1_has_no_fields_for_survives_it() -> None:
    behavior = {"scaleDown": {"selectPolicy": "Disabled"}}
    whole = scaler(
        minReplicas=1, maxReplicas=3, metrics=[metric("cpu", 50), metric("memory", 70)], behavior=behavior
    )
    shown = shapes.scaler_from_v2(whole)
    assert shown["spec"] == {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    assert set(shown["metadata"]["annotations"]) == {shapes.METRICS, shapes.BEHAVIOR}
    assert shapes.scaler_to_v2(shown) == whole


def test_its_status_shows_what_cpu_is_used() -> None:
    current = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}}}
    body = {**scaler(maxReplicas=1), "status": {"desiredReplicas": 1, "currentMetrics": [current]}}
    assert shapes.scaler_from_v2(body)["status"] == {
        "desiredReplicas": 1,
        "currentCPUUtilizationPercentage": 40,
    }


def test_annotations_that_cannot_be_read_are_no_metrics() -> None:
    body = scaler(maxReplicas=1, targetCPUUtilizationPercentage=50)
    body["metadata"]["annotations"] = {shapes.METRICS: "{", shapes.BEHAVIOR: "[]", "mine": "x"}
    made = shapes.scaler_to_v2(body)
    assert made["metadata"]["annotations"] == {"mine": "x"}
    assert made["spec"]["metrics"] == [metric("cpu", 50)]


def test_an_event_is_the_same_after_both_ways() -> None:
    event = {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod"},
        "message": "m",
        "count": 2,
    }
    shown = shapes.event_from_core(event)
    assert (shown["note"], shown["deprecatedCount"], shown["regarding"]) == ("m", 2, {"kind": "Pod"})
    back = shapes.event_to_core(shown)
    assert {name: back[name] for name in event} == event
