"""What is wrong with objects of the kinds that have few rules.  Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from cloudcore.standalone import quantity
from cloudcore.standalone.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    too_long,
    unsupported,
)
from cloudcore.standalone.validation.names import qualified

Json = dict[str, Any]

CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
MAX_DATA_BYTES = 1024 * 1024
SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def config_data(body: Json) -> Iterator[Cause]:
    total = 0
    for group in ("data", "binaryData"):
        for name, value in (body.get(group) or {}).items():
            total += len(value.encode())
            if not CONFIG_KEY.fullmatch(name) or len(name) > 253 or name in (".", ".."):
                yield invalid_value(
                    f"{group}[{name}]",
                    name,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
                    "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                )
    if total > MAX_DATA_BYTES:
        yield too_long("[]", MAX_DATA_BYTES)


def secret(body: Json) -> Iterator[Cause]:
    yield from config_data(body)
    data = body.get("data") or {}
    for name in SECRET_KEYS.get(body.get("type", ""), ()):
        if name not in data:
            yield required(f"data[{name}]")


def immutable_data(body: Json, old: Json) -> Iterator[Cause]:
    if old.get("immutable"):
        if not body.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if (body.get(field) or {}) != (old.get(field) or {}):
                yield forbidden_field(field, "field is immutable when `immutable` is set")


def secret_update(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("type") != old.get("type"):
        yield invalid_value("type", body.get("type"), "field is immutable")
    yield from immutable_data(body, old)


def service(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if spec.get("type") not in ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"):
        yield unsupported(
            "spec.type", spec.get("type"), ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
        )
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            yield required(f"{at}.name")
        elif name and name in names:
            yield duplicate(f"{at}.name", name)
        names.add(name)
        if not 1 <= port.get("port", 0) <= 65535:
            yield invalid_value(f"{at}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
        target = port.get("targetPort", port.get("port", 0))
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield invalid_value(f"{at}.targetPort", target, "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))


def service_update(body: Json, old: Json) -> Iterator[Cause]:
    before, after = old["spec"].get("clusterIP"), body["spec"].get("clusterIP")
    if before and before != after and old["spec"].get("type") != "ExternalName":
        yield invalid_value("spec.clusterIPs[0]", [after] if after else None, "may not change once set")


def claim(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield required("spec.resources[storage]")
    elif quantity.parse(storage) <= 0:
        yield invalid_value("spec.resources[storage]", storage, "must be greater than zero")


def claim_update(body: Json, old: Json) -> Iterator[Cause]:
    """Its size may grow, and it is bound once."""
    kept = ("resources", "volumeName", "volumeAttributesClassName")
    new_spec, old_spec = body["spec"], old["spec"]
    changed = {n: v for n, v in new_spec.items() if n not in kept} != {
        n: v for n, v in old_spec.items() if n not in kept
    }
    if changed or old_spec.get("volumeName") not in (None, "", new_spec.get("volumeName")):
        yield forbidden_field(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )


def node(body: Json) -> Iterator[Cause]:
    for index, taint in enumerate(body.get("spec", {}).get("taints") or ()):
        at = f"spec.taints[{index}]"
        yield from qualified(f"{at}.key", taint.get("key", ""))
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield unsupported(
                f"{at}.effect", taint.get("effect"), ("NoSchedule", "PreferNoSchedule", "NoExecute")
            )


def lease(body: Json) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    for field in ("leaseDurationSeconds",):
        if field in spec and spec[field] <= 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield invalid_value(
            "spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"
        )


def role_ref(body: Json) -> Iterator[Cause]:
    ref = body.get("roleRef") or {}
    if not ref.get("name"):
        yield required("roleRef.name")
    if ref.get("kind") not in ("Role", "ClusterRole"):
        yield unsupported("roleRef.kind", ref.get("kind"), ("Role", "ClusterRole"))
    for index, subject in enumerate(body.get("subjects") or ()):
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            yield unsupported(
                f"subjects[{index}].kind", subject.get("kind"), ("ServiceAccount", "User", "Group")
            )
        if not subject.get("name"):
            yield required(f"subjects[{index}].name")


def role_ref_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("roleRef") != old.get("roleRef"):
        yield invalid_value("roleRef", body.get("roleRef"), "cannot change roleRef")


def csr(body: Json) -> Iterator[Cause]:

    request = (body.get("spec") or {}).get("request", "")
    try:
        text = base64.b64decode(request, validate=True)
    except (binascii.Error, ValueError):
        text = b""
    if b"BEGIN CERTIFICATE REQUEST" not in text:
        yield invalid_value("spec.request", request, "PEM block type must be CERTIFICATE REQUEST")
    if not (body.get("spec") or {}).get("signerName"):
        yield required("spec.signerName")


def handler_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("handler") != old.get("handler"):
        yield invalid_value("handler", body.get("handler"), "field is immutable")
