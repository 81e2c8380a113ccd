"""Schemas that say only what is known."""

import json

from edgecore.metaserver import schemas


def test_each_group_has_one() -> None:
    groups = json.dumps({"groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1"}]}, 3]}).encode()
    assert set(json.loads(schemas.root(groups))["paths"]) == {"api/v1", "apis/apps/v1"}
    assert set(json.loads(schemas.root(b"rubbish"))["paths"]) == {"api/v1"}
    assert schemas.resources_path("/openapi/v3/apis/apps/v1") == "/apis/apps/v1"
    assert schemas.resources_path("/openapi/v3") == schemas.resources_path("/api") == ""


def test_a_kind_can_be_patched_with_its_fields_checked_and_nothing_is_known_of_them() -> None:
    rows = [
        {"name": "pods", "kind": "Pod", "namespaced": True},
        {"name": "pods/status", "kind": "Pod", "namespaced": True},
        {"name": "nodes", "kind": "Node", "namespaced": False},
        {"name": 3},
    ]
    found = json.loads(schemas.group("/api/v1", json.dumps({"resources": rows}).encode()))
    assert set(found["paths"]) == {
        "/api/v1/namespaces/{namespace}/pods",
        "/api/v1/namespaces/{namespace}/pods/{name}",
        "/api/v1/nodes",
        "/api/v1/nodes/{name}",
    }
    patch = found["paths"]["/api/v1/nodes/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "", "version": "v1", "kind": "Node"}
    assert [item["name"] for item in patch["parameters"]] == ["fieldValidation"]
    assert found["components"]["schemas"]["core.v1.Node"]["description"] == schemas.UNKNOWN
    assert json.loads(schemas.group("/apis/apps/v1", b"[]"))["paths"] == {}
