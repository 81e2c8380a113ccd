"""What is wrong with what a container, or a pod as a whole, asks for and may use.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudcore.standalone import podresources, quantity
from cloudcore.standalone.status import Cause, forbidden_field, invalid_value, unsupported

Json = dict[str, Any]


def on_resources(thing: Json, path: str) -> Iterator[Cause]:
    """What a container, or a pod, asks for and may use."""
    limits, requests = (podresources.written(thing, what) for what in ("limits", "requests"))
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if quantity.parse(amount) < 0:
                yield invalid_value(f"{path}.{kind}[{name}]", amount, "must be greater than or equal to 0")
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            yield invalid_value(
                f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}"
            )


def on_whole(spec: Json, path: str) -> Iterator[Cause]:
    """What a pod asks for and may use as a whole.  Source: pkg/apis/core/validation, validatePodResources."""
    if (spec.get("resources") or {}).get("claims"):
        yield forbidden_field(f"{path}.claims", "claims may not be set for Resources at pod-level")
    for what in ("limits", "requests"):
        for name in podresources.written(spec, what):
            if name not in podresources.WHOLE:
                yield unsupported(f"{path}.{what}[{name}]", name, podresources.WHOLE)
    yield from on_resources(spec, path)
    asked = podresources.written(spec, "requests")
    for name, amount in sorted(podresources.of_containers(spec, "requests").items()):
        if name in asked and amount > quantity.parse(asked[name]):
            yield invalid_value(
                f"{path}.requests[{name}]",
                asked[name],
                f"must be greater than or equal to aggregate container requests of {podresources.shown(name, amount)}",
            )
    most = podresources.written(spec, "limits")
    for index, container in enumerate(spec.get("containers") or ()):
        for name, amount in sorted(podresources.written(container, "limits").items()):
            if name in most and quantity.parse(amount) > quantity.parse(most[name]):
                yield invalid_value(
                    f"{path}.containers[{index}][{name}].limits",
                    amount,
                    f"must be less than or equal to pod limits of {most[name]}",
                )
