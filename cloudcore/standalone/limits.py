"""LimitRanges and ResourceQuotas: what a namespace lets its objects ask for.  Pure.

Source: kubernetes, plugin/pkg/admission/limitranger, pkg/quota/v1/evaluator/core, staging apiserver/plugin/resourcequota;
texts are theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from cloudcore.standalone import podresources, quantity
from cloudcore.standalone.ids import Key
from cloudcore.standalone.podresources import Amounts, Json, amounts, qos_class, shown

LIMIT_NOTE = "kubernetes.io/limit-ranger"
PODS, CLAIMS, SERVICES = ("", "pods"), ("", "persistentvolumeclaims"), ("", "services")
COUNTED = ("configmaps", "secrets", "resourcequotas", "replicationcontrollers")
"""Core kinds that quotas count by their bare name, beside pods, claims and services."""
COMPUTE = ("cpu", "memory", "ephemeral-storage")


def _items(ranges: Iterable[Json], kind: str) -> list[Json]:
    return [
        item
        for body in ranges
        for item in (body.get("spec") or {}).get("limits") or ()
        if item.get("type") == kind
    ]


def default_pod(body: Json, ranges: Iterable[Json]) -> None:
    """Give containers the requests and limits that they leave out.  Changes the pod."""
    limits: Json = {}
    requests: Json = {}
    for item in _items(ranges, "Container"):
        limits |= item.get("default") or {}
        requests |= item.get("defaultRequest") or {}
    if not limits and not requests:
        return
    spec, said = body["spec"], []
    for kind, containers in (
        ("container", spec.get("containers")),
        ("init container", spec.get("initContainers")),
    ):
        for container in containers or ():
            resources = container.setdefault("resources", {})
            for what, given in (("request", requests), ("limit", limits)):
                have = resources.get(what + "s") or {}
                added = sorted(name for name in given if name not in have)
                if added:
                    resources[what + "s"] = {**have, **{name: given[name] for name in added}}
                    said.append(f"{', '.join(added)} {what} for {kind} {container['name']}")
    if said:
        notes = body["metadata"].setdefault("annotations", {})
        notes[LIMIT_NOTE] = "LimitRanger plugin set: " + "; ".join(said)


def range_faults(key: Key, body: Json, ranges: list[Json]) -> list[str]:
    """Why the LimitRanges of its namespace forbid a pod or a claim; empty when they do not."""
    found: list[str] = []
    if key == PODS:
        spec = body["spec"]
        each = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        for item in _items(ranges, "Container"):
            for container in each:
                resources = container.get("resources") or {}
                found += _held(
                    item, "Container", amounts(resources.get("requests")), amounts(resources.get("limits"))
                )
        for item in _items(ranges, "Pod"):
            found += _held(
                item, "Pod", podresources.total(spec, "requests"), podresources.total(spec, "limits")
            )
    elif key == CLAIMS:
        asked = amounts((body["spec"].get("resources") or {}).get("requests"))
        for item in _items(ranges, "PersistentVolumeClaim"):
            found += _held(item, "PersistentVolumeClaim", asked, asked)
    return found


def _held(item: Json, kind: str, requests: Amounts, limits: Amounts) -> list[str]:
    found = []
    for name, least in (item.get("min") or {}).items():
        if name not in requests:
            found.append(f"minimum {name} usage per {kind} is {least}.  No request is specified")
        elif requests[name] < quantity.parse(least):
            found.append(
                f"minimum {name} usage per {kind} is {least}, but request is {shown(name, requests[name])}"
            )
    for name, most in (item.get("max") or {}).items():
        if name not in limits:
            found.append(f"maximum {name} usage per {kind} is {most}.  No limit is specified")
        elif limits[name] > quantity.parse(most):
            found.append(
                f"maximum {name} usage per {kind} is {most}, but limit is {shown(name, limits[name])}"
            )
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if not limits.get(name) or not requests.get(name):
            found.append(
                f"{name} max limit to request ratio per {kind} is {ratio}, but no request is specified or request is 0"
            )
        elif limits[name] / requests[name] > quantity.parse(ratio):
            found.append(
                f"{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is "
                f"{float(limits[name] / requests[name]):.6f}"
            )
    return found


# quotas ----------------------------------------------------------------------------------------------


def usage(key: Key, body: Json) -> Amounts:
    """What one object uses, by the names that quotas have for it."""
    group, plural = key
    found = {f"count/{plural}.{group}" if group else f"count/{plural}": Decimal(1)}
    if key == PODS:
        if (body.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return {"count/pods": Decimal(1)}
        found["pods"] = Decimal(1)
        for what in ("requests", "limits"):
            for name, amount in podresources.total(body["spec"], what, overhead=True).items():
                found[f"{what}.{name}"] = amount
                if what == "requests" and name in COMPUTE:
                    found[name] = amount
    elif key == CLAIMS:
        spec = body["spec"]
        storage = amounts((spec.get("resources") or {}).get("requests")).get("storage", Decimal(0))
        found |= {"persistentvolumeclaims": Decimal(1), "requests.storage": storage}
        if spec.get("storageClassName"):
            of_class = f"{spec['storageClassName']}.storageclass.storage.k8s.io/"
            found |= {of_class + "persistentvolumeclaims": Decimal(1), of_class + "requests.storage": storage}
    elif key == SERVICES:
        kind, ports = body["spec"].get("type"), len(body["spec"].get("ports") or ())
        found["services"] = Decimal(1)
        found["services.nodeports"] = Decimal(ports if kind in ("NodePort", "LoadBalancer") else 0)
        found["services.loadbalancers"] = Decimal(kind == "LoadBalancer")
    elif not group and plural in COUNTED:
        found[plural] = Decimal(1)
    return found


def concerned(key: Key, hard: Mapping[str, Any]) -> bool:
    """Whether a quota with these limits can be about objects of a kind."""
    group, plural = key
    if (f"count/{plural}.{group}" if group else f"count/{plural}") in hard:
        return True
    if key == PODS:
        return any(
            name == "pods" or name in COMPUTE or name.partition(".")[0] in ("requests", "limits")
            for name in hard
        )
    if key == CLAIMS:
        return any(name.endswith(("persistentvolumeclaims", "requests.storage")) for name in hard)
    if key == SERVICES:
        return any(name.partition(".")[0] == "services" for name in hard)
    return not group and plural in COUNTED and plural in hard


def in_scope(quota: Json, key: Key, body: Json) -> bool:
    """Whether a quota is about an object; scopes are about pods only."""
    spec = quota.get("spec") or {}
    asked = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    asked += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return not asked or (key == PODS and all(_scope(item, body) for item in asked))


def _scope(item: Json, pod: Json) -> bool:
    spec = pod["spec"]
    match item.get("scopeName"):
        case "BestEffort":
            return qos_class(spec) == "BestEffort"
        case "NotBestEffort":
            return qos_class(spec) != "BestEffort"
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "PriorityClass":
            name, values = spec.get("priorityClassName") or "", item.get("values") or ()
            return {
                "In": name in values,
                "NotIn": name not in values,
                "Exists": bool(name),
                "DoesNotExist": not name,
            }.get(item.get("operator", ""), False)
        case "CrossNamespacePodAffinity":
            return False
    return False


def used(quota: Json, objects: Iterable[tuple[Key, Json]]) -> dict[str, str]:
    """status.used: for every limit of the quota, what the namespace's objects use."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    total = dict.fromkeys(hard, Decimal(0))
    for key, body in objects:
        if in_scope(quota, key, body):
            for name, amount in usage(key, body).items():
                if name in total:
                    total[name] += amount
    return {name: shown(name, amount) for name, amount in total.items()}


def quota_fault(quota: Json, key: Key, body: Json, have: Mapping[str, str], old: Json | None = None) -> str:
    """Why a quota forbids an object, given what the namespace uses without it; empty when it does not."""
    if not in_scope(quota, key, body):
        return ""
    name = quota["metadata"]["name"]
    hard = (quota.get("spec") or {}).get("hard") or {}
    if key == PODS and old is None:
        missing = _unspecified(hard, body["spec"])
        if missing:
            return f"failed quota: {name}: must specify {'; '.join(missing)}"
    wanted = usage(key, body)
    before = usage(key, old) if old is not None and in_scope(quota, key, old) else {}
    over = []
    for what, limit in sorted(hard.items()):
        more = wanted.get(what, Decimal(0)) - before.get(what, Decimal(0))
        if more > 0 and quantity.parse(have.get(what, "0")) + more > quantity.parse(limit):
            over.append((what, shown(what, more), have.get(what, "0"), limit))
    if not over:
        return ""
    listed = [",".join(f"{row[0]}={row[place]}" for row in over) for place in (1, 2, 3)]
    return f"exceeded quota: {name}, requested: {listed[0]}, used: {listed[1]}, limited: {listed[2]}"


def _unspecified(hard: Mapping[str, Any], spec: Json) -> list[str]:
    """A quota on compute resources asks every container to say what it wants of them, or the pod."""
    found: list[str] = []
    if podresources.whole(spec):
        return found
    for what in sorted(hard):
        section, _, resource = what.partition(".")
        if what in COMPUTE:
            section, resource = "requests", what
        if section not in ("requests", "limits") or resource not in COMPUTE:
            continue
        silent = [
            container["name"]
            for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
            if resource not in ((container.get("resources") or {}).get(section) or {})
        ]
        if silent:
            found.append(f"{what} for: {','.join(sorted(silent))}")
    return found
