"""How many replicas a HorizontalPodAutoscaler wants.  Pure; times are seconds of any clock that only goes forward.

Source: kubernetes, pkg/controller/podautoscaler/{horizontal,replica_calculator}.go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cloudcore.standalone import podresources, quantity
from cloudcore.standalone.disruptions import is_healthy

Json = dict[str, Any]
TOLERANCE = 0.1
"""Nothing is changed for a difference smaller than this."""
DOWN_WINDOW_S, UP_WINDOW_S = 300, 0
UP_POLICIES = (
    {"type": "Percent", "value": 100, "periodSeconds": 15},
    {"type": "Pods", "value": 4, "periodSeconds": 15},
)
DOWN_POLICIES = ({"type": "Percent", "value": 100, "periodSeconds": 15},)
LONGEST_S = 3600
"""The longest window or period that a behavior may have."""
MOST_KEPT = 512
"""Recommendations and changes remembered for one scaler."""

Used = Mapping[str, Mapping[str, tuple[Decimal, Decimal]]]
"""By pod name, then container: (cpu in cores, memory in bytes)."""


class MetricError(Exception):
    """A metric that cannot be had now; `reason` goes into the condition ScalingActive."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Measured:
    """What one metric asks for, and its line in status.currentMetrics."""

    replicas: int
    current: Json
    name: str


def measure(metric: Json, replicas: int, pods: list[Json], used: Used) -> Measured:
    """What one entry of spec.metrics asks for.  `replicas`: how many there are now.  Raises MetricError."""
    kind = metric.get("type")
    if kind == "Resource":
        source, container = metric.get("resource") or {}, ""
    elif kind == "ContainerResource":
        source = metric.get("containerResource") or {}
        container = source.get("container", "")
    else:
        raise MetricError(
            "InvalidMetricSourceType", f"metrics of type {kind} are not served here: only cpu and memory are"
        )
    name, target = source.get("name", ""), source.get("target") or {}
    if name not in ("cpu", "memory"):
        raise MetricError(
            "FailedGetResourceMetric", f"resource {name} is not measured: only cpu and memory are"
        )
    alive = [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and (pod.get("status") or {}).get("phase") != "Failed"
    ]
    amounts: dict[str, Decimal] = {}
    missing, unready = [], []
    for pod in alive:
        label = pod["metadata"]["name"]
        amount = _amount(used.get(label) or {}, name, container)
        if (pod.get("status") or {}).get("phase") == "Pending" or (name == "cpu" and not is_healthy(pod)):
            unready.append(pod)
        elif amount is None:
            missing.append(pod)
        else:
            amounts[label] = amount
    if not amounts:
        raise MetricError(
            "FailedGetResourceMetric", f"did not receive metrics for {name} of any of {len(alive)} pods"
        )
    average = sum(amounts.values(), Decimal(0)) / len(amounts)
    line: Json = {"averageValue": _written(name, average)}
    if target.get("averageUtilization") is not None:
        asked = {pod["metadata"]["name"]: _request(pod, name, container) for pod in alive}
        goal = Decimal(target["averageUtilization"]) / 100
        wanted = {label: amount * goal for label, amount in asked.items()}
        total = sum((asked[label] for label in amounts), Decimal(0))
        if total <= 0 or goal <= 0:
            raise MetricError("FailedGetResourceMetric", f"no pod requests any {name}")
        line = {"averageUtilization": int(100 * sum(amounts.values(), Decimal(0)) / total), **line}
    elif target.get("averageValue") is not None:
        value = quantity.parse(target["averageValue"])
        if value <= 0:
            raise MetricError("FailedGetResourceMetric", "averageValue must be greater than 0")
        wanted = {pod["metadata"]["name"]: value for pod in alive}
    else:
        raise MetricError(
            "FailedGetResourceMetric", "invalid resource metric source: neither utilization nor value was set"
        )
    body: Json = {"name": name, "current": line, **({"container": container} if container else {})}
    current = {"type": kind, "containerResource" if container else "resource": body}
    share = " utilization (percentage of request)" if "averageUtilization" in line else ""
    said = f"{name} {'container ' if container else ''}resource{share}"
    return Measured(_proposal(replicas, amounts, wanted, missing, unready), current, said)


def _proposal(
    replicas: int,
    amounts: dict[str, Decimal],
    wanted: Mapping[str, Decimal],
    missing: list[Json],
    unready: list[Json],
) -> int:
    ratio = _ratio(amounts, wanted)
    grows = ratio > 1
    if not missing and not (unready and grows):
        return replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(round(ratio * len(amounts), 6))
    # who is not measured is taken for what argues against a change
    filled = dict(amounts)
    for pod in missing:
        label = pod["metadata"]["name"]
        filled[label] = Decimal(0) if grows else wanted[label]
    if grows:
        for pod in unready:
            filled[pod["metadata"]["name"]] = Decimal(0)
    again = _ratio(filled, wanted)
    if abs(again - 1) <= TOLERANCE or (again > 1) != grows:
        return replicas
    count = math.ceil(round(again * len(filled), 6))
    if (again < 1 and count > replicas) or (again > 1 and count < replicas):
        return replicas
    return count


def _ratio(amounts: Mapping[str, Decimal], wanted: Mapping[str, Decimal]) -> float:
    goal = sum((wanted[label] for label in amounts), Decimal(0))
    return float(sum(amounts.values(), Decimal(0)) / goal) if goal else 1.0


def _amount(used: Mapping[str, tuple[Decimal, Decimal]], name: str, container: str) -> Decimal | None:
    parts = [used[container]] if container in used else [] if container else list(used.values())
    if not parts:
        return None
    return sum((part[0 if name == "cpu" else 1] for part in parts), Decimal(0))


def _request(pod: Json, name: str, container: str) -> Decimal:
    whole = podresources.amounts(podresources.written(pod["spec"], "requests")).get(name)
    if whole is not None and not container:
        return whole
    total = Decimal(0)
    for item in pod["spec"].get("containers") or ():
        if container and item.get("name") != container:
            continue
        asked = ((item.get("resources") or {}).get("requests") or {}).get(name)
        if asked is None:
            raise MetricError(
                "FailedGetResourceMetric",
                f"missing request for {name} in container {item.get('name')} of Pod {pod['metadata']['name']}",
            )
        total += quantity.parse(asked)
    return total


def _written(name: str, amount: Decimal) -> str:
    return f"{int(amount * 1000)}m" if name == "cpu" else str(int(amount))


# behavior --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """What was recommended for one scaler, and what was changed: (when, how many)."""

    recommended: list[tuple[float, int]] = field(default_factory=list)
    grown: list[tuple[float, int]] = field(default_factory=list)
    shrunk: list[tuple[float, int]] = field(default_factory=list)

    def note_change(self, now: float, before: int, after: int) -> None:
        if after > before:
            self.grown = [*self.grown, (now, after - before)][-MOST_KEPT:]
        elif after < before:
            self.shrunk = [*self.shrunk, (now, before - after)][-MOST_KEPT:]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many replicas now; `limited` is the condition ScalingLimited, `able` the one AbleToScale."""

    replicas: int
    able: tuple[str, str]
    limited: tuple[bool, str, str]


def decide(spec: Json, current: int, wanted: int, memory: Memory, now: float) -> Verdict:
    """Hold what the metrics want to the windows, rates and bounds of a scaler.  Notes `wanted` in `memory`."""
    least, most = int(spec.get("minReplicas") or 1), int(spec.get("maxReplicas") or 1)
    behavior = spec.get("behavior") or {}
    up, down = behavior.get("scaleUp") or {}, behavior.get("scaleDown") or {}
    memory.recommended = [item for item in memory.recommended if now - item[0] <= LONGEST_S][-MOST_KEPT:]
    up_window, down_window = _seconds(up, UP_WINDOW_S), _seconds(down, DOWN_WINDOW_S)
    lowest = min([wanted, *(n for at, n in memory.recommended if now - at < up_window)])
    highest = max([wanted, *(n for at, n in memory.recommended if now - at < down_window)])
    memory.recommended.append((now, wanted))
    steady = min(max(current, lowest), highest)
    able = ("ReadyForNewScale", "recommended size matches current size")
    if steady != wanted:
        way = "ScaleUpStabilized" if steady < wanted else "ScaleDownStabilized"
        able = (
            way,
            "recent recommendations were " + ("lower" if steady < wanted else "higher") + " than current one",
        )
    if steady > current:
        rate = _limit(up, UP_POLICIES, current, memory, now, grow=True)
        if rate < current:
            rate = current
        bound = min(rate, most)
        if steady > bound:
            reason = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
            if rate < most:
                reason = (
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                )
            return Verdict(max(bound, min(least, most)), able, (True, *reason))
    elif steady < current:
        rate = min(_limit(down, DOWN_POLICIES, current, memory, now, grow=False), current)
        bound = max(rate, least)
        if steady < bound:
            reason = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
            if rate > least:
                reason = (
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                )
            return Verdict(min(bound, max(most, least)), able, (True, *reason))
    held = min(max(steady, least), most)
    if held < steady:
        return Verdict(
            held,
            able,
            (True, "TooManyReplicas", "the desired replica count is more than the maximum replica count"),
        )
    if held > steady:
        return Verdict(
            held,
            able,
            (True, "TooFewReplicas", "the desired replica count is less than the minimum replica count"),
        )
    return Verdict(
        held, able, (False, "DesiredWithinRange", "the desired count is within the acceptable range")
    )


def _seconds(rules: Json, default: int) -> int:
    value = rules.get("stabilizationWindowSeconds")
    return min(max(int(default if value is None else value), 0), LONGEST_S)


def _limit(
    rules: Json, defaults: Iterable[Json], current: int, memory: Memory, now: float, *, grow: bool
) -> int:
    """The furthest that the policies let the count go now."""
    choice = rules.get("selectPolicy") or "Max"
    if choice == "Disabled":
        return current
    found = []
    for policy in rules.get("policies") or defaults:
        period, value = int(policy.get("periodSeconds") or 15), int(policy.get("value") or 0)
        added = sum(n for at, n in memory.grown if now - at < period)
        taken = sum(n for at, n in memory.shrunk if now - at < period)
        if grow:
            start = current - added + taken
            found.append(
                start + value if policy.get("type") == "Pods" else math.ceil(start * (100 + value) / 100)
            )
        else:
            start = current + taken - added
            found.append(
                start - value if policy.get("type") == "Pods" else math.floor(start * (100 - value) / 100)
            )
    furthest = max if grow == (choice != "Min") else min
    return furthest(found)
