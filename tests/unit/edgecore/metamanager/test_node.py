"""What is told about the node, and when."""

import json
from typing import Any

import pytest

from beehive.errors import ProtocolError
from edgecore.metamanager import node
from edgecore.metamanager.node import Reporter


def status(beat: str = "t0", **more: Any) -> bytes:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": beat}
    return json.dumps({"conditions": [ready], "nodeInfo": {"arch": "x"}, **more}).encode()


def test_the_first_status_is_told_whole_and_an_equal_one_rarely() -> None:
    reporter = Reporter(report_s=300)
    first = reporter.patch(status(), 0, heartbeat=False)
    assert first is not None
    assert json.loads(first)["status"]["nodeInfo"] == {"arch": "x"}
    assert reporter.patch(status("t1"), 10, heartbeat=False) is None
    assert reporter.patch(status("t2"), 299, heartbeat=False) is None
    assert reporter.patch(status("t3"), 300, heartbeat=False) is not None


def test_a_change_is_told_at_once() -> None:
    reporter = Reporter(report_s=300)
    reporter.patch(status(), 0, heartbeat=False)
    assert reporter.patch(status(images=[]), 1, heartbeat=False) is not None


def test_a_stock_hub_gets_heartbeats_of_conditions_only() -> None:
    reporter = Reporter(report_s=300)
    reporter.patch(status(), 0, heartbeat=True)
    assert reporter.patch(status("t1"), 5, heartbeat=True) is None
    beat = reporter.patch(status("t2"), 10, heartbeat=True)
    assert beat is not None
    assert list(json.loads(beat)["status"]) == ["conditions"]


def test_after_a_new_session_everything_is_told_again() -> None:
    reporter = Reporter(report_s=300)
    reporter.patch(status(), 0, heartbeat=False)
    reporter.forget()
    assert reporter.patch(status("t1"), 1, heartbeat=False) is not None


def test_an_address_that_is_gone_does_not_stay() -> None:
    patch = Reporter(report_s=300).patch(
        status(addresses=[{"type": "InternalIP", "address": "1.2.3.4"}]), 0, heartbeat=False
    )
    assert patch is not None
    assert json.loads(patch)["status"]["addresses"][0] == {"$patch": "replace"}


def labelled(**labels: str) -> bytes:
    return json.dumps({"metadata": {"labels": labels}}).encode()


def test_labels_of_operators_are_left_alone() -> None:
    assert node.label_patch(labelled(a="1"), labelled(a="1", zone="x")) is None
    patch = node.label_patch(labelled(a="1", b="2"), labelled(a="0", zone="x"))
    assert patch is not None
    assert json.loads(patch) == {"metadata": {"labels": {"a": "1", "b": "2"}}}
    kept = {"kubernetes.io/hostname": "better"}
    assert node.label_patch(labelled(**{"kubernetes.io/hostname": "h"}), labelled(**kept)) is None
    assert node.label_patch(labelled(a="1"), b'{"metadata":{"labels":null}}') is not None


def test_only_facts_of_the_machine_are_taken_back() -> None:
    ours = labelled(**{"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "a": "1"})
    changed = labelled(**{"kubernetes.io/os": "plan9", "kubernetes.io/arch": "arm64", "a": "2"})
    machine = node.machine_labels(ours)
    patch = node.own_labels_patch(machine, changed)
    assert patch is not None
    assert json.loads(patch) == {"metadata": {"labels": {"kubernetes.io/os": "linux"}}}
    assert node.own_labels_patch(machine, labelled(**{"kubernetes.io/os": "linux"})) is not None
    assert node.own_labels_patch(machine, ours) is None


def test_a_lease_keeps_what_we_do_not_know() -> None:
    old = b'{"metadata":{"resourceVersion":"7"},"spec":{"leaseTransitions":3,"renewTime":"x"}}'
    lease = node.renewed_lease(old, "edge-1", "now")
    assert lease["metadata"]["resourceVersion"] == "7"
    assert lease["spec"] == {
        "leaseTransitions": 3,
        "renewTime": "now",
        "holderIdentity": "edge-1",
        "leaseDurationSeconds": 40,
    }


def test_what_is_no_object_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        node.renewed_lease(b"[]", "n", "now")


def test_a_node_says_that_it_is_linked_since_when_and_how_long_it_was_not() -> None:
    said = json.loads(node.connection(status(), since="t5", away_s=75.2, at="t9"))["conditions"]
    assert [one["type"] for one in said] == ["Ready", "CloudConnected", "Autonomous"]
    connected, autonomous = said[1:]
    assert (connected["status"], connected["lastTransitionTime"]) == ("True", "t5")
    assert connected["message"] == "linked since t5, after 75 s without"
    assert autonomous["status"] == "False"
    first = json.loads(node.connection(b"{}", since="t5", away_s=0.0, at="t9"))["conditions"]
    assert first[0]["message"] == "linked since t5"
    # told again only when something else is news: its beat is none
    reporter = Reporter(report_s=300)
    reporter.patch(node.connection(status(), since="t5", away_s=1, at="t9"), 0, heartbeat=False)
    assert (
        reporter.patch(node.connection(status(), since="t5", away_s=1, at="t10"), 1, heartbeat=False) is None
    )
