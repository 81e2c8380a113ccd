from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.jsonpatch import PatchError, PatchFailed, json_patch
from cloudcore.standalone.patch import merge_patch, strategic_merge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def pod(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(containers)}}


def names(body: dict[str, Any]) -> list[str]:
    return [item["name"] for item in body["spec"]["containers"]]


def test_merge_patch_of_rfc_7386() -> None:
    cases: list[tuple[Any, Any, Any]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for target, change, want in cases:
        assert merge_patch(target, change) == want


@given(VALUES, VALUES)
def test_merge_patch_changes_neither_side_and_is_idempotent(target: Any, change: Any) -> None:
    kept = copy.deepcopy((target, change))
    once = merge_patch(target, change)
    assert (target, change) == kept
    assert merge_patch(once, change) == once


def test_json_patch_operations() -> None:
    body: dict[str, Any] = {"a": [1, 2], "b": {"c/d": 1}}
    steps = [
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "add", "path": "/a/0", "value": 0},
        {"op": "remove", "path": "/b/c~1d"},
        {"op": "copy", "from": "/a", "path": "/b/copy"},
        {"op": "move", "from": "/a", "path": "/z"},
        {"op": "replace", "path": "/z/0", "value": 9},
        {"op": "test", "path": "/z", "value": [9, 1, 2, 3]},
    ]
    assert json_patch(body, steps) == {"b": {"copy": [0, 1, 2, 3]}, "z": [9, 1, 2, 3]}
    assert body == {"a": [1, 2], "b": {"c/d": 1}}


@pytest.mark.parametrize(
    "step",
    [
        {"op": "remove", "path": "/absent"},
        {"op": "replace", "path": "/absent", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "nonsense", "path": "/a"},
        {"op": "remove", "path": ""},
    ],
)
def test_json_patches_that_do_not_fit(step: dict[str, Any]) -> None:
    with pytest.raises(PatchFailed):
        json_patch({"a": 1, "list": []}, [step])


def test_a_json_patch_must_be_a_list() -> None:
    bodies: list[Any] = [{}, [1], "x", None]
    for body in bodies:
        with pytest.raises(PatchError):
            json_patch({}, body)


def test_containers_merge_by_name() -> None:
    merged = strategic_merge(
        pod({"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}),
        pod({"name": "a", "env": [{"name": "Y", "value": "2"}]}),
        "V1Pod",
    )
    first = next(item for item in merged["spec"]["containers"] if item["name"] == "a")
    assert first["image"] == "1"
    assert {item["name"] for item in first["env"]} == {"X", "Y"}


def test_directives() -> None:
    old = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    assert names(strategic_merge(old, pod({"$patch": "delete", "name": "a"}), "V1Pod")) == ["b"]
    assert names(strategic_merge(old, pod({"$patch": "replace"}, {"name": "z", "image": "2"}), "V1Pod")) == [
        "z"
    ]
    order = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    assert names(strategic_merge(old, order, "V1Pod")) == ["b", "a"]
    assert strategic_merge({"spec": {"x": 1}}, {"spec": {"$patch": "replace", "nodeName": "n"}}, "V1Pod") == {
        "spec": {"nodeName": "n"}
    }
    finalizers = {"metadata": {"finalizers": ["a/b", "c/d"]}}
    assert strategic_merge(finalizers, {"metadata": {"finalizers": ["e/f"]}}, "V1Pod")["metadata"][
        "finalizers"
    ] == [
        "a/b",
        "c/d",
        "e/f",
    ]
    drop = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}
    assert strategic_merge(finalizers, drop, "V1Pod")["metadata"]["finalizers"] == ["c/d"]


def test_retain_keys_drops_what_is_not_named() -> None:
    old = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(old, change, "V1Deployment") == {"spec": {"strategy": {"type": "Recreate"}}}


def test_lists_without_a_key_are_replaced_and_maps_merge() -> None:
    old = {"spec": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "1", "b": "2"}}}
    change = {"spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"a": None, "c": "3"}}}
    assert strategic_merge(old, change, "V1Pod") == {
        "spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"b": "2", "c": "3"}}
    }


@pytest.mark.parametrize(
    "change",
    [
        pod({"image": "no key"}),
        {"spec": {"$patch": "nonsense"}},
        {"metadata": {"$retainKeys": [], "labels": {}}},
        {"spec": {"containers": ["text"]}},
        [],
    ],
)
def test_malformed_strategic_patches(change: Any) -> None:
    with pytest.raises(PatchError):
        strategic_merge(pod({"name": "a"}), change, "V1Pod")
