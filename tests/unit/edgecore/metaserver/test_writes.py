"""What is taken offline, how writes fold into one, and what is sent."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ProtocolError
from beehive.jsonpatch import PatchError, PatchFailed
from edgecore.metaserver import writes
from edgecore.metaserver.objects import Gvr
from edgecore.metaserver.writes import MERGE, STRATEGIC, CannotApply, Clash, Write

GVR = Gvr("", "v1", "configmaps")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.text(max_size=3), JSON, max_size=5)


def write(verb: str, body: Any = None, *, seq: int = 1, account: str = "web:ann", **more: Any) -> Write:
    return Write(
        seq=seq,
        verb=verb,  # type: ignore[arg-type]
        group="",
        version="v1",
        resource="configmaps",
        namespace="web",
        name="a",
        account=account,
        at_ms=seq * 1000,
        body=msgspec.Raw(json.dumps(body).encode()),
        **more,
    )


def body_of(found: Write | None) -> Any:
    assert found is not None
    return json.loads(bytes(found.body))


def test_a_write_is_kept_and_read_back() -> None:
    before = write("create", {"data": {"k": "v"}}, query={"fieldManager": "x"})
    assert msgspec.json.decode(msgspec.json.encode(before), type=Write) == before
    assert msgspec.json.decode(msgspec.json.encode(write("delete", uid="u")), type=Write).uid == "u"


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch(target: Any, patch: Any, result: Any) -> None:
    assert writes.merge(target, patch) == result


@given(OBJECT, OBJECT, OBJECT)
def test_two_patches_in_one_do_what_they_did_in_turn(target: Any, first: Any, second: Any) -> None:
    both = writes.merge(first, second, keep_nulls=True)
    in_turn = writes.merge(writes.merge(target, first), second)
    assert _bare(writes.merge(target, both)) == _bare(in_turn)


def _bare(value: Any) -> Any:
    """Without empty objects, which a removal in a member that is not there makes in one order only."""
    if isinstance(value, dict):
        found = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in ({}, None)}
    return value


def test_a_patch_that_is_too_deep_is_not_applied() -> None:
    deep: Any = {}
    for _ in range(writes.MAX_DEPTH + 5):
        deep = {"a": deep}
    with pytest.raises(CannotApply):
        writes.merge({}, deep)


@pytest.mark.parametrize(
    ("form", "patch"),
    [
        ("application/unheard-of", {}),
        (STRATEGIC, {"spec": {"containers": [{"name": "c"}]}}),
        (STRATEGIC, {"data": {"$patch": "replace"}}),
        (STRATEGIC, {"metadata": {"$setElementOrder/finalizers": ["x"]}}),
    ],
)
def test_what_only_the_cloud_can_apply(form: str, patch: Any) -> None:
    with pytest.raises(CannotApply):
        writes.as_merge_patch(form, json.dumps(patch).encode(), {})


def test_a_json_patch_is_what_it_changes() -> None:
    before = {"data": {"a": "1", "b": "2"}, "list": [1, 2], "n": 1}
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "remove", "path": "/data/b"},
        {"op": "add", "path": "/data/c", "value": "3"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "replace", "path": "/n", "value": True},
    ]
    patch = writes.as_merge_patch(writes.JSON_PATCH, json.dumps(operations).encode(), before)
    assert patch == {"data": {"b": None, "c": "3"}, "list": [1, 2, 3], "n": True}
    assert before == {"data": {"a": "1", "b": "2"}, "list": [1, 2], "n": 1}
    for wrong, error in (
        ([{"op": "test", "path": "/data/a", "value": "2"}], PatchFailed),
        ([{"op": "replace", "path": "", "value": 5}], PatchFailed),
        ({"op": "add"}, PatchError),
    ):
        with pytest.raises(error):
            writes.as_merge_patch(writes.JSON_PATCH, json.dumps(wrong).encode(), before)
    with pytest.raises(ProtocolError):
        writes.as_merge_patch(writes.JSON_PATCH, b"[", before)


@given(OBJECT, OBJECT)
def test_a_difference_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    before, after = {"o": before}, {"o": _without_nulls(after)}
    merged = writes.merge(before, writes.diff(before, after))
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


def test_a_plain_strategic_patch_is_a_merge_patch() -> None:
    patch = {"data": {"k": "v", "gone": None}, "metadata": {"finalizers": ["x"]}}
    for form in (MERGE, STRATEGIC):
        assert writes.as_merge_patch(form, json.dumps(patch).encode(), {}) == patch


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
