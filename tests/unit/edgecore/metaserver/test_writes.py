"""What is taken offline, how writes fold into one, and what is sent."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ProtocolError
from beehive.jsonpatch import PatchError, PatchFailed
from beehive.mergepatch import merge_patch
from edgecore.metaserver import writes
from edgecore.metaserver.objects import Gvr
from edgecore.metaserver.writes import MERGE, STRATEGIC, CannotApply, Clash, Write

GVR = Gvr("", "v1", "configmaps")
DEPLOYMENTS, PUMPS = Gvr("apps", "v1", "deployments"), Gvr("acme.io", "v1", "pumps")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.text(max_size=3), JSON, max_size=5)


def write(verb: str, body: Any = None, *, seq: int = 1, account: str = "web:ann", **more: Any) -> Write:
    values: dict[str, Any] = {
        "group": "",
        "version": "v1",
        "resource": "configmaps",
        "namespace": "web",
        "name": "a",
        "account": account,
        "at_ms": seq * 1000,
        "body": msgspec.Raw(json.dumps(body).encode()),
    }
    return Write(seq=seq, verb=verb, **values | more)  # type: ignore[arg-type]


def body_of(found: Write | None) -> Any:
    assert found is not None
    return json.loads(bytes(found.body))


def test_a_write_is_kept_and_read_back() -> None:
    before = write("create", {"data": {"k": "v"}}, query={"fieldManager": "x"})
    assert msgspec.json.decode(msgspec.json.encode(before), type=Write) == before
    assert msgspec.json.decode(msgspec.json.encode(write("delete", uid="u")), type=Write).uid == "u"


@given(OBJECT, OBJECT, OBJECT)
def test_two_patches_in_one_do_what_they_did_in_turn(target: Any, first: Any, second: Any) -> None:
    both = merge_patch(first, second, keep_nulls=True)
    in_turn = merge_patch(merge_patch(target, first), second)
    assert _bare(merge_patch(target, both)) == _bare(in_turn)


def _bare(value: Any) -> Any:
    """Without empty objects, which a removal in a member that is not there makes in one order only."""
    if isinstance(value, dict):
        found = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in ({}, None)}
    return value


def test_what_only_the_cloud_can_apply() -> None:
    with pytest.raises(CannotApply):
        writes.apply_patch("application/unheard-of", b"{}", {}, DEPLOYMENTS)


def test_a_strategic_patch_is_kept_as_what_it_is_and_shown_as_it_merges() -> None:
    before = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}}}}
    patch = {
        "spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "a", "image": "2"}],
        }}}
    }  # fmt: skip
    made = writes.apply_patch(STRATEGIC, json.dumps(patch).encode(), before, DEPLOYMENTS)
    assert (made.form, made.body) == (STRATEGIC, patch)
    assert made.shown["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "2"},
        {"name": "b"},
    ]
    # a server-side apply is shown in the same way; of a custom kind lists are one value
    made = writes.apply_patch(
        writes.APPLY, json.dumps({"spec": {"x": [1]}}).encode(), {"spec": {"x": [2]}}, PUMPS
    )
    assert (made.form, made.shown) == (MERGE, {"spec": {"x": [1]}})


def test_patches_of_two_forms_become_one() -> None:
    containers = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}
    first = write("patch", {"metadata": {"labels": {"x": "y"}}}, resource="deployments", group="apps")
    second = write("patch", containers, seq=2, form=STRATEGIC, resource="deployments", group="apps")
    folded = writes.fold(first, second, {"metadata": {"labels": {"x": "y"}}, **containers})
    assert folded is not None
    assert (folded.form, body_of(folded)) == (STRATEGIC, {"metadata": {"labels": {"x": "y"}}, **containers})
    whole = write("patch", containers, resource="deployments", group="apps")
    folded = writes.fold(second, msgspec.structs.replace(whole, seq=3), containers)
    assert folded is not None
    assert body_of(folded)["spec"]["template"]["spec"]["containers"][0] == {"$patch": "replace"}
    sets = write("patch", {"metadata": {"finalizers": ["a/b"]}}, resource="deployments", group="apps")
    with pytest.raises(Clash, match="finalizers"):
        writes.fold(second, sets, containers)


def test_a_strategic_patch_whose_answer_was_lost_is_done_when_it_changes_nothing_more() -> None:
    patch = {"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}]}}
    sent = write("patch", patch, form=STRATEGIC, resource="pods")
    there = {"spec": {"containers": [{"name": "a", "image": "2", "imagePullPolicy": "Always"}]}}
    assert writes.is_done(sent, there)
    assert not writes.is_done(sent, {"spec": {"containers": [{"name": "a", "image": "1"}]}})
    assert not writes.is_done(sent, {"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "b"}]}})
    assert not writes.is_done(write("patch", {"spec": {"$patch": "odd"}}, form=STRATEGIC), there)


def test_a_json_patch_is_what_it_changes() -> None:
    before = {"data": {"a": "1", "b": "2"}, "list": [1, 2], "n": 1}
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "remove", "path": "/data/b"},
        {"op": "add", "path": "/data/c", "value": "3"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "replace", "path": "/n", "value": True},
    ]
    made = writes.apply_patch(writes.JSON_PATCH, json.dumps(operations).encode(), before, PUMPS)
    assert (made.form, made.body) == (MERGE, {"data": {"b": None, "c": "3"}, "list": [1, 2, 3], "n": True})
    assert before == {"data": {"a": "1", "b": "2"}, "list": [1, 2], "n": 1}
    for wrong, error in (
        ([{"op": "test", "path": "/data/a", "value": "2"}], PatchFailed),
        ([{"op": "replace", "path": "", "value": 5}], PatchFailed),
        ({"op": "add"}, PatchError),
    ):
        with pytest.raises(error):
            writes.apply_patch(writes.JSON_PATCH, json.dumps(wrong).encode(), before, PUMPS)
    with pytest.raises(ProtocolError):
        writes.apply_patch(writes.JSON_PATCH, b"[", before, PUMPS)


@given(OBJECT, OBJECT)
def test_a_difference_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    before, after = {"o": before}, {"o": _without_nulls(after)}
    merged = merge_patch(before, writes.diff(before, after))
    assert msgspec.json.encode(merged, order="sorted") == msgspec.json.encode(after, order="sorted")


def _without_nulls(value: Any) -> Any:
    """Which no merge patch can set."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def test_server_side_applies_stay_what_they_are_among_themselves() -> None:
    manager = {"fieldManager": "m"}
    one = write("patch", {"data": {"a": 1}}, form=writes.APPLY, query=manager)
    two = write("patch", {"data": {"b": 1}}, seq=2, form=writes.APPLY, query=manager)
    assert writes.stays_apply(None, "m")
    assert writes.stays_apply(one, "m")
    assert not writes.stays_apply(one, "other")
    assert not writes.stays_apply(write("patch", {}), "m")
    folded = writes.fold(one, two)
    assert folded is not None
    assert (folded.form, body_of(folded), folded.seq) == (writes.APPLY, {"data": {"b": 1}}, 1)
    with pytest.raises(Clash):
        writes.fold(one, write("patch", {"data": {"c": 1}}, seq=3))
    assert writes.read_apply(b"data:\n  a: b\n") == {"data": {"a": "b"}}
    with pytest.raises(ProtocolError):
        writes.read_apply(b"a: [")
    with pytest.raises(ProtocolError):
        writes.read_apply(b"- a")


def test_a_scale_is_a_number_of_replicas() -> None:
    scale = writes.scale_of({"metadata": {"name": "web", "labels": {}}, "spec": {"replicas": 2, "x": 1}})
    assert scale["metadata"] == {"name": "web"}
    assert writes.replicas(scale) == 2
    for bad in (
        {"spec": {"replicas": -1}},
        {"spec": {"replicas": "3"}},
        {"spec": {"replicas": True}},
        {"spec": 3},
    ):
        with pytest.raises(ProtocolError):
            writes.replicas(bad)


def test_writes_to_one_object_fold_into_one() -> None:
    create, update = write("create", {"v": 1}), write("update", {"v": 2}, seq=2)
    patch, delete = write("patch", {"v": None, "w": 3}, seq=3), write("delete", seq=4, uid="u")
    assert writes.fold(None, create) == create
    folded = writes.fold(create, update)
    assert folded is not None
    assert (folded.verb, folded.seq, folded.at_ms, body_of(folded)) == ("create", 1, 1000, {"v": 2})
    folded = writes.fold(folded, patch, {"w": 3})
    assert folded is not None
    assert (folded.verb, body_of(folded)) == ("create", {"w": 3})
    assert writes.fold(folded, delete) is None
    based = write("update", {"v": 1}, base="7", conditional=True)
    folded = writes.fold(based, write("update", {"v": 2}, seq=2, base="99"))
    assert folded is not None
    assert (folded.verb, folded.base, folded.conditional, body_of(folded)) == ("update", "7", True, {"v": 2})
    folded = writes.fold(write("patch", {"a": 1}, base="7"), write("patch", {"b": None}, seq=2))
    assert (folded.verb if folded else "", body_of(folded)) == ("patch", {"a": 1, "b": None})
    folded = writes.fold(based, delete)
    assert folded is not None
    assert (folded.verb, folded.uid, folded.seq) == ("delete", "u", 1)


def test_what_does_not_fold() -> None:
    with pytest.raises(Clash, match="another account"):
        writes.fold(write("patch", {}), write("patch", {}, account="web:bob"))
    with pytest.raises(Clash, match="being deleted"):
        writes.fold(write("delete", uid="u"), write("create", {}))


def test_what_the_cloud_gets_has_nothing_of_ours() -> None:
    shown = writes.show(
        {"data": {"k": "v"}}, GVR, verb="create", version=9, uid="local", namespace="web", name="a"
    )
    assert shown["metadata"] == {
        "name": "a",
        "namespace": "web",
        "uid": "local",
        "resourceVersion": "9",
        "annotations": {writes.PENDING: "create"},
    }
    sent = json.loads(writes.to_send(write("create", shown)) or b"")
    assert sent["metadata"] == {"name": "a", "namespace": "web"}
    assert sent["data"] == {"k": "v"}
    sent = json.loads(writes.to_send(write("update", shown, base="7", conditional=True)) or b"")
    assert sent["metadata"] == {"name": "a", "namespace": "web", "uid": "local", "resourceVersion": "7"}
    assert "resourceVersion" not in json.loads(writes.to_send(write("update", shown)) or b"")["metadata"]


def test_whether_it_was_done_before() -> None:
    there = {
        "metadata": {"uid": "u2", "labels": {"l": "1", "m": "2"}, "resourceVersion": "9"},
        "data": {"k": "v"},
        "spec": {"list": [{"a": 1, "default": 2}]},
    }
    assert writes.is_done(write("create", {"metadata": {"labels": {"l": "1"}}, "data": {"k": "v"}}), there)
    assert writes.is_done(write("update", {"spec": {"list": [{"a": 1}]}, "status": {"x": 1}}), there)
    assert not writes.is_done(write("create", {"data": {"k": "other"}}), there)
    assert not writes.is_done(write("update", {"spec": {"list": [{"a": 1}, {"a": 2}]}}), there)
    assert writes.is_done(write("patch", {"data": {"gone": None}}), there)
    assert not writes.is_done(write("patch", {"data": {"k": None}}), there)
    assert writes.is_done(write("delete", uid="u1"), there)
    assert not writes.is_done(write("delete", uid="u2"), there)
