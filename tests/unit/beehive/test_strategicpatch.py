"""Strategic merge patches."""

from __future__ import annotations

from typing import Any

import pytest

from beehive.jsonpatch import PatchError
from beehive.strategicpatch import strategic_merge


def pod(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(containers)}}


def names(body: dict[str, Any]) -> list[str]:
    return [item["name"] for item in body["spec"]["containers"]]


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


def test_a_key_that_is_there_twice_loses_none_of_its_items() -> None:
    ports = [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]
    merged = strategic_merge(
        pod({"name": "a", "ports": ports}), pod({"name": "a", "ports": [{"containerPort": 80}]}), "V1Pod"
    )
    (container,) = merged["spec"]["containers"]
    assert [item["containerPort"] for item in container["ports"]] == [80, 53, 53]
    drop = pod({"name": "a", "ports": [{"containerPort": 53, "$patch": "delete"}]})
    assert strategic_merge(pod({"name": "a", "ports": ports}), drop, "V1Pod")["spec"]["containers"] == [
        {"name": "a", "ports": []}
    ]


def test_long_lists_take_no_longer_than_they_are() -> None:
    many = pod(*({"name": str(number)} for number in range(20_000)))
    assert len(strategic_merge(many, many, "V1Pod")["spec"]["containers"]) == 20_000


def test_one_that_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(PatchError, match="levels"):
        strategic_merge({}, {"spec": deep}, "V1Pod")
    with pytest.raises(PatchError, match="levels"):
        strategic_merge({}, {"spec": {"tolerations": [deep]}}, "V1Pod")


def test_secrets_of_an_account_merge_and_those_to_pull_with_are_one_value() -> None:
    old = {"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "a"}]}
    patch = {"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "b"}]}
    merged = strategic_merge(old, patch, "V1ServiceAccount")
    assert sorted(item["name"] for item in merged["secrets"]) == ["a", "b"]
    assert merged["imagePullSecrets"] == [{"name": "b"}]
