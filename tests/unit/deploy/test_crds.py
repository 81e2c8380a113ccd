"""The custom resource definitions agree with KubeEdge's table, and with what an API server accepts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import deploy

FOLDER = Path(deploy.__file__).parent / "crds"
CRDS: list[dict[str, Any]] = [
    document for file in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())
]

# kind: group, versions (storage last), plural, scope, short names, status subresource
EXPECTED = {
    "ObjectSync": ("reliablesyncs", ["v1alpha1"], "objectsyncs", "Namespaced", [], True),
    "ClusterObjectSync": ("reliablesyncs", ["v1alpha1"], "clusterobjectsyncs", "Cluster", [], True),
    "Rule": ("rules", ["v1"], "rules", "Namespaced", [], False),
    "RuleEndpoint": ("rules", ["v1"], "ruleendpoints", "Namespaced", ["re"], False),
    "ServiceAccountAccess": (
        "policy",
        ["v1alpha1"],
        "serviceaccountaccesses",
        "Namespaced",
        ["saaccess"],
        True,
    ),
    "NodeGroup": ("apps", ["v1alpha1"], "nodegroups", "Cluster", ["ng"], True),
    "EdgeApplication": ("apps", ["v1alpha1"], "edgeapplications", "Namespaced", ["eapp"], True),
    "NodeUpgradeJob": ("operations", ["v1alpha1", "v1alpha2"], "nodeupgradejobs", "Cluster", [], True),
    "ImagePrePullJob": ("operations", ["v1alpha1", "v1alpha2"], "imageprepulljobs", "Cluster", [], True),
    "ConfigUpdateJob": ("operations", ["v1alpha2"], "configupdatejobs", "Cluster", [], True),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_kinds_are_kubeedges(kind: str) -> None:
    (crd,) = [crd for crd in CRDS if crd["spec"]["names"]["kind"] == kind]
    group, versions, plural, scope, short, status = EXPECTED[kind]
    spec = crd["spec"]
    assert crd["metadata"]["name"] == f"{plural}.{group}.kubeedge.io"
    assert (spec["group"], spec["scope"]) == (f"{group}.kubeedge.io", scope)
    assert spec["names"]["plural"] == plural
    assert spec["names"].get("shortNames", []) == short
    assert [version["name"] for version in spec["versions"]] == versions
    assert [version["storage"] for version in spec["versions"]] == [False] * (len(versions) - 1) + [True]
    for version in spec["versions"]:
        assert ("status" in version.get("subresources", {})) is status


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}.{key}")


# What an API server knows of a schema, as far as we use it.  kubectl refuses a definition with any other field.
FIELDS = {
    *(
        "type",
        "format",
        "description",
        "enum",
        "default",
        "nullable",
        "pattern",
        "required",
        "properties",
        "items",
    ),
    *("additionalProperties", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-embedded-resource"),
    *(
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "anyOf",
    ),
}


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd["metadata"]["name"])
def test_schemas_have_known_fields(crd: dict[str, Any]) -> None:
    for version in crd["spec"]["versions"]:
        for path, schema in nodes(version["schema"]["openAPIV3Schema"], version["name"]):
            assert set(schema) <= FIELDS, path


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd["metadata"]["name"])
def test_schemas_are_structural(crd: dict[str, Any]) -> None:
    """Every node has a type (or is an int-or-string), lists have items, and what is required exists."""
    for version in crd["spec"]["versions"]:
        for path, schema in nodes(version["schema"]["openAPIV3Schema"], version["name"]):
            assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
            assert schema.get("type") != "array" or "items" in schema, path
            assert set(schema.get("required", ())) <= set(schema.get("properties", ())), path
            assert not ("properties" in schema and "additionalProperties" in schema), path
            assert isinstance(schema.get("description", ""), str), path
