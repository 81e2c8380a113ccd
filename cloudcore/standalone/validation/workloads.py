"""What is wrong with what makes pods: the kinds of apps and batch, and autoscalers.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudcore.standalone import cron
from cloudcore.standalone.selectors import BadSelector, from_object
from cloudcore.standalone.status import (
    Cause,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)
from cloudcore.standalone.validation.pods import pod_spec

Json = dict[str, Any]


def workload(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if spec.get("replicas", 0) < 0:
        yield invalid_value("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    yield from _selector(spec)
    template = spec.get("template") or {}
    if not isinstance(template.get("spec"), dict):
        yield required("spec.template.spec.containers")
    else:
        claims = [
            (claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()
        ]
        yield from pod_spec(template["spec"], "spec.template.spec", restart=("Always",), claims=claims)
    for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        if (spec.get(field) or 0) < 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0")


def _selector(spec: Json) -> Iterator[Cause]:
    selector = spec.get("selector")
    labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
    if selector is None:
        yield required("spec.selector")
        yield invalid_value(
            "spec.template.metadata.labels", labels or None, "`selector` does not match template `labels`"
        )
        return
    if not selector:
        yield invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
        return
    try:
        parsed = from_object(selector)
    except BadSelector as error:
        yield invalid_value("spec.selector", selector, str(error))
        return
    if parsed is not None and not parsed.matches(labels):
        yield invalid_value(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )


def deployment(body: Json) -> Iterator[Cause]:
    yield from workload(body)
    strategy = body["spec"].get("strategy") or {}
    if strategy.get("type") not in ("Recreate", "RollingUpdate"):
        yield unsupported("spec.strategy.type", strategy.get("type"), ("Recreate", "RollingUpdate"))
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        yield forbidden_field(
            "spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"
        )
    rolling = strategy.get("rollingUpdate") or {}
    for field in ("maxSurge", "maxUnavailable"):
        value = rolling.get(field, 0)
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield invalid_value(
                f"spec.strategy.rollingUpdate.{field}",
                value,
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                "regex used for validation is '[0-9]+%')",
            )
        elif isinstance(value, int) and value < 0:
            yield invalid_value(
                f"spec.strategy.rollingUpdate.{field}", value, "must be greater than or equal to 0"
            )
    if rolling.get("maxSurge") in (0, "0%") and rolling.get("maxUnavailable") in (0, "0%"):
        yield invalid_value(
            "spec.strategy.rollingUpdate.maxUnavailable",
            rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        )


def selector_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body["spec"].get("selector") != old["spec"].get("selector"):
        yield invalid_value("spec.selector", body["spec"].get("selector"), "field is immutable")


def statefulset_update(body: Json, old: Json) -> Iterator[Cause]:
    free = (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
    fixed = [{n: v for n, v in side["spec"].items() if n not in free} for side in (body, old)]
    if fixed[0] != fixed[1]:
        yield forbidden_field(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )


def job(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    for field in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if (spec.get(field) or 0) < 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0")
    yield from _job_template(spec, "spec")


def _job_template(spec: Json, path: str) -> Iterator[Cause]:
    template = (spec.get("template") or {}).get("spec")
    if not isinstance(template, dict):
        yield required(f"{path}.template.spec.containers")
        return
    policy = template.get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        yield unsupported(f"{path}.template.spec.restartPolicy", policy, ("OnFailure", "Never"))
    yield from pod_spec(template, f"{path}.template.spec", restart=("Always", "OnFailure", "Never"))


def job_update(body: Json, old: Json) -> Iterator[Cause]:
    for field in ("completions", "selector", "template", "completionMode"):
        if field == "template" and old["spec"].get("suspend"):
            continue
        if body["spec"].get(field) != old["spec"].get(field):
            yield invalid_value(f"spec.{field}", body["spec"].get(field), "field is immutable")


def cronjob(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    schedule = spec.get("schedule", "")
    if not schedule:
        yield required("spec.schedule")
    else:
        try:
            cron.parse(schedule, spec.get("timeZone") or "")
        except cron.BadSchedule as error:
            zone = "time zone" in str(error)
            field, value = ("timeZone", spec.get("timeZone")) if zone else ("schedule", schedule)
            yield invalid_value(f"spec.{field}", value, str(error))
    if spec.get("concurrencyPolicy") not in ("Allow", "Forbid", "Replace"):
        yield unsupported(
            "spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace")
        )
    yield from _job_template(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec")


def autoscaler(body: Json) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    reference = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        if not reference.get(name):
            yield required(f"spec.scaleTargetRef.{name}")
    if least < 1:
        yield invalid_value("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield invalid_value("spec.maxReplicas", most, "must be greater than 0")
    elif most < least:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
