"""How `kubectl get` prints workloads and what scales and guards them.  Pure.

Source: kubernetes, pkg/printers/internalversion/printers.go, and the recorded tables."""

from __future__ import annotations

from datetime import datetime

from beehive.printing.cells import (
    AGE,
    NAME,
    NONE,
    WORKLOAD,
    Json,
    Row,
    ago,
    containers,
    count,
    duration,
    field,
    get,
    pairs,
    rollout,
)


def _job_status(body: Json, now: datetime) -> str:
    conditions = {
        item["type"] for item in get(body, "status.conditions") or () if item.get("status") == "True"
    }
    for name, text in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if name in conditions:
            return text
    return "Terminating" if "deletionTimestamp" in body["metadata"] else "Running"


def _completions(body: Json, now: datetime) -> str:
    done, wanted = get(body, "status.succeeded", 0), get(body, "spec.completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = get(body, "spec.parallelism", 0)
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(body: Json, now: datetime) -> str:
    start, end = get(body, "status.startTime"), get(body, "status.completionTime")
    if not start:
        return ""
    until = datetime.fromisoformat(end) if end else now
    return duration(max(int((until - datetime.fromisoformat(start)).total_seconds()), 0))


def _scale_target(body: Json, now: datetime) -> str:
    return f"{get(body, 'spec.scaleTargetRef.kind')}/{get(body, 'spec.scaleTargetRef.name')}"


def _scale_metrics(body: Json, now: datetime) -> str:
    """What is wanted of each metric, and what it was last."""
    have = {}
    for item in get(body, "status.currentMetrics") or ():
        source = item.get("resource") or item.get("containerResource") or {}
        have[item.get("type"), source.get("name")] = source.get("current") or {}
    found = []
    for item in get(body, "spec.metrics") or ():
        source = item.get("resource") or item.get("containerResource")
        if not source:
            found.append(f"{item.get('type')}: <unknown>")
            continue
        target, current = source.get("target") or {}, have.get((item.get("type"), source.get("name")), {})
        share = target.get("averageUtilization")
        wanted = f"{share}%" if share is not None else target.get("averageValue", "<auto>")
        seen = current.get("averageUtilization" if share is not None else "averageValue")
        said = "<unknown>" if seen is None else f"{seen}%" if share is not None else seen
        found.append(f"{source.get('name')}: {said}/{wanted}")
    more = f" + {len(found) - 2} more..." if len(found) > 2 else ""
    return ", ".join(found[:2]) + more or NONE


ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("autoscaling", "horizontalpodautoscalers"): (
        NAME,
        ("Reference", "string", 0, _scale_target),
        ("Targets", "string", 0, _scale_metrics),
        ("MinPods", "string", 0, field("spec.minReplicas", "<unset>")),
        ("MaxPods", "integer", 0, field("spec.maxReplicas", 0)),
        ("Replicas", "integer", 0, field("status.currentReplicas", 0)),
        AGE,
    ),
    ("policy", "poddisruptionbudgets"): (
        NAME,
        ("Min Available", "string", 0, field("spec.minAvailable", "N/A")),
        ("Max Unavailable", "string", 0, field("spec.maxUnavailable", "N/A")),
        ("Allowed Disruptions", "integer", 0, field("status.disruptionsAllowed", 0)),
        AGE,
    ),
    ("apps", "deployments"): (
        NAME,
        ("Ready", "string", 0, rollout("status.readyReplicas", "spec.replicas")),
        ("Up-to-date", "string", 0, field("status.updatedReplicas", 0)),
        ("Available", "string", 0, field("status.availableReplicas", 0)),
        AGE,
        *WORKLOAD,
    ),
    ("apps", "replicasets"): (
        NAME,
        ("Desired", "string", 0, field("spec.replicas", 0)),
        ("Current", "string", 0, field("status.replicas", 0)),
        ("Ready", "string", 0, field("status.readyReplicas", 0)),
        AGE,
        *WORKLOAD,
    ),
    ("apps", "statefulsets"): (
        NAME,
        ("Ready", "string", 0, rollout("status.readyReplicas", "spec.replicas")),
        AGE,
        *WORKLOAD[:2],
    ),
    ("apps", "daemonsets"): (
        NAME,
        ("Desired", "string", 0, field("status.desiredNumberScheduled", 0)),
        ("Current", "string", 0, field("status.currentNumberScheduled", 0)),
        ("Ready", "string", 0, field("status.numberReady", 0)),
        ("Up-to-date", "string", 0, field("status.updatedNumberScheduled", 0)),
        ("Available", "string", 0, field("status.numberAvailable", 0)),
        ("Node Selector", "string", 0, pairs("spec.template.spec.nodeSelector")),
        AGE,
        *WORKLOAD,
    ),
    ("batch", "jobs"): (
        NAME,
        ("Status", "string", 0, _job_status),
        ("Completions", "string", 0, _completions),
        ("Duration", "string", 0, _job_duration),
        AGE,
        *WORKLOAD,
    ),
    ("batch", "cronjobs"): (
        NAME,
        ("Schedule", "string", 0, field("spec.schedule")),
        ("Timezone", "string", 0, lambda body, now: get(body, "spec.timeZone") or NONE),
        ("Suspend", "string", 0, lambda body, now: str(bool(get(body, "spec.suspend")))),
        ("Active", "string", 0, count("status.active")),
        ("Last Schedule", "string", 0, ago("status.lastScheduleTime")),
        AGE,
        ("Containers", "string", 1, containers("name", "spec.jobTemplate.spec.template.spec")),
        ("Images", "string", 1, containers("image", "spec.jobTemplate.spec.template.spec")),
    ),
}
