"""Turn a CustomResourceDefinition into rows of the table of kinds, and into its own status.  Pure."""

from __future__ import annotations

from typing import Any

from beehive.printing.custom import read_columns
from cloudcore.standalone import rules
from cloudcore.standalone.kinds import Kind, Registry, ScalePaths
from cloudcore.standalone.status import Cause, invalid_value

Json = dict[str, Any]
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
KEY = ("apiextensions.k8s.io", "customresourcedefinitions")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def key_of(definition: Json) -> tuple[str, str]:
    """What the objects of this definition are stored under."""
    spec = definition["spec"]
    return spec["group"], spec["names"]["plural"]


def rows(definition: Json) -> list[Kind]:
    """One row per served version."""
    spec = definition["spec"]
    names = spec["names"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        found.append(
            Kind(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                singular=names.get("singular") or names["kind"].lower(),
                list_kind=names.get("listKind") or names["kind"] + "List",
                short=tuple(names.get("shortNames") or ()),
                namespaced=spec["scope"] == "Namespaced",
                categories=tuple(names.get("categories") or ()),
                subresources=("status",) * ("status" in subresources) + ("scale",) * (scale is not None),
                verbs=CUSTOM_VERBS,
                generation=True,
                storage_version=storage,
                custom=True,
                columns=read_columns(version),
                schema=schema,
                rules=rules.compile_schema(schema),
                scale=None
                if scale is None
                else ScalePaths(
                    spec=scale["specReplicasPath"].lstrip("."),
                    status=scale["statusReplicasPath"].lstrip("."),
                    selector=scale.get("labelSelectorPath", "").lstrip("."),
                ),
                selectable=tuple(
                    field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()
                ),
            )
        )
    return found


def established(definition: Json, registry: Registry, now: str) -> Json:
    """The status of a definition that is served now, or says why its names are not."""
    spec = definition["spec"]
    clash = _clash(definition, registry)
    accepted = [
        {
            "type": "NamesAccepted",
            "status": "False" if clash else "True",
            "lastTransitionTime": now,
            "reason": "KindConflict" if clash else "NoConflicts",
            "message": clash or "no conflicts found",
        },
        {
            "type": "Established",
            "status": "False" if clash else "True",
            "lastTransitionTime": now,
            "reason": "NotAccepted" if clash else "InitialNamesAccepted",
            "message": "not all names are accepted" if clash else "the initial names have been accepted",
        },
    ]
    stored = list((definition.get("status") or {}).get("storedVersions") or [])
    current = next(version["name"] for version in spec["versions"] if version.get("storage"))
    if current not in stored:
        stored.append(current)
    return {
        "conditions": accepted,
        "acceptedNames": {} if clash else spec["names"],
        "storedVersions": stored,
    }


def _clash(definition: Json, registry: Registry) -> str:
    spec = definition["spec"]
    key = key_of(definition)
    for row in registry:
        if row.group == spec["group"] and row.key != key and row.kind == spec["names"]["kind"]:
            return f'"{row.kind}" is already in use'
        if row.key == key and not row.custom:
            return f'"{row.plural}" is already in use'
    return ""


def unknown_status(definition: Json) -> Json:
    """The status of a definition that nobody has looked at yet."""
    stored = [
        version["name"] for version in definition["spec"].get("versions") or () if version.get("storage")
    ]
    return {"acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


def mark_terminating(definition: Json, now: str) -> None:
    conditions = definition.setdefault("status", {}).setdefault("conditions", [])
    conditions.append(
        {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }
    )


def accepted(definition: Json) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "NamesAccepted" and item["status"] == "True" for item in conditions)


def rule_faults(definition: Json) -> rules.Faults:
    """What is wrong with the validation rules of all versions, and which of them are kept without effect."""
    faults = rules.Faults()
    for index, version in enumerate(definition["spec"].get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if isinstance(schema, dict):
            rules.compile_schema(schema, f"spec.versions[{index}].schema.openAPIV3Schema", faults)
    return faults


def scale_faults(scale: ScalePaths, body: Json) -> list[Cause]:
    """What is wrong with the replicas of an object that has a scale subresource."""
    causes = []
    for path in (scale.spec, scale.status):
        value: Any = body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            kind = {str: "string", bool: "bool", float: "float64"}.get(type(value), "map[string]interface {}")
            text = f".{path} accessor error: {value} is of the type {kind}, expected int64"
            causes.append(invalid_value(f".{path}", 0, text))
        elif value < 0:
            causes.append(invalid_value(f".{path}", value, "should be a non-negative integer"))
        elif value > 2**31 - 1:
            causes.append(
                invalid_value(f".{path}", value, "should be less than or equal to 2147483647 (MaxInt32)")
            )
    return causes
