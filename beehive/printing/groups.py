"""How `kubectl get` prints the kinds of the other built-in groups.  Pure.

Source: kubernetes, pkg/printers/internalversion/printers.go, and the recorded tables."""

from __future__ import annotations

from datetime import datetime

from beehive.printing.cells import (
    AGE,
    NAME,
    NONE,
    Cell,
    Json,
    Row,
    count,
    duration,
    field,
    get,
    name_of,
    selector,
)


def _slice_ports(body: Json, now: datetime) -> str:
    return ",".join(str(port.get("port")) for port in body.get("ports") or ()) or "<unset>"


def _slice_addresses(body: Json, now: datetime) -> str:
    found = [address for item in body.get("endpoints") or () for address in item.get("addresses") or ()]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") or "<unset>"


def _role_ref(body: Json, now: datetime) -> str:
    ref = body.get("roleRef") or {}
    return f"{ref.get('kind')}/{ref.get('name')}"


def _subjects(kind: str) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        found = [item for item in body.get("subjects") or () if item.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{item.get('namespace')}/{item.get('name')}" for item in found)
        return ", ".join(item.get("name", "") for item in found)

    return cell


def _class_name(body: Json, now: datetime) -> str:
    notes = body["metadata"].get("annotations") or {}
    default = notes.get("storageclass.kubernetes.io/is-default-class") == "true"
    return name_of(body, now) + (" (default)" if default else "")


def _requested(body: Json, now: datetime) -> str:
    seconds = get(body, "spec.expirationSeconds")
    return duration(seconds) if isinstance(seconds, int) else NONE


def _request_state(body: Json, now: datetime) -> str:
    """Source: extractCSRStatus."""
    types = {item.get("type") for item in get(body, "status.conditions") or ()}
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        state += ",Failed"
    return state + (",Issued" if get(body, "status.certificate") else "")


ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("storage.k8s.io", "storageclasses"): (
        ("Name", "string", 0, _class_name),
        ("Provisioner", "string", 0, field("provisioner")),
        ("ReclaimPolicy", "string", 0, field("reclaimPolicy", "Delete")),
        ("VolumeBindingMode", "string", 0, field("volumeBindingMode", "Immediate")),
        ("AllowVolumeExpansion", "string", 0, lambda body, now: bool(body.get("allowVolumeExpansion"))),
        AGE,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        NAME,
        AGE,
        ("SignerName", "string", 0, field("spec.signerName")),
        ("Requestor", "string", 0, field("spec.username")),
        ("RequestedDuration", "string", 0, _requested),
        ("Condition", "string", 0, _request_state),
    ),
    ("networking.k8s.io", "networkpolicies"): (
        NAME,
        ("Pod-Selector", "string", 0, selector("spec.podSelector")),
        AGE,
    ),
    ("networking.k8s.io", "ingressclasses"): (
        NAME,
        ("Controller", "string", 0, field("spec.controller")),
        ("Parameters", "string", 0, field("spec.parameters.name", NONE)),
        AGE,
    ),
    ("node.k8s.io", "runtimeclasses"): (NAME, ("Handler", "string", 0, field("handler")), AGE),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): (
        NAME,
        ("Webhooks", "integer", 0, count("webhooks")),
        AGE,
    ),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): (
        NAME,
        ("Webhooks", "integer", 0, count("webhooks")),
        AGE,
    ),
    ("coordination.k8s.io", "leases"): (NAME, ("Holder", "string", 0, field("spec.holderIdentity")), AGE),
    ("discovery.k8s.io", "endpointslices"): (
        NAME,
        ("AddressType", "string", 0, field("addressType")),
        ("Ports", "string", 0, _slice_ports),
        ("Endpoints", "string", 0, _slice_addresses),
        AGE,
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        NAME,
        ("Created At", "string", 0, field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "roles"): (
        NAME,
        ("Created At", "string", 0, field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "clusterroles"): (
        NAME,
        ("Created At", "string", 0, field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "rolebindings"): (
        NAME,
        ("Role", "string", 0, _role_ref),
        AGE,
        ("Users", "string", 1, _subjects("User")),
        ("Groups", "string", 1, _subjects("Group")),
        ("ServiceAccounts", "string", 1, _subjects("ServiceAccount")),
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): (
        NAME,
        ("Role", "string", 0, _role_ref),
        AGE,
        ("Users", "string", 1, _subjects("User")),
        ("Groups", "string", 1, _subjects("Group")),
        ("ServiceAccounts", "string", 1, _subjects("ServiceAccount")),
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        NAME,
        ("Value", "string", 0, field("value", 0)),
        ("Global-Default", "string", 0, lambda body, now: "true" if body.get("globalDefault") else "false"),
        AGE,
    ),
    ("networking.k8s.io", "ingresses"): (
        NAME,
        ("Class", "string", 0, lambda body, now: get(body, "spec.ingressClassName") or NONE),
        (
            "Hosts",
            "string",
            0,
            lambda body, now: (
                ",".join(rule.get("host", "*") for rule in get(body, "spec.rules") or ()) or "*"
            ),
        ),
        AGE,
    ),
}
