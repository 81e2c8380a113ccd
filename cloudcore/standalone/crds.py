"""Turn a CustomResourceDefinition into rows of the table of kinds, and into its own status.  Pure."""

from __future__ import annotations

from typing import Any

from cloudcore.standalone.kinds import Column, Kind, Registry, ScalePaths

Json = dict[str, Any]
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
KEY = ("apiextensions.k8s.io", "customresourcedefinitions")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
AGE = Column(name="Age", type="date", json_path=".metadata.creationTimestamp")


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
        columns = tuple(
            Column(
                name=column["name"],
                type=column["type"],
                json_path=column["jsonPath"],
                format=column.get("format", ""),
                description=column.get("description", ""),
                priority=column.get("priority", 0),
            )
            for column in version.get("additionalPrinterColumns") or ()
        )
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
                columns=columns or (AGE,),
                schema=(version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"},
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


def has_rules(schema: Any) -> bool:
    """Whether a schema carries validation rules, which this server does not evaluate."""
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(has_rules(item) for item in schema.values())
    return isinstance(schema, list) and any(has_rules(item) for item in schema)
