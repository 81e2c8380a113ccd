"""One word for how a pod is.  Source of the cases: kubernetes, pkg/printers/internalversion/printers_test.go, TestPrintPod."""

from datetime import UTC, datetime
from typing import Any

import pytest

from beehive.printing import printed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BORN = "2029-12-31T23:59:00Z"


def pod(containers: list[dict[str, Any]], phase: str = "Running", **more: Any) -> dict[str, Any]:
    inits = [{"name": str(i)} for i in range(len(more.get("initContainerStatuses", ())))]
    return {
        "metadata": {"name": "p", "namespace": "d", "creationTimestamp": BORN},
        "spec": {"nodeName": "e", "containers": [{}] * len(containers), "initContainers": inits},
        "status": {"phase": phase, "containerStatuses": containers, "podIP": "10.0.0.2"} | more,
    }


UP = {"ready": True, "restartCount": 2, "state": {"running": {"startedAt": BORN}}}
WAITS = {"ready": False, "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
DONE = {"ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
FAILED = {"ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("found", "ready", "state", "restarts"),
    [
        (pod([UP]), "1/1", "Running", "2"),
        (pod([UP, WAITS]), "1/2", "CrashLoopBackOff", "7"),
        (pod([UP, DONE], conditions=READY), "1/2", "Running", "2"),
        (pod([UP, DONE]), "1/2", "NotReady", "2"),
        (pod([DONE], "Succeeded"), "0/1", "Completed", "0"),
        (pod([FAILED], "Failed"), "0/1", "ExitCode:3", "0"),
        (pod([], "Pending"), "0/0", "Pending", "0"),
        (pod([], "Failed", reason="Evicted"), "0/0", "Evicted", "0"),
        (pod([UP], initContainerStatuses=[DONE]), "1/1", "Running", "2"),
        (
            pod([WAITS], "Pending", initContainerStatuses=[DONE, {"state": {"running": {}}}]),
            "0/1",
            "Init:1/2",
            "5",
        ),
        (pod([], "Pending", initContainerStatuses=[WAITS]), "0/0", "Init:CrashLoopBackOff", "0"),
        (pod([{**UP, "lastState": {"terminated": {"finishedAt": BORN}}}]), "1/1", "Running", "2 (60s ago)"),
    ],
)
def test_a_pod(found: dict[str, Any], ready: str, state: str, restarts: str) -> None:
    cells = printed.cells(("", "pods"), found, NOW)
    assert cells == ["p", ready, state, restarts, "60s", "10.0.0.2", "e", "<none>", "<none>"]


def test_a_pod_that_goes() -> None:
    found = pod([UP])
    found["metadata"]["deletionTimestamp"] = BORN
    assert printed.cells(("", "pods"), found, NOW)[2] == "Terminating"
