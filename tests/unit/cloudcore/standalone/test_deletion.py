"""What a delete makes of an object."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudcore.standalone import crds, deletion
from cloudcore.standalone.deletion import FOREGROUND, ORPHAN, DeleteOptions, Marked
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.status import ApiError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REGISTRY = Registry.core()


@dataclass(frozen=True)
class Head:
    name: str = "a"
    uid: str = "u"
    revision: int = 7


def kind(plural: str, group: str = "", version: str = "v1") -> Kind:
    found = REGISTRY.by_path(group, version, plural)
    assert found is not None
    return found


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a", "generation": 1}, "spec": {"nodeName": "n", **spec}, "status": {}}


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (DeleteOptions(), False),
        (DeleteOptions(uid="u", resource_version="7"), False),
        (DeleteOptions(uid="other"), True),
        (DeleteOptions(resource_version="6"), True),
    ],
)
def test_another_object_than_the_one_that_is_meant_is_kept(options: DeleteOptions, refused: bool) -> None:
    if not refused:
        deletion.check(kind("pods"), Head(), options)
        return
    with pytest.raises(ApiError) as caught:
        deletion.check(kind("pods"), Head(), options)
    assert caught.value.code == 409


def test_what_nobody_holds_goes_at_once() -> None:
    body: dict[str, Any] = {"metadata": {"name": "a"}}
    assert deletion.mark(kind("configmaps"), body, DeleteOptions(grace_s=30), NOW) is Marked.GOES
    assert body == {"metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("spec", "status", "asked", "grace"),
    [
        ({}, {}, None, 30),
        ({"terminationGracePeriodSeconds": 5}, {}, None, 5),
        ({"terminationGracePeriodSeconds": 5}, {}, 9, 9),
        ({"terminationGracePeriodSeconds": -3}, {}, None, 1),
        ({}, {}, -1, 1),
        ({}, {}, 0, None),
        ({"terminationGracePeriodSeconds": 0}, {}, None, None),
        ({"nodeName": ""}, {}, None, None),
        ({}, {"phase": "Succeeded"}, None, None),
        ({}, {"phase": "Failed"}, 20, None),
        ({}, {"phase": "Running"}, 20, 20),
    ],
)
def test_a_pod_is_given_its_grace_where_a_node_has_it(
    spec: dict[str, Any], status: dict[str, Any], asked: int | None, grace: int | None
) -> None:
    body = pod(**spec) | {"status": status}
    marked = deletion.mark(kind("pods"), body, DeleteOptions(grace_s=asked), NOW)
    if grace is None:
        assert marked is Marked.GOES
        assert body["metadata"]["deletionGracePeriodSeconds"] == 0
        return
    assert marked is Marked.WAITS
    assert body["metadata"]["deletionGracePeriodSeconds"] == grace
    assert body["metadata"]["deletionTimestamp"] > "2026-01-02T03:04:05Z"
    assert body["metadata"]["generation"] == 2


def test_a_second_delete_may_shorten_the_grace_only() -> None:
    body = pod()
    deletion.mark(kind("pods"), body, DeleteOptions(grace_s=30), NOW)
    before = copy.deepcopy(body)
    assert deletion.mark(kind("pods"), body, DeleteOptions(grace_s=60), NOW) is Marked.AS_BEFORE
    assert body == before
    assert deletion.mark(kind("pods"), body, DeleteOptions(grace_s=5), NOW) is Marked.WAITS
    assert body["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:10Z"
    assert body["metadata"]["generation"] == 2, "it ends once"
    assert deletion.mark(kind("pods"), body, DeleteOptions(grace_s=0), NOW) is Marked.GOES


@pytest.mark.parametrize(
    ("held", "propagation", "then"),
    [
        ([], "", None),
        ([], "Background", None),
        ([], "Foreground", [FOREGROUND]),
        ([], "Orphan", [ORPHAN]),
        (["a/b"], "", ["a/b"]),
        ([FOREGROUND], "", [FOREGROUND]),
        ([FOREGROUND], "Background", None),
        ([FOREGROUND, "a/b"], "Orphan", ["a/b", ORPHAN]),
    ],
)
def test_how_dependents_are_dealt_with_is_a_finalizer(
    held: list[str], propagation: str, then: list[str] | None
) -> None:
    body: dict[str, Any] = {"metadata": {"name": "a", **({"finalizers": held} if held else {})}}
    marked = deletion.mark(kind("configmaps"), body, DeleteOptions(propagation=propagation), NOW)
    assert marked is (Marked.WAITS if then else Marked.GOES)
    assert body["metadata"].get("finalizers") == then
    assert ("deletionTimestamp" in body["metadata"]) == bool(then)


def test_a_namespace_waits_until_it_is_empty() -> None:
    body: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}
    assert deletion.mark(kind("namespaces"), body, DeleteOptions(), NOW) is Marked.WAITS
    assert body["status"]["phase"] == "Terminating"
    assert "deletionGracePeriodSeconds" not in body["metadata"]
    body["spec"]["finalizers"] = []
    assert deletion.mark(kind("namespaces"), body, DeleteOptions(), NOW) is Marked.GOES


def test_a_definition_waits_until_its_objects_are_gone() -> None:
    body: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {}, "status": {"conditions": []}}
    crd = kind("customresourcedefinitions", "apiextensions.k8s.io")
    assert deletion.mark(crd, body, DeleteOptions(), NOW) is Marked.WAITS
    assert body["metadata"]["finalizers"] == [crds.CLEANUP]
    body["metadata"]["finalizers"] = []
    assert deletion.mark(crd, body, DeleteOptions(), NOW) is Marked.GOES
