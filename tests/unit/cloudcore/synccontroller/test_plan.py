"""What is written down of a stock edge, and what that says it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beehive.delivery import Item
from beehive.errors import ProtocolError
from beehive.message import Group, InventoryEntry, Op, Source, new
from cloudcore.objects import read as read_object
from cloudcore.synccontroller import plan
from cloudcore.synccontroller.plan import CLUSTEROBJECTSYNC, OBJECTSYNC, Record

POD = Record(
    node="edge.one", uid="u-1", namespace="default", api_version="v1", kind="Pod", name="web", version="7"
)


def item(content: Any, path: str, version: int = 7, **options: Any) -> Item:
    group = options.pop("group", Group.RESOURCE)
    operation = Op.DELETE if options.get("delete") else Op.UPDATE
    message = new(
        source=Source.EDGECONTROLLER, group=group, operation=operation, resource=path, content=content
    )
    return Item(key="u-1", version=version, message=message, **options)


def body(kind: str = "Pod") -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"uid": "u-1", "name": "web"}}


def test_a_record_is_read_as_it_was_written() -> None:
    written = json.loads(POD.body())
    assert written["metadata"] == {"name": "edge.one.u-1", "namespace": "default"}
    assert written["spec"] == {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "web"}
    assert plan.read(read_object(OBJECTSYNC, POD.body())) == POD


def test_what_has_no_namespace_is_kept_as_cluster_object_sync() -> None:
    node = Record(node="a", uid="u", namespace="", api_version="v1", kind="Node", name="a")
    assert node.sync_kind is CLUSTEROBJECTSYNC
    assert POD.sync_kind is OBJECTSYNC
    assert "namespace" not in json.loads(node.body())["metadata"]
    assert node.path == "null/node/a"
    assert plan.read(read_object(CLUSTEROBJECTSYNC, node.body())) == node


@pytest.mark.parametrize("name", ["nodots", ".u-1", "edge."])
def test_names_that_are_no_record_say_nothing(name: str) -> None:
    data = json.dumps({"kind": "ObjectSync", "metadata": {"name": name}, "spec": {"objectKind": "Pod"}})
    assert plan.read(read_object(OBJECTSYNC, data.encode())) is None


def test_a_record_of_another_shape_is_a_protocol_error() -> None:
    data = json.dumps({"kind": "ObjectSync", "metadata": {"name": "a.u"}, "spec": {"objectKind": 1}})
    with pytest.raises(ProtocolError):
        plan.read(read_object(OBJECTSYNC, data.encode()))


def test_an_acknowledgement_says_which_version_is_held() -> None:
    assert plan.acknowledged("edge.one", item(body(), "default/pod/web")) == POD
    node = plan.acknowledged("a", item(body("Node"), "null/node/web"))
    assert node is not None
    assert node.sync_kind is CLUSTEROBJECTSYNC


def test_a_delete_needs_no_kind_in_its_content() -> None:
    gone = {"metadata": {"uid": "u-1", "name": "web", "namespace": "default"}}
    found = plan.acknowledged("edge.one", item(gone, "default/pod/web", delete=True))
    assert found is not None
    assert found.key == POD.key


@pytest.mark.parametrize(
    ("content", "path", "group"),
    [
        (body(), "default/pod/web", Group.TWIN),
        ({"kind": "Pod", "metadata": {"name": "web"}}, "default/pod/web", Group.RESOURCE),
        ({"metadata": {"uid": "u-1"}}, "default/pod/web", Group.RESOURCE),
        ("OK", "default/pod/web", Group.RESOURCE),
        (body(), "a/b/c/d/e", Group.RESOURCE),
    ],
)
def test_what_kubeedge_does_not_keep_is_not_kept(content: Any, path: str, group: str) -> None:
    assert plan.acknowledged("a", item(content, path, group=group)) is None


def test_versions_only_grow() -> None:
    assert plan.newer(None, POD)
    assert not plan.newer(POD, POD)
    older = Record(
        node="edge.one", uid="u-1", namespace="default", api_version="v1", kind="Pod", name="web", version="6"
    )
    assert plan.newer(older, POD)
    assert not plan.newer(POD, older)


def test_records_are_an_inventory() -> None:
    assert plan.inventory([POD]).objects == {"u-1": InventoryEntry("default/pod/web", "7")}
