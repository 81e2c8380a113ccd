"""What kubectl prints."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.metaserver import table
from edgecore.metaserver.objects import Gvr
from tests import vectors_kubeedge as vectors

PODS, NODES, MAPS = Gvr("", "v1", "pods"), Gvr("", "v1", "nodes"), Gvr("", "v1", "configmaps")
NOW = 1_000_000.0
BORN = "1970-01-12T13:45:40Z"  # a minute before


def row(gvr: Gvr, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = json.loads(table.table(gvr, [json.dumps(found).encode()], version=7, now=NOW, **more))
    assert made["metadata"]["resourceVersion"] == "7"
    out: dict[str, Any] = made["rows"][0]
    return out


def pod(containers: list[dict[str, Any]], phase: str = "Running", **more: Any) -> dict[str, Any]:
    state = {"phase": phase, "containerStatuses": containers, "podIP": "10.0.0.2"} | more
    meta = {"name": "p", "namespace": "d", "creationTimestamp": BORN}
    return {
        "metadata": meta,
        "spec": {"nodeName": "e", "containers": [{}] * len(containers)},
        "status": state,
    }


UP = {"ready": True, "restartCount": 2, "state": {"running": {"startedAt": BORN}}}
WAITS = {"ready": False, "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
DONE = {"ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
FAILED = {"ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}


@pytest.mark.parametrize(
    ("found", "ready", "state", "restarts"),
    [
        (pod([UP]), "1/1", "Running", 2),
        (pod([UP, WAITS]), "1/2", "CrashLoopBackOff", 7),
        (pod([UP, DONE]), "1/2", "Running", 2),
        (pod([DONE], "Succeeded"), "0/1", "Completed", 0),
        (pod([FAILED], "Failed"), "0/1", "ExitCode:3", 0),
        (pod([], "Pending"), "0/0", "Pending", 0),
        (pod([], "Failed", reason="Evicted"), "0/0", "Evicted", 0),
        (pod([UP], initContainerStatuses=[DONE]), "1/1", "Running", 2),
        (
            pod([WAITS], "Pending", initContainerStatuses=[DONE, {"state": {"running": {}}}]),
            "0/1",
            "Init:1/2",
            5,
        ),
        (pod([], "Pending", initContainerStatuses=[WAITS]), "0/0", "Init:CrashLoopBackOff", 0),
    ],
)
def test_a_pod(found: dict[str, Any], ready: str, state: str, restarts: int) -> None:
    assert row(PODS, found)["cells"] == ["p", ready, state, restarts, "60s", "10.0.0.2", "e"]


def test_a_pod_that_goes() -> None:
    found = pod([UP])
    found["metadata"]["deletionTimestamp"] = BORN
    assert row(PODS, found)["cells"][2] == "Terminating"


def test_a_node() -> None:
    found = {
        "metadata": {"name": "e", "labels": {"node-role.kubernetes.io/edge": "", "a": "b"}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}},
    }
    assert row(NODES, found)["cells"] == ["e", "Ready,SchedulingDisabled", "edge", "<unknown>", "v1"]


def test_what_goes_with_a_row() -> None:
    found = {"metadata": {"name": "a", "creationTimestamp": BORN}, "data": {"k": "v"}}
    assert row(MAPS, found)["cells"] == ["a", "60s"]
    assert row(MAPS, found)["object"]["kind"] == "PartialObjectMetadata"
    assert row(MAPS, found, include="Object")["object"] == found
    assert row(MAPS, found, include="None")["object"] is None


def test_the_head_can_be_left_out_and_the_list_continued() -> None:
    made = json.loads(table.table(MAPS, [], version=1, now=NOW, more="x", head=False))
    assert (made["columnDefinitions"], made["metadata"]["continue"]) == ([], "x")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1,application/json",
            True,
        ),
        ("application/json", False),
        ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", False),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", False),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", False),
        ("", False),
    ],
)
def test_who_wants_one(accept: str, wanted: bool) -> None:
    assert table.wanted(accept) is wanted


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10_799, "179m"), (10_800, "3h"),
        (11_000, "3h3m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"),
        (9 * 86400, "9d"), (800 * 86400, "2y70d"), (9 * 365 * 86400, "9y"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages(seconds: float, shown: str) -> None:
    assert table.age(seconds) == shown


def test_recorded_pods_have_a_row() -> None:
    seen = 0
    for frame in vectors.frames("down"):
        content = frame.get("content")
        if isinstance(content, dict) and content.get("kind") == "Pod":
            cells = row(PODS, content)["cells"]
            assert len(cells) == 7
            seen += 1
    assert seen


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["metadata", "status", "spec", "labels", "containerStatuses", "state", "name", "conditions"]),
        inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["metadata", "status", "spec"]), JSON))
def test_an_odd_object_is_a_row_all_the_same(found: dict[str, Any]) -> None:
    for gvr in (PODS, NODES, MAPS):
        row(gvr, found)
