"""What certificate signing requests may ask of which signer.  Pure.

Two signers give certificates of the API's own authority: one to clients, one to those who serve as a kubelet would.
Nothing is approved by itself.  Source: kubernetes, pkg/controller/certificates/signer and .../authorization."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cloudcore.standalone.status import Cause, invalid_value

Json = dict[str, Any]
KEY = ("certificates.k8s.io", "certificatesigningrequests")
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
MASTERS, NODES, NODE = "system:masters", "system:nodes", "system:node:"
LONGEST_S = 365 * 24 * 3600
SHORTEST_S = 600
_KEY_USAGES = frozenset({"digital signature", "key encipherment"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is inside the request: who, in which groups, for which names."""

    name: str
    groups: frozenset[str]
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    other_names: bool = False


def pem_of(body: Json) -> bytes:
    """The request itself; empty when it is no base64."""
    try:
        return base64.b64decode((body.get("spec") or {}).get("request") or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def stamp(body: Json, user: Json) -> None:
    """Who asks is what the server knows, not what the request says.  Changes it."""
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    spec.update({name: user[name] for name in ("username", "uid", "groups", "extra") if name in user})


def fault(signer: str, request: Request, usages: Iterable[str]) -> str:
    """Why a signer does not sign a request; empty when it does."""
    asked = set(usages)
    purpose = "server auth" if signer == KUBELET_SERVING else "client auth"
    if purpose not in asked or asked - _KEY_USAGES - {purpose}:
        return f'usages must be "{purpose}", and besides only "digital signature" and "key encipherment"'
    if signer == CLIENT:
        return f"group {MASTERS} cannot be asked for" if MASTERS in request.groups else ""
    if request.groups != {NODES}:
        return f"the organization must be {NODES}"
    if not request.name.startswith(NODE) or request.name == NODE:
        return f"the common name must begin with {NODE}"
    if request.other_names:
        return "URIs and e-mail addresses are not allowed as names"
    named = bool(request.dns or request.ips)
    if signer == KUBELET_CLIENT and named:
        return "a client certificate has no alternative names"
    if signer == KUBELET_SERVING and not named:
        return "at least one DNS name or address is needed"
    return ""


def lifetime_s(body: Json) -> int:
    """Seconds that the certificate is good for."""
    asked = (body.get("spec") or {}).get("expirationSeconds")
    return min(max(asked, SHORTEST_S), LONGEST_S) if isinstance(asked, int) else LONGEST_S


def state(body: Json) -> str:
    """Denied, Failed, Issued, Approved or Pending."""
    status = body.get("status") or {}
    types = {item.get("type") for item in status.get("conditions") or () if item.get("status") != "False"}
    for name in ("Denied", "Failed"):
        if name in types:
            return name
    if status.get("certificate"):
        return "Issued"
    return "Approved" if "Approved" in types else "Pending"


def keep(body: Json, old: Json, subresource: str) -> None:
    """A request is not changed once it is made, and decided on through `approval` only.  Changes `body`."""
    body["spec"] = old.get("spec", {})
    if subresource != "status":
        return

    def decisions(item: Json) -> bool:
        return item.get("type") in ("Approved", "Denied")

    status = body.setdefault("status", {})
    others = [item for item in status.get("conditions") or () if not decisions(item)]
    kept = [item for item in (old.get("status") or {}).get("conditions") or () if decisions(item)]
    if others or kept:
        status["conditions"] = [*kept, *others]


def decided(conditions: list[Json], before: list[Json]) -> list[Cause]:
    """What is wrong with the conditions after an approval or a denial: a decision stands."""
    types = {item.get("type") for item in conditions}
    found = []
    if {"Approved", "Denied"} <= types:
        found.append(
            invalid_value("status.conditions", "", "Approved and Denied conditions are mutually exclusive")
        )
    for kind in ("Approved", "Denied", "Failed"):
        if kind not in types and any(item.get("type") == kind for item in before):
            found.append(
                invalid_value("status.conditions", "", f"updates may not remove a condition of type {kind!r}")
            )
    return found
