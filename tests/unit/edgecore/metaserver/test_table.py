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


def test_a_pod() -> None:
    cells = row(PODS, pod([UP]))["cells"]
    assert cells == ["p", "1/1", "Running", "2", "60s", "10.0.0.2", "e", "<none>", "<none>"]


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
    assert row(NODES, found)["cells"][:5] == [*("e", "Ready,SchedulingDisabled", "edge", "<unknown>", "v1")]


def test_what_goes_with_a_row() -> None:
    found = {"metadata": {"name": "a", "creationTimestamp": BORN}, "data": {"k": "v"}}
    assert row(MAPS, found)["cells"] == ["a", 1, "60s"]
    assert row(MAPS, found)["object"]["kind"] == "PartialObjectMetadata"
    assert row(MAPS, found, include="Object")["object"] == found
    assert row(MAPS, found, include="None").get("object") is None


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


def test_a_device_has_the_columns_of_its_definition() -> None:
    found = {"metadata": {"name": "d"}, "spec": {"nodeName": "e", "protocol": {"protocolName": "modbus"}}}
    cells = row(Gvr("devices.kubeedge.io", "v1beta1", "devices"), found)["cells"]
    assert cells == ["d", "e", None, "modbus", None, None]


def test_a_custom_kind_has_those_that_its_definition_says() -> None:
    gvr = Gvr("acme.io", "v1", "pumps")
    column = {"name": "Speed", "type": "integer", "jsonPath": ".spec.speed"}
    definition = {
        "spec": {"versions": [{"name": "v0"}, {"name": "v1", "additionalPrinterColumns": [column]}]},
    }
    kept = table.keep_columns(json.dumps(definition).encode(), gvr)
    assert kept is not None
    custom = table.kept_columns(kept)
    assert row(gvr, {"metadata": {"name": "p"}, "spec": {"speed": 3}}, custom=custom)["cells"] == ["p", 3]
    assert row(gvr, {"metadata": {"name": "p", "creationTimestamp": BORN}})["cells"] == ["p", "60s"]
    for broken in (
        b"[]",
        b"{}",
        b"x",
        b'{"spec":{"versions":[{"name":"v1","additionalPrinterColumns":[1]}]}}',
    ):
        assert table.keep_columns(broken, gvr) is None


def test_whose_definition_is_needed() -> None:
    assert table.definition_of(Gvr("acme.io", "v1", "pumps")) == "pumps.acme.io"
    assert table.definition_of(Gvr("gateway.networking.k8s.io", "v1", "gateways")).startswith("gateways.")
    for group in ("", "apps", "rbac.authorization.k8s.io", "devices.kubeedge.io"):
        assert table.definition_of(Gvr(group, "v1", "any")) == ""


def test_events_are_the_same_in_both_groups() -> None:
    found = {
        "metadata": {"name": "a.1"},
        "type": "Warning",
        "reason": "Failed",
        "message": "no image\n",
        "lastTimestamp": BORN,
        "involvedObject": {"kind": "Pod", "name": "a"},
        "source": {"component": "kubelet", "host": "e"},
    }
    for group in ("", "events.k8s.io"):
        cells = row(Gvr(group, "v1", "events"), found)["cells"]
        assert cells[:4] == ["60s", "Warning", "Failed", "pod/a"]
        assert cells[5:7] == ["kubelet, e", "no image"]


def test_recorded_pods_have_a_row() -> None:
    seen = 0
    for frame in vectors.frames("down"):
        content = frame.get("content")
        if isinstance(content, dict) and content.get("kind") == "Pod":
            cells = row(PODS, content)["cells"]
            assert len(cells) == 9
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
