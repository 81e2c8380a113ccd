"""Names, labels, annotations, finalizers and owners."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone.validation.metadata import MAX_ANNOTATION_BYTES, on_metadata

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}


def faults(metadata: dict[str, Any], *key: str) -> list[str]:
    return [cause.field for cause in on_metadata((key[0], key[1]) if key else ("", "pods"), metadata)]


@pytest.mark.parametrize(
    ("key", "name", "good"),
    [
        (("", "pods"), "a.b-c", True),
        (("", "pods"), "a" * 253, True),
        (("", "pods"), "a" * 254, False),
        (("", "pods"), "", False),
        (("", "pods"), "A", False),
        (("", "pods"), "a..b", False),
        (("", "pods"), "a/b", False),
        (("", "pods"), "a\nb", False),
        (("", "namespaces"), "a.b", False),
        (("", "namespaces"), "1a", True),
        (("", "namespaces"), "a" * 64, False),
        (("", "services"), "1a", False),
        (("", "services"), "a1", True),
        (("rbac.authorization.k8s.io", "roles"), "System:A", True),
        (("rbac.authorization.k8s.io", "roles"), "a/b", False),
        (("rbac.authorization.k8s.io", "roles"), "..", False),
        (("rbac.authorization.k8s.io", "roles"), "a%b", False),
    ],
)
def test_names(key: tuple[str, str], name: str, good: bool) -> None:
    assert (faults({"name": name}, *key) == []) is good


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("app", "a", True),
        ("app", "", True),
        ("example.com/app", "A_b.c", True),
        ("app", "-a", False),
        ("app", "a" * 64, False),
        ("Example.com/app", "a", False),
        ("/app", "a", False),
        ("example.com/", "a", False),
        ("a" * 64, "a", False),
        ("a b", "a", False),
    ],
)
def test_labels(name: str, value: str, good: bool) -> None:
    assert (set(faults({"name": "a", "labels": {name: value}})) == set()) is good


def test_annotations_may_hold_anything_up_to_their_size() -> None:
    assert faults({"name": "a", "annotations": {"Example.com/A": "any\nthing"}}) == []
    assert faults({"name": "a", "annotations": {"a": "x" * MAX_ANNOTATION_BYTES}}) == ["metadata.annotations"]


def test_finalizers_are_somebodys() -> None:
    assert faults({"name": "a", "finalizers": ["orphan", "foregroundDeletion", "kubernetes", "a.b/c"]}) == []
    assert faults({"name": "a", "finalizers": ["mine"]}) == ["metadata.finalizers"]


def test_owners_are_whole_and_one_controls() -> None:
    assert faults({"name": "a", "ownerReferences": [OWNER, OWNER | {"controller": True}]}) == []
    assert faults({"name": "a", "ownerReferences": [OWNER | {"uid": ""}]}) == [
        "metadata.ownerReferences[0].uid"
    ]
    both = [OWNER | {"controller": True}] * 2
    assert faults({"name": "a", "ownerReferences": both}) == ["metadata.ownerReferences"]
