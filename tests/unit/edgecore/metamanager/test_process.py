"""What pushed frames do to stored objects: tables, a recording, any order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import codec
from beehive.errors import ProtocolError
from beehive.message import Message, new
from edgecore.metamanager import process
from edgecore.metamanager.process import NOTHING, Verdict
from edgecore.metamanager.records import Row
from tests.vectors_kubeedge import frames


def push(
    operation: str,
    version: int | str = "",
    *,
    uid: str = "u1",
    path: str = "default/pod/web",
    content: object = None,
) -> Message:
    parts = path.split("/")
    body: object = {"metadata": {"name": parts[-1], "namespace": parts[0], "uid": uid}, "v": version}
    if parts[0] == "null":
        body = {"metadata": {"name": parts[-1], "uid": uid}}
    return new(
        source="edgecontroller",
        group="resource",
        operation=operation,
        resource=path,
        content=body if content is None else content,
        version=str(version),
    )


def handle(message: Message, rows: dict[str, Row]) -> Verdict:
    """As the shell does it."""
    where = process.target(message)
    verdict = process.decide(message, where, rows.get(where.key))
    if verdict.put:
        rows[verdict.put.key] = verdict.put
    if verdict.delete:
        del rows[verdict.delete]
    return verdict


def test_an_object_comes_changes_and_goes() -> None:
    rows: dict[str, Row] = {}
    came = handle(push("insert", 5), rows)
    assert came.change is not None
    assert (came.change.uid, came.change.gone) == ("u1", False)
    handle(push("update", 7), rows)
    assert rows["default/pod/web"].version == 7
    assert json.loads(rows["default/pod/web"].value)["v"] == 7
    went = handle(push("delete", 8), rows)
    assert went.change is not None
    assert went.change.gone
    assert rows == {}


@pytest.mark.parametrize(
    ("held", "message", "version", "uid"),
    [
        pytest.param((7, "u1"), push("update", 6), 7, "u1", id="older state"),
        pytest.param((7, "u1"), push("update", 7), 7, "u1", id="same state"),
        pytest.param((7, "u1"), push("insert", 6), 7, "u1", id="older insert"),
        pytest.param((7, "u1"), push("update", 9, uid="u2"), 9, "u2", id="a new life of the name"),
        pytest.param((7, "u1"), push("update", 5, uid="u0"), 7, "u1", id="an old life of the name"),
        pytest.param((7, "u1"), push("update"), 7, "u1", id="without a version: terminating"),
        pytest.param((7, "u1"), push("delete", 9, uid="u2"), 7, "u1", id="delete of another life"),
        pytest.param((-1, ""), push("update", 3), 3, "u1", id="nothing known yet"),
    ],
)
def test_versions_and_lives(held: tuple[int, str], message: Message, version: int, uid: str) -> None:
    rows = {
        "default/pod/web": Row(
            key="default/pod/web",
            type="pod",
            namespace="default",
            name="web",
            uid=held[1],
            version=held[0],
            value=b"{}",
        )
    }
    handle(message, rows)
    assert (rows["default/pod/web"].version, rows["default/pod/web"].uid) == (version, uid)


def test_a_terminating_object_without_version_is_stored() -> None:
    rows: dict[str, Row] = {}
    handle(push("update", 4), rows)
    content = {"metadata": {"name": "web", "uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert handle(push("update", content=content), rows).change is not None
    assert b"deletionTimestamp" in rows["default/pod/web"].value


def test_the_end_of_what_is_not_stored_is_still_told_since_it_may_run() -> None:
    verdict = handle(push("delete", 9), {})
    assert verdict.change is not None
    assert verdict.change.gone
    assert handle(push("delete", content={}), {}) == NOTHING


def test_a_resync_delete_carries_only_metadata() -> None:
    rows: dict[str, Row] = {}
    handle(push("insert", 5), rows)
    handle(push("delete", content={"metadata": {"name": "web", "namespace": "default", "uid": "u1"}}), rows)
    assert rows == {}


@pytest.mark.parametrize(
    "message",
    [
        push("update", 1, path="default/pod/../../etc/passwd"),
        push("update", 1, path="default/pod/..", content={"metadata": {"uid": "u"}}),
        push("update", 1, path="default/pod/a\0b", content={"metadata": {"uid": "u"}}),
        push("update", 1, path="default/pod/" + "a" * 300),
        push("update", 1, path="default/pod", content={"metadata": {"uid": "u"}}),
        push("update", 1, path="DEFAULT/pod/web"),
        push("update", 1, uid="../../x"),
        push("update", 1, uid=""),
        push("update", 1, content={"metadata": {"name": "other", "uid": "u"}}),
        push("update", 1, content={"metadata": {"name": "web", "namespace": "other", "uid": "u"}}),
        push("update", 1, content=[]),
        push("update", 1, content="text"),
        push("update", 1, content={"metadata": {"uid": 7}}),
        push("update", "1x"),
        push("update", "-1"),
        push("update", str(2**63)),
        push("update", "9" * 400),
        push("delete", content={"metadata": 5}),
        push("patch", 1),
        push("query", 1),
        push("createvolume", 1),
    ],
    ids=lambda m: f"{m.route.operation} {m.route.resource[:30]!r} {bytes(m.content)[:30]!r}",
)
def test_what_does_not_say_what_it_claims_is_refused_and_changes_nothing(message: Message) -> None:
    rows: dict[str, Row] = {}
    with pytest.raises(ProtocolError):
        handle(message, rows)
    assert rows == {}


def test_cluster_scoped_objects() -> None:
    rows: dict[str, Row] = {}
    handle(push("update", 5, path="null/node/edge-1"), rows)
    assert rows["null/node/edge-1"].namespace == "null"


def test_a_recorded_session_of_a_stock_hub_ends_with_what_its_cloud_held() -> None:
    """The frames of a real pair; only pushes of the resource group are ours."""
    rows: dict[str, Row] = {}
    seen = 0
    versions: dict[str, int] = {}
    for frame in frames("down"):
        message = codec.decode(json.dumps(frame).encode())
        if message.parent or message.route.group != "resource":
            continue
        seen += 1
        handle(message, rows)
        for row in rows.values():
            assert row.version >= versions.get(row.uid, -1)
            versions[row.uid] = row.version
    assert seen == 40
    # p1 and p2 were deleted in the API, and so were the device and its model
    assert set(rows) == {
        "null/node/vec-edge",
        "vectors/configmap/cm1",
        "vectors/configmap/from-edge",
        "vectors/pod/p3",
    }


@given(st.permutations(range(1, 9)), st.integers(0, 8))
def test_states_in_any_order_end_with_the_newest(order: list[int], lives: int) -> None:
    rows: dict[str, Row] = {}
    for version in order:
        handle(push("update", version, uid="old" if version <= lives else "new"), rows)
    assert rows["default/pod/web"].version == 8
    assert rows["default/pod/web"].uid == ("old" if lives == 8 else "new")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_any_content_is_an_answer_or_a_protocol_error(content: object) -> None:
    for operation in ("insert", "delete"):
        message = new(
            source="edgecontroller",
            group="resource",
            operation=operation,
            resource="d/pod/p",
            content=content,
        )
        try:
            process.decide(message, process.target(message), None)
        except ProtocolError:
            continue
