"""What an update cannot change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudcore.standalone import kept
from cloudcore.standalone.kinds import Kind, Registry

REGISTRY = Registry.core()
OLD: dict[str, Any] = {
    "kind": "X",
    "apiVersion": "v1",
    "metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "ownerReferences": [{"name": "o"}]},
    "spec": {"x": 1, "finalizers": ["kubernetes"]},
    "status": {"phase": "Running"},
}


def kind(plural: str) -> Kind:
    found = REGISTRY.by_path("", "v1", plural)
    assert found is not None
    return found


def after(plural: str, subresource: str, **changes: Any) -> dict[str, Any]:
    body = copy.deepcopy(OLD) | copy.deepcopy(changes)
    kept.keep(kind(plural), body, copy.deepcopy(OLD), subresource)
    return body


@pytest.mark.parametrize("subresource", ["", "status"])
def test_what_the_server_gave_stays(subresource: str) -> None:
    metadata = {
        "name": "a",
        "uid": "forged",
        "deletionTimestamp": "t",
        "selfLink": "/x",
        "labels": {"a": "b"},
    }
    found = after("pods", subresource, metadata=metadata)["metadata"]
    assert (found["uid"], found["creationTimestamp"]) == ("u", "t")
    assert not {"deletionTimestamp", "selfLink"} & set(found)
    assert found["labels"] == {"a": "b"}


def test_an_update_changes_no_status_and_a_status_nothing_else() -> None:
    changes = {"spec": {"x": 2}, "status": {"phase": "Failed"}}
    plain = after("pods", "", **changes)
    assert (plain["spec"], plain["status"]) == ({"x": 2}, OLD["status"])
    status = after("pods", "status", **changes)
    assert (status["spec"], status["status"]) == (OLD["spec"], {"phase": "Failed"})


def test_a_status_gives_nobody_an_owner() -> None:
    found = after("pods", "status", metadata={"name": "a", "ownerReferences": [{"name": "forged"}]})
    assert found["metadata"]["ownerReferences"] == [{"name": "o"}]


def test_a_kind_without_a_status_keeps_none() -> None:
    assert after("configmaps", "", data={"a": "b"})["data"] == {"a": "b"}


def test_only_finalize_changes_what_holds_a_namespace() -> None:
    changes = {"spec": {"finalizers": []}, "status": {"phase": "Terminating"}}
    assert after("namespaces", "", **changes)["spec"] == OLD["spec"]
    done = after("namespaces", "finalize", **changes)
    assert (done["spec"], done["status"]) == ({"finalizers": []}, OLD["status"])


def test_ephemeral_containers_come_alone() -> None:
    spec = {"x": 2, "ephemeralContainers": [{"name": "e"}]}
    found = after("pods", "ephemeralcontainers", spec=spec, status={"phase": "Failed"})
    assert found["spec"] == {**OLD["spec"], "ephemeralContainers": [{"name": "e"}]}
    assert found["status"] == OLD["status"]


def test_a_new_generation_is_for_a_new_spec() -> None:
    pods = kind("pods")
    for change in ({"metadata": {"name": "b"}}, {"status": {}}, {"apiVersion": "v2"}):
        assert not kept.spec_changed(pods, OLD | change, OLD)
    assert kept.spec_changed(pods, OLD | {"spec": {}}, OLD)


def test_times_of_managers_alone_are_no_change() -> None:
    def body(**fields: Any) -> dict[str, Any]:
        return {**OLD, "metadata": {"name": "a", "managedFields": [fields]}}

    assert kept.same(body(manager="m", time="1"), body(manager="m", time="2"))
    assert not kept.same(body(manager="m"), body(manager="n"))
    assert not kept.same(body(), {**body(), "spec": {}})
    assert not kept.same(body(), {**body(), "metadata": {"name": "b"}})
