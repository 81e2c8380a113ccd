"""What a pod of the API asks for and may use, of its containers and as a whole.  Pure; amounts in whole units.

Source: k8s.io/component-helpers, resource/helpers.go; pkg/apis/core/v1/helper/qos."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cloudcore.standalone import quantity

Json = dict[str, Any]
Amounts = dict[str, Decimal]

# what a pod can ask for as a whole
WHOLE = ("cpu", "memory")


def amounts(written: Any) -> Amounts:
    """Quantities by name, as numbers."""
    return {name: quantity.parse(value) for name, value in (written or {}).items()}


def written(thing: Json, what: str) -> Json:
    """`requests` or `limits` of a container or a pod's spec, as they are written."""
    return (thing.get("resources") or {}).get(what) or {}


def of_containers(spec: Json, what: str) -> Amounts:
    """`requests` or `limits` of the containers that run at once; of an init container alone where that is more."""
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, amounts(written(container, what)))
    beside: Amounts = {}
    highest: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = amounts(written(container, what))
        if container.get("restartPolicy") == "Always":
            _add(total, own)
            _add(beside, own)
        else:
            for name, amount in own.items():
                highest[name] = max(highest.get(name, Decimal(0)), beside.get(name, Decimal(0)) + amount)
    return {name: max(total.get(name, Decimal(0)), highest.get(name, Decimal(0))) for name in total | highest}


def total(spec: Json, what: str, *, overhead: bool = False) -> Amounts:
    """`requests` or `limits` of a pod: what it says of itself, else its containers.

    overhead: with what its runtime needs beside."""
    found = of_containers(spec, what)
    found |= {name: amount for name, amount in amounts(written(spec, what)).items() if name in WHOLE}
    if overhead:
        more = amounts(spec.get("overhead"))
        # what is not limited is not limited by what comes on top
        _add(found, {name: more[name] for name in more if what == "requests" or found.get(name)})
    return found


def whole(spec: Json) -> bool:
    """Whether a pod asks for something as a whole."""
    return any(name in WHOLE for what in ("requests", "limits") for name in written(spec, what))


def shown(name: str, amount: Decimal) -> str:
    """An amount of a resource as Kubernetes writes it."""
    whole = amount == amount.to_integral_value()
    binary = name.rpartition(".")[2] in ("memory", "storage", "ephemeral-storage") and whole
    if binary and amount >= 1024 and amount % 1024 == 0:
        return quantity.canonical(f"{int(amount) // 1024}Ki")
    return quantity.canonical(str(amount) if not whole else str(int(amount)))


def qos_class(spec: Json) -> str:
    """BestEffort, Burstable or Guaranteed."""
    asking = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if spec.get("resources") is not None:
        asking = [spec]
    classes = {
        _class(amounts(written(item, "requests")), amounts(written(item, "limits"))) for item in asking
    }
    return classes.pop() if len(classes) == 1 else "Burstable"


def _class(requests: Amounts, limits: Amounts) -> str:
    pairs = [(requests.get(name, limits.get(name)), limits.get(name)) for name in WHOLE]
    if not any(request or limit for request, limit in pairs):
        return "BestEffort"
    return "Guaranteed" if all(limit and request == limit for request, limit in pairs) else "Burstable"


def _add(total: Amounts, more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount
