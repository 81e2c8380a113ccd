"""Kinds that are stored in one shape and served in another, too: how an object goes from one to the other.  Pure.

Source: kubernetes, pkg/apis/core/v1 and pkg/apis/events/v1; pkg/apis/autoscaling/v1/conversion.go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cloudcore.standalone import defaults
from cloudcore.standalone.ids import Key

Json = dict[str, Any]
METRICS = "autoscaling.alpha.kubernetes.io/metrics"
BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def event_from_core(body: Json) -> Json:
    """A v1 Event as events.k8s.io/v1 shows it."""
    return {
        _EVENT_NAMES.get(name, name): value
        for name, value in body.items()
        if value not in ("", None) or name == "eventTime"
    }


def event_to_core(body: Json) -> Json:
    back = {new: old for old, new in _EVENT_NAMES.items()}
    core = {back.get(name, name): value for name, value in body.items()}
    defaults.apply(("", "events"), core)
    return {**core, "kind": "Event", "apiVersion": "v1"}


def _is_cpu(metric: Json) -> bool:
    resource = metric.get("resource") or {}
    return (
        resource.get("name") == "cpu" and (resource.get("target") or {}).get("averageUtilization") is not None
    )


def scaler_from_v2(body: Json) -> Json:
    """An autoscaler as autoscaling/v1 shows it; what that version has no fields for is in annotations."""
    spec, metadata = dict(body.get("spec") or {}), dict(body["metadata"])
    notes = dict(metadata.get("annotations") or {})
    others = []
    for metric in spec.pop("metrics", None) or ():
        if _is_cpu(metric) and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
        else:
            others.append(metric)
    behavior = spec.pop("behavior", None)
    for name, value in ((METRICS, others), (BEHAVIOR, behavior)):
        if value:
            notes[name] = msgspec.json.encode(value).decode()
    if notes:
        metadata["annotations"] = notes
    shown: Json = {**body, "metadata": metadata, "spec": spec}
    if "status" in body:
        status = {n: v for n, v in body["status"].items() if n not in ("conditions", "currentMetrics")}
        for metric in body["status"].get("currentMetrics") or ():
            share = ((metric.get("resource") or {}).get("current") or {}).get("averageUtilization")
            if share is not None and metric["resource"].get("name") == "cpu":
                status["currentCPUUtilizationPercentage"] = share
        shown["status"] = status
    return shown


def scaler_to_v2(body: Json) -> Json:
    """The autoscaler that is stored for one in version 1.  Annotations that cannot be read are dropped."""
    spec, metadata = dict(body.get("spec") or {}), dict(body["metadata"])
    notes = dict(metadata.get("annotations") or {})
    share = spec.pop("targetCPUUtilizationPercentage", None)
    metrics: list[Json] = []
    if share is not None:
        target = {"type": "Utilization", "averageUtilization": share}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metrics += _noted(notes, METRICS, list[dict[str, Any]]) or []
    behavior = _noted(notes, BEHAVIOR, dict[str, Any])
    if metrics:
        spec["metrics"] = metrics
    if behavior:
        spec["behavior"] = behavior
    if notes:
        metadata["annotations"] = notes
    else:
        metadata.pop("annotations", None)
    made: Json = {**body, "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec}
    if "status" in body:
        made["status"] = {n: v for n, v in body["status"].items() if n != "currentCPUUtilizationPercentage"}
    defaults.apply(("autoscaling", "horizontalpodautoscalers"), made)
    return made


def _noted(notes: dict[str, str], name: str, shape: Any) -> Any:
    try:
        return msgspec.json.decode(notes.pop(name, ""), type=shape)
    except msgspec.MsgspecError:
        return None


SHOWN: dict[Key, Callable[[Json], Json]] = {
    ("", "events"): event_from_core,
    ("autoscaling", "horizontalpodautoscalers"): scaler_from_v2,
}
STORED: dict[Key, Callable[[Json], Json]] = {
    ("", "events"): event_to_core,
    ("autoscaling", "horizontalpodautoscalers"): scaler_to_v2,
}
