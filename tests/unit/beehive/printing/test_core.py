"""Kinds of the core group."""

from datetime import UTC, datetime
from typing import Any

import pytest

from beehive.printing import printed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BORN = "2029-12-31T23:59:00Z"
META: dict[str, Any] = {"metadata": {"name": "x", "creationTimestamp": BORN}}


@pytest.mark.parametrize(
    ("plural", "found", "cells"),
    [
        ("configmaps", {"data": {"a": ""}, "binaryData": {"b": ""}}, ["x", 2, "60s"]),
        ("secrets", {"type": "Opaque", "data": {"a": ""}}, ["x", "Opaque", 1, "60s"]),
        ("serviceaccounts", {}, ["x", 0, "60s"]),
        ("namespaces", {"status": {"phase": "Active"}}, ["x", "Active", "60s"]),
        (
            "services",
            {"spec": {"type": "NodePort", "clusterIP": "10.1.1.1", "ports": [{"port": 80, "nodePort": 30080}],
                      "selector": {"a": "b"}}},
            ["x", "NodePort", "10.1.1.1", "<none>", "80:30080/TCP", "60s", "a=b"],
        ),
        (
            "endpoints",
            {"subsets": [{"addresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 80}]}]},
            ["x", "1.1.1.1:80", "60s"],
        ),
        (
            "persistentvolumeclaims",
            {"spec": {"volumeName": "v", "storageClassName": "c"},
             "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}},
            ["x", "Bound", "v", "1Gi", "RWO", "c", "<unset>", "60s", ""],
        ),
    ],
)  # fmt: skip
def test_rows(plural: str, found: dict[str, Any], cells: list[Any]) -> None:
    assert printed.cells(("", plural), META | found, NOW) == cells


def test_a_node() -> None:
    found = {
        "metadata": {"name": "e", "labels": {"node-role.kubernetes.io/edge": "", "a": "b"}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1", "kernelVersion": "6.1", "architecture": "arm64"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        },
    }
    cells = printed.cells(("", "nodes"), found, NOW)
    assert cells[:5] == ["e", "Ready,SchedulingDisabled", "edge", "<unknown>", "v1"]
    assert cells[5:] == ["10.0.0.1", "<none>", "<unknown>", "6.1 (arm64)", "<unknown>"]


def test_an_event_that_came_often() -> None:
    found = {"count": 3, "firstTimestamp": BORN, "lastTimestamp": "2029-12-31T23:59:30Z",
             "involvedObject": {"kind": "Pod", "name": "a"}, "source": {"component": "kubelet", "host": "e"}}  # fmt: skip
    cells = printed.cells(("", "events"), META | found, NOW)
    assert cells[0] == "30s (x3 over 60s)"
    assert (cells[3], cells[5], cells[8]) == ("pod/a", "kubelet, e", 3)
