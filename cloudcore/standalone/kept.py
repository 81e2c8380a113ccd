"""What an update puts back because its request may not change it, and whether it changed anything then.  Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from cloudcore.standalone import signing
from cloudcore.standalone.ids import NAMESPACES
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.status import invalid

Json = dict[str, Any]
KEPT_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def keep(kind: Kind, body: Json, old: Json, subresource: str) -> None:
    """Put back what a write to this subresource ("" is the object) may not change.  Raises ApiError (Invalid)."""
    metadata, before = body["metadata"], old["metadata"]
    for name in KEPT_FIELDS:
        if name in before:
            metadata[name] = before[name]
        else:
            metadata.pop(name, None)
    metadata.pop("selfLink", None)
    if subresource == "status":
        for name in list(body):
            if name not in ("status", "metadata", "apiVersion", "kind"):
                del body[name]
        body.update({name: value for name, value in old.items() if name not in ("status", "metadata")})
        if kind.custom:
            fields = metadata.get("managedFields")
            version = metadata.get("resourceVersion")
            body["metadata"] = copy.deepcopy(before)
            if fields is not None:
                body["metadata"]["managedFields"] = fields
            if version:
                body["metadata"]["resourceVersion"] = version
        elif "ownerReferences" in before:
            metadata["ownerReferences"] = before["ownerReferences"]
        else:
            metadata.pop("ownerReferences", None)
    elif subresource == "approval":
        # a decision is all that changes here
        conditions = (body.get("status") or {}).get("conditions")
        body["status"] = {**(old.get("status") or {}), "conditions": conditions or []}
        body["spec"] = old.get("spec", {})
        faults = signing.decided(conditions or [], (old.get("status") or {}).get("conditions") or [])
        if faults:
            raise invalid(kind.kind, kind.group, before["name"], faults)
    elif subresource == "ephemeralcontainers":
        kept = copy.deepcopy(old)
        added = (body.get("spec") or {}).get("ephemeralContainers")
        if added is not None:
            kept["spec"]["ephemeralContainers"] = added
        body["spec"] = kept["spec"]
        body["status"] = kept.get("status", {})
    elif kind.has_status and subresource != "finalize":
        if "status" in old:
            body["status"] = old["status"]
        else:
            body.pop("status", None)
        if kind.key == NAMESPACES:
            body["spec"] = old.get("spec", {})
    elif subresource == "finalize":
        body["status"] = old.get("status", {})
    if kind.key == signing.KEY:
        signing.keep(body, old, subresource)


def spec_changed(kind: Kind, body: Json, old: Json) -> bool:
    """Whether this makes a new generation."""
    skip = {"metadata", "kind", "apiVersion"} | ({"status"} if kind.has_status or not kind.custom else set())
    return {n: v for n, v in body.items() if n not in skip} != {n: v for n, v in old.items() if n not in skip}


def same(body: Json, old: Json) -> bool:
    """Whether nothing but times in managedFields differs."""
    if {n: v for n, v in body.items() if n != "metadata"} != {
        n: v for n, v in old.items() if n != "metadata"
    }:
        return False

    def bare(metadata: Mapping[str, Any]) -> Json:
        value = {n: v for n, v in metadata.items() if n != "managedFields"}
        value["fields"] = [
            {n: v for n, v in entry.items() if n != "time"} for entry in metadata.get("managedFields") or ()
        ]
        return value

    return bare(body["metadata"]) == bare(old["metadata"])
