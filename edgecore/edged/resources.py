"""What a whole pod asks for.  Pure; amounts in nano-units, as `quantity` reads them.

Source: k8s.io/component-helpers, resource/helpers.go (PodRequests, PodLimits).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgecore.edged import quantity
from edgecore.edged.pod import Container, Pod, Quantity

Amounts = dict[str, int]
# what a pod can ask for as a whole
WHOLE = ("cpu", "memory")


def container_requests(c: Container) -> Amounts:
    """Requests; a limit without a request is the request too."""
    amounts = {name: quantity.parse(v) for name, v in c.resources.limits.items()}
    amounts.update({name: quantity.parse(v) for name, v in c.resources.requests.items()})
    return amounts


def container_limits(c: Container) -> Amounts:
    """Limits, as they are written."""
    return {name: quantity.parse(v) for name, v in c.resources.limits.items()}


def _add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def whole_limits(pod: Pod) -> Amounts:
    """What the pod says that all of it together may use; only cpu and memory can be limited so."""
    return _whole(pod.spec.resources.limits) if pod.spec.resources is not None else {}


def whole_requests(pod: Pod) -> Amounts:
    """What the pod says that all of it together asks for.

    Where it says a limit only, that is what its containers ask for, or the limit (the API's defaults, which static pods lack).
    """
    if pod.spec.resources is None:
        return {}
    of_containers = containers_requests(pod)
    limits = {name: of_containers.get(name, value) for name, value in whole_limits(pod).items()}
    return {**limits, **_whole(pod.spec.resources.requests)}


def _whole(amounts: Mapping[str, Quantity]) -> Amounts:
    return {name: quantity.parse(v) for name, v in amounts.items() if name in WHOLE}


def containers_requests(pod: Pod) -> Amounts:
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
    return total


def pod_requests(pod: Pod) -> Amounts:
    """What the pod says, or its containers together; and what its runtime needs beside."""
    total = {**containers_requests(pod), **whole_requests(pod)}
    _add(total, {name: quantity.parse(v) for name, v in pod.spec.overhead.items()})
    return total


def pod_limit(pod: Pod, name: str) -> int | None:
    """The limit of the whole pod; None when neither it nor each of its containers has one."""
    limit = whole_limits(pod).get(name) or _containers_limit(pod, name)
    if limit is None:
        return None
    overhead = pod.spec.overhead.get(name)
    return limit + (quantity.parse(overhead) if overhead is not None else 0)


def _containers_limit(pod: Pod, name: str) -> int | None:
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
    return max(total, highest)


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, by the kubelet's rule (only cpu and memory count).

    Of a pod that asks for something as a whole only this counts."""
    asked = [(container_requests(c), container_limits(c)) for c in pod.all_containers()]
    if pod.spec.resources is not None:
        asked = [(whole_requests(pod), whole_limits(pod))]
    classes = {_class(requests, limits) for requests, limits in asked}
    return classes.pop() if len(classes) == 1 else "Burstable"


def _class(requests: Amounts, limits: Amounts) -> str:
    amounts = [(requests.get(name, 0), limits.get(name, 0)) for name in WHOLE]
    if not any(request or limit for request, limit in amounts):
        return "BestEffort"
    return "Guaranteed" if all(limit and request == limit for request, limit in amounts) else "Burstable"
