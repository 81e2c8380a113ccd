"""What is wrong with a CustomResourceDefinition.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudcore.standalone.status import (
    Cause,
    duplicate,
    invalid_value,
    required,
    unsupported,
)
from cloudcore.standalone.validation.names import DNS_1035, DNS_1035_TEXT

Json = dict[str, Any]


def definition(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    names = spec.get("names") or {}
    group, plural = spec.get("group", ""), names.get("plural", "")
    if not group:
        yield required("spec.group")
    if not plural:
        yield required("spec.names.plural")
    if not names.get("kind"):
        yield required("spec.names.kind")
    if group and plural and body["metadata"].get("name") != f"{plural}.{group}":
        yield invalid_value(
            "metadata.name", body["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group'
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    versions = spec.get("versions") or []
    if not versions:
        yield required("spec.versions", "must have exactly one version marked as storage version")
    elif sum(version.get("storage") is True for version in versions) != 1:
        yield invalid_value(
            "spec.versions",
            [v.get("name") for v in versions],
            "must have exactly one version marked as storage version",
        )
    seen: set[str] = set()
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        name = version.get("name", "")
        if not DNS_1035.fullmatch(name):
            yield invalid_value(f"{at}.name", name, DNS_1035_TEXT)
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            yield required(f"{at}.schema.openAPIV3Schema", "schemas are required")
        elif schema.get("type") != "object":
            yield invalid_value(
                f"{at}.schema.openAPIV3Schema.type", schema.get("type", ""), "must be object at the root"
            )
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy not in ("None", "Webhook"):
        yield unsupported("spec.conversion.strategy", strategy, ("None", "Webhook"))


def definition_update(body: Json, old: Json) -> Iterator[Cause]:
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        new_value: Any = body["spec"]
        old_value: Any = old["spec"]
        for part in path:
            new_value, old_value = new_value.get(part), old_value.get(part)
        if new_value != old_value:
            yield invalid_value("spec." + ".".join(path), new_value, "field is immutable")
