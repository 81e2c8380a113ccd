"""What is wrong with a pod, with the pods of a template, and with a change of one.  Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

from cloudcore.standalone.podresources import qos_class
from cloudcore.standalone.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)
from cloudcore.standalone.validation.amounts import on_whole
from cloudcore.standalone.validation.containers import on_container
from cloudcore.standalone.validation.names import DNS_LABEL, DNS_SUBDOMAIN, LABEL_TEXT, SUBDOMAIN_TEXT

Json = dict[str, Any]

SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
SYSCTL_TEXT = (
    "must have at most 253 characters and match regex "
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)
POD_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(body: Json) -> Iterator[Cause]:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        yield required("spec.containers")
        return
    yield from pod_spec(spec, "spec")


def pod_spec(
    spec: Json,
    path: str,
    *,
    restart: tuple[str, ...] = ("Always", "OnFailure", "Never"),
    claims: Iterable[str] = (),
) -> Iterator[Cause]:
    """`claims`: volumes that the pods will have beside those written here."""
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        name, at = volume.get("name", ""), f"{path}.volumes[{index}]"
        if not name:
            yield required(f"{at}.name")
        elif not DNS_LABEL.fullmatch(name) or len(name) > 63:
            yield invalid_value(f"{at}.name", name, LABEL_TEXT)
        elif name in volumes:
            yield duplicate(f"{at}.name", name)
        volumes.add(name)
        if len([source for source in volume if source != "name"]) > 1:
            yield forbidden_field(at, "may not specify more than 1 volume type")
    volumes.update(claims)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(group) or ()):
            yield from on_container(container, f"{path}.{group}[{index}]", volumes, names)
    policy = spec.get("restartPolicy")
    if policy not in restart:
        yield unsupported(f"{path}.restartPolicy", policy, restart)
    dns = spec.get("dnsPolicy")
    if dns not in ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"):
        yield unsupported(
            f"{path}.dnsPolicy", dns, ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        )
    if spec.get("resources") is not None:
        yield from on_whole(spec, f"{path}.resources")
    yield from _sysctls(spec, f"{path}.securityContext.sysctls")
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield invalid_value(
            f"{path}.terminationGracePeriodSeconds",
            spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        )
    if spec.get("nodeName") and not DNS_SUBDOMAIN.fullmatch(spec["nodeName"]):
        yield invalid_value(f"{path}.nodeName", spec["nodeName"], SUBDOMAIN_TEXT)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        at = f"{path}.tolerations[{index}]"
        operator = toleration.get("operator", "Equal")
        if operator not in ("Equal", "Exists"):
            yield unsupported(f"{at}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and toleration.get("value"):
            yield invalid_value(
                f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'"
            )
        if not toleration.get("key") and operator != "Exists":
            yield invalid_value(
                f"{at}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )


def _sysctls(spec: Json, path: str) -> Iterator[Cause]:
    """Source: pkg/apis/core/validation, validateSysctls."""
    seen: set[str] = set()
    for index, item in enumerate((spec.get("securityContext") or {}).get("sysctls") or ()):
        name, at = item.get("name", ""), f"{path}[{index}].name"
        dotted = name.replace("/", ".")
        if not name:
            yield required(at)
        elif len(name) > 253 or not SYSCTL.fullmatch(name):
            yield invalid_value(at, name, SYSCTL_TEXT)
        elif dotted in seen:
            yield duplicate(at, name)
        elif spec.get("hostNetwork") and dotted.startswith("net."):
            yield invalid_value(at, name, "may not be specified when 'hostNetwork' is true")
        elif spec.get("hostIPC") and dotted.startswith(
            ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
        ):
            yield invalid_value(at, name, "may not be specified when 'hostIPC' is true")
        seen.add(dotted)


def pod_update(body: Json, old: Json) -> Iterator[Cause]:
    new_spec, old_spec = copy.deepcopy(body.get("spec") or {}), copy.deepcopy(old.get("spec") or {})
    for spec in (new_spec, old_spec):
        spec.pop("activeDeadlineSeconds", None)
        spec.pop("ephemeralContainers", None)
        for group in ("containers", "initContainers"):
            for container in spec.get(group) or ():
                container.pop("image", None)
    kept = old_spec.pop("tolerations", None) or []
    given = new_spec.pop("tolerations", None) or []
    gates = old_spec.pop("schedulingGates", None) or []
    new_gates = new_spec.pop("schedulingGates", None) or []
    if any(gate not in gates for gate in new_gates):
        yield forbidden_field(
            "spec.schedulingGates", "only deletion is allowed, but found new scheduling gates"
        )
    if any(item not in given for item in kept):
        yield forbidden_field(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )
    if gates:
        for spec in (new_spec, old_spec):
            spec.pop("nodeSelector", None)
            spec.pop("affinity", None)
    if new_spec != old_spec:
        yield forbidden_field("spec", POD_UPDATE_TEXT)


def on_resize(body: Json, old: Json) -> list[Cause]:
    """Why a pod cannot be resized so in place.  Source: pkg/apis/core/validation, ValidatePodResize."""
    before, after = old.get("spec") or {}, body.get("spec") or {}
    causes = list(pod(body))
    quality = qos_class(before)
    if qos_class(after) != quality:
        causes.append(invalid_value("spec", quality, "Pod QOS Class may not change as a result of resizing"))
    if _without_amounts(before) != _without_amounts(after):
        causes.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    limited = {item.get("name") for item in before.get("containers") or () if item.get("resources")}
    shown = (old.get("status") or {}).get("containerStatuses") or ()
    if any(item.get("name") in limited and item.get("resources") is None for item in shown):
        causes.append(forbidden_field("spec", "Pod running on node without support for resize"))
    return causes


def _without_amounts(spec: Json) -> Json:
    """A pod's spec without what a resize may change."""
    left = copy.deepcopy(spec)
    for group in ("containers", "initContainers"):
        for container in left.get(group) or ():
            for amounts in (container.get("resources") or {}).values():
                if isinstance(amounts, dict):
                    amounts.pop("cpu", None)
                    amounts.pop("memory", None)
    return left
