"""How many pods of a PodDisruptionBudget may be disrupted, and whether a pod may be evicted.  Pure.

Source: kubernetes, pkg/controller/disruption/disruption.go; pkg/registry/core/pod/storage/eviction.go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def is_healthy(pod: Json) -> bool:
    """Ready, and not on its way out."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def status(budget: Json, pods: list[Json], scales: Mapping[str, int]) -> Json:
    """What a budget allows now, as its status says it.

    pods: those it selects.   scales: how many pods each controller is asked for, by the uid of the controller."""
    spec = budget.get("spec") or {}
    alive = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
    expected = _expected(spec, alive, scales)
    least = share(spec.get("minAvailable"), expected)
    most = share(spec.get("maxUnavailable"), expected)
    if least is not None:
        desired = least
    elif most is not None:
        desired = max(expected - most, 0)
    else:
        desired = 0
    healthy = sum(map(is_healthy, alive))
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    return {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
    }


def condition(allowed: int) -> Json:
    return {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
    }


def _expected(spec: Json, pods: list[Json], scales: Mapping[str, int]) -> int:
    """A fixed minimum is compared with the pods there are; a share needs to know how many there should be."""
    least = spec.get("minAvailable")
    if least is not None and not isinstance(least, str):
        return len(pods)
    counted: set[str] = set()
    total = 0
    for pod in pods:
        owner = _controller(pod)
        if owner is None or owner not in scales:
            total += 1
        elif owner not in counted:
            counted.add(owner)
            total += scales[owner]
    return total


def _controller(pod: Json) -> str | None:
    references = pod["metadata"].get("ownerReferences") or ()
    return next((str(item["uid"]) for item in references if item.get("controller")), None)


def controllers(pods: list[Json]) -> set[str]:
    """The uids of what keeps these pods."""
    return {uid for pod in pods if (uid := _controller(pod)) is not None}


def share(value: Any, total: int) -> int | None:
    """An absolute number, or a percentage of `total` rounded up."""
    if value is None:
        return None
    if isinstance(value, str) and value.endswith("%"):
        return -(-int(value[:-1]) * total // 100)
    return int(value)


def refusal(name: str, budget: Json, now: Json, pod: Json) -> str:
    """Why a budget whose status is `now` does not let `pod` be evicted; empty when it does."""
    if (pod.get("status") or {}).get("phase") in ("Pending", "Succeeded", "Failed"):
        return ""
    if "deletionTimestamp" in pod["metadata"]:
        return ""
    text = (
        f"The disruption budget {name} needs {now['desiredHealthy']} healthy pods and has "
        f"{now['currentHealthy']} currently"
    )
    if not is_healthy(pod):
        if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return ""
        if now["currentHealthy"] >= now["desiredHealthy"] > 0:
            return ""
    return "" if now["disruptionsAllowed"] > 0 else text
