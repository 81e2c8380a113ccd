"""What of a node's measures is whose."""

import json
from typing import Any

import pytest

from beehive.errors import ProtocolError
from edgecore.metaserver import measured
from edgecore.metaserver.objects import Gvr, read
from tests.unit.edgecore.metaserver.fakes import encoded

PODS, NODES = Gvr(measured.GROUP, "v1beta1", "pods"), Gvr(measured.GROUP, "v1beta1", "nodes")


def usage(cores: int, memory: int) -> dict[str, Any]:
    return {"cpu": {"time": "t", "usageNanoCores": cores}, "memory": {"workingSetBytes": memory}}


SUMMARY = json.dumps(
    {
        "node": {"nodeName": "e", **usage(7, 4096)},
        "pods": [
            {
                "podRef": {"uid": f"u-{name}"},
                **usage(1, 1024),
                "containers": [{"name": "c", **usage(1, 1024)}],
            }
            for name in ("a", "over")
        ],
    }
).encode()


def test_a_node_knows_itself() -> None:
    found = [
        read(encoded(kind="Node", name=name, namespace=""), measured.source(NODES)) for name in ("e", "other")
    ]
    (row,) = measured.items(NODES, [item for item in found if item], SUMMARY, 2.0)
    assert row == {
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "e", "creationTimestamp": "t"},
        "timestamp": "t",
        "window": "2.000s",
        "usage": {"cpu": "7n", "memory": "4Ki"},
    }


def test_pods_that_are_over_or_elsewhere_are_left_out() -> None:
    over = json.loads(encoded(kind="Pod", name="over")) | {"status": {"phase": "Succeeded"}}
    bodies = (encoded(kind="Pod", name="a"), encoded(kind="Pod", name="z"), json.dumps(over).encode())
    found = [read(body, measured.source(PODS)) for body in bodies]
    rows = measured.items(PODS, [item for item in found if item], SUMMARY, 1.0)
    assert [row["metadata"]["name"] for row in rows] == ["a"]
    body = measured.list_body(PODS, rows)
    assert json.loads(body)["kind"] == "PodMetricsList"
    assert [json.loads(row) for row in measured.rows(body)] == rows


@pytest.mark.parametrize("summary", [b"", b"[]", b"{}", b'{"node":{"nodeName":"e"},"pods":[1]}'])
def test_rubbish_is_refused(summary: bytes) -> None:
    node = read(encoded(kind="Node", name="e", namespace=""), measured.source(NODES))
    assert node is not None
    with pytest.raises(ProtocolError):
        measured.items(NODES, [node], summary, 1.0)
    with pytest.raises(ProtocolError):
        measured.rows(b"[]")
