"""What is stored but not acted upon, in the words of the Warning header that answers every write of it.  Pure."""

from __future__ import annotations

from typing import Any

from cloudcore.standalone import signing
from cloudcore.standalone.kinds import Kind

Json = dict[str, Any]
FIELDS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("batch", "jobs"): (
        ("spec.podFailurePolicy", "every failed pod counts against backoffLimit"),
        ("spec.successPolicy", "a job is complete when all its completions are"),
        ("spec.backoffLimitPerIndex", "failures of all indexes count against backoffLimit"),
    ),
    ("batch", "cronjobs"): (
        ("spec.jobTemplate.spec.podFailurePolicy", "every failed pod counts against backoffLimit"),
        ("spec.jobTemplate.spec.successPolicy", "a job is complete when all its completions are"),
    ),
    ("apps", "statefulsets"): (
        ("spec.updateStrategy.rollingUpdate.maxUnavailable", "pods are replaced one by one"),
    ),
}


def warnings(kind: Kind, body: Json) -> list[str]:
    """One sentence for the kind as a whole, and one for each field that is set and not heeded."""
    found = [f"{kind.plural}: {kind.passive}"] if kind.passive else []
    for path, instead in FIELDS.get(kind.key, ()):
        if _value(body, path):
            found.append(f"{path} is kept but not acted upon: {instead}")
    if kind.key == ("", "services") and _value(body, "spec.type") == "LoadBalancer":
        found.append("spec.type LoadBalancer: this server has nobody who assigns an external address")
    if kind.key == signing.KEY and _value(body, "spec.signerName") not in signing.SIGNERS:
        found.append(
            f"spec.signerName {_value(body, 'spec.signerName')}: this server signs for none but its own signers"
        )
    retention = _value(body, "spec.persistentVolumeClaimRetentionPolicy.whenScaled")
    if kind.key == ("apps", "statefulsets") and retention == "Delete":
        found.append("whenScaled Delete is kept but not acted upon: claims stay when the set is scaled down")
    if kind.key == ("autoscaling", "horizontalpodautoscalers"):
        for index, metric in enumerate(_value(body, "spec.metrics") or ()):
            if metric.get("type") not in ("Resource", "ContainerResource"):
                found.append(f"spec.metrics[{index}]: only cpu and memory of pods are measured here")
    return found


def _value(body: Json, path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
