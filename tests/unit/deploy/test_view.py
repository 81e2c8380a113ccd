"""Objects as `skerry` shows them."""

from __future__ import annotations

from typing import Any

from deploy import view


def test_a_node_is_ready_only_when_it_says_so() -> None:
    meta = {"metadata": {"name": "n"}}
    assert not view.node(meta).ready
    unknown = {**meta, "status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "away"}]}}
    assert view.node(unknown) == view.Node(name="n", ready=False, reason="away")
    assert view.node({**meta, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}).ready


def pod(**status: Any) -> view.Pod:
    return view.pod({"metadata": {"name": "p", "namespace": "x"}, "status": status})


def test_a_pod_without_a_status_is_pending() -> None:
    assert pod() == view.Pod(namespace="x", name="p", phase="Pending", ready=False)


def test_a_running_pod() -> None:
    seen = pod(
        phase="Running", podIP="10.0.0.2", containerStatuses=[{"ready": True, "restartCount": 2, "state": {}}]
    )
    assert seen == view.Pod(namespace="x", name="p", phase="Running", ready=True, ip="10.0.0.2", restarts=2)


def test_why_a_pod_does_not_run() -> None:
    waiting = {
        "ready": False,
        "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no such image"}},
    }
    assert pod(containerStatuses=[waiting]).reason == "ErrImageNeverPull: no such image"
    unscheduled = [{"type": "PodScheduled", "status": "False", "message": "no node fits"}]
    assert pod(conditions=unscheduled).reason == "no node fits"


def test_readings_are_what_was_reported() -> None:
    twins = [
        {"propertyName": "temperature", "reported": {"value": "21.5"}},
        {"propertyName": "target", "observedDesired": {"value": "22"}},
    ]
    status = {"state": "online", "lastOnlineTime": "1970-01-01T00:01:00Z", "twins": twins}
    seen = view.device({"metadata": {"name": "d"}, "status": status})
    assert seen == view.Device(
        namespace="default", name="d", state="online", last_online=60.0, readings={"temperature": "21.5"}
    )
    assert view.device({"metadata": {"name": "d"}}).state == "unknown"


def test_when_a_lease_was_renewed() -> None:
    assert view.renewed({"metadata": {"name": "n"}}) == 0.0
    assert view.renewed({"spec": {"renewTime": "1970-01-01T00:01:00.500000Z"}}) == 60.5
