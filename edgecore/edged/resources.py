"""What a whole pod asks for.  Pure; amounts in nano-units, as `quantity` reads them.

Source: k8s.io/component-helpers, resource/helpers.go (PodRequests, PodLimits).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgecore.edged import quantity
from edgecore.edged.pod import Container, Pod

Amounts = dict[str, int]


def container_requests(c: Container) -> Amounts:
    """Requests; a limit without a request is the request too."""
    amounts = {name: quantity.parse(v) for name, v in c.resources.limits.items()}
    amounts.update({name: quantity.parse(v) for name, v in c.resources.requests.items()})
    return amounts


def container_limits(c: Container) -> Amounts:
    return {name: quantity.parse(v) for name, v in c.resources.limits.items()}


def _add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def pod_requests(pod: Pod) -> Amounts:
    """All containers that run at once together; what an init container asks for alone counts where it is more."""
    total: Amounts = {}
    for c in pod.spec.containers:
        _add(total, container_requests(c))
    beside: Amounts = {}
    highest: Amounts = {}
    for c in pod.spec.init_containers:
        own = container_requests(c)
        if pod.is_sidecar(c):
            _add(total, own)
            _add(beside, own)
            continue
        alone = dict(beside)
        _add(alone, own)
        for name, value in alone.items():
            highest[name] = max(highest.get(name, 0), value)
    for name, value in highest.items():
        total[name] = max(total.get(name, 0), value)
    _add(total, {name: quantity.parse(v) for name, v in pod.spec.overhead.items()})
    return total


def pod_limit(pod: Pod, name: str) -> int | None:
    """The limit of the whole pod; None when a container has none."""
    total = beside = highest = 0
    for c in pod.spec.containers:
        value = container_limits(c).get(name)
        if not value:
            return None
        total += value
    for c in pod.spec.init_containers:
        value = container_limits(c).get(name)
        if not value:
            return None
        if pod.is_sidecar(c):
            total += value
            beside += value
        else:
            highest = max(highest, beside + value)
    overhead = pod.spec.overhead.get(name)
    return max(total, highest) + (quantity.parse(overhead) if overhead is not None else 0)
