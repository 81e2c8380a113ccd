from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecore.edged import resize
from edgecore.edged.pod import Pod, PodStatus, ResourceRequirements
from edgecore.edged.runtime import ContainerState, PodRuntime
from edgecore.edged.status import Outcome, Verdicts, View, compute_status, failed_status
from tests.unit.edgecore.edged.builders import CREATED, EXITED, RUNNING, box, c, make, ran


def status_of(pod: Pod, runtime: PodRuntime, **view: Any) -> PodStatus:
    return compute_status(pod, runtime, View(**{"now": 1000.0, "host_ips": ("9.9.9.9",), **view}))


def rt(*containers: Any, **kw: Any) -> PodRuntime:
    return PodRuntime(sandboxes=(box(**kw),), containers=containers)


def conditions(s: PodStatus) -> dict[str, tuple[str, str]]:
    return {x.type: (x.status, x.reason) for x in s.conditions}


def test_a_new_pod_is_pending() -> None:
    s = status_of(make(), PodRuntime())
    assert s.phase == "Pending"
    (x,) = s.container_statuses
    assert x.state.waiting is not None
    assert x.state.waiting.reason == "ContainerCreating"
    assert conditions(s) == {
        "PodReadyToStartContainers": ("False", ""),
        "Initialized": ("True", ""),
        "Ready": ("False", "ContainersNotReady"),
        "ContainersReady": ("False", "ContainersNotReady"),
        "PodScheduled": ("True", ""),
    }
    assert s.start_time == "1970-01-01T00:16:40Z"
    message = next(x.message for x in s.conditions if x.type == "Ready")
    assert message == "containers with unready status: [c]"


def test_a_running_pod_as_json() -> None:
    pod = make(meta={"generation": 3})
    document = json.loads(msgspec.json.encode(status_of(pod, rt(ran(pod)))))
    assert document["phase"] == "Running"
    assert document["observedGeneration"] == 3
    assert document["podIPs"] == [{"ip": "10.0.0.2"}]
    assert document["hostIPs"] == [{"ip": "9.9.9.9"}]
    (x,) = document["containerStatuses"]
    assert x == {
        "name": "c",
        "state": {"running": {"startedAt": "1970-01-01T00:01:40Z"}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": "i:1",
        "imageID": "sha256:1",
        "containerID": "containerd://c0",
        "started": True,
    }
    assert all(x["observedGeneration"] == 3 for x in document["conditions"])
    assert {x["type"] for x in document["conditions"] if x["status"] == "True"} == {
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    }


def test_an_exit_code_of_zero_is_written() -> None:
    pod = make(restartPolicy="Never")
    document = json.loads(msgspec.json.encode(status_of(pod, rt(ran(pod, state=EXITED)))))
    ended = document["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert document["phase"] == "Succeeded"


def test_crash_loop() -> None:
    pod = make()
    dead = ran(pod, state=EXITED, code=2, count=3)
    s = status_of(
        pod, rt(dead), waiting={"c": ("CrashLoopBackOff", "back-off 20s")}, messages={dead.id: "bye"}
    )
    (x,) = s.container_statuses
    assert x.state.waiting is not None
    assert x.state.waiting.reason == "CrashLoopBackOff"
    assert x.last_state.terminated is not None
    assert (x.last_state.terminated.exit_code, x.last_state.terminated.message) == (2, "bye")
    assert (x.restart_count, x.ready, s.phase) == (3, False, "Running")


def test_the_last_state_is_that_of_the_run_before() -> None:
    pod = make()
    s = status_of(pod, rt(ran(pod, count=1), ran(pod, state=EXITED, code=7)))
    (x,) = s.container_statuses
    assert x.last_state.terminated is not None
    assert x.last_state.terminated.exit_code == 7
    # it stays when the runtime has removed the record
    later = status_of(pod, rt(ran(pod, count=1)), previous=s)
    assert later.container_statuses == s.container_statuses


def test_counts_and_ends_outlive_the_records() -> None:
    pod = make()
    before = status_of(pod, rt(ran(pod, count=4)))
    s = status_of(pod, PodRuntime(), previous=before)
    (x,) = s.container_statuses
    assert x.restart_count == 4
    assert x.last_state.terminated is not None
    assert (x.last_state.terminated.exit_code, x.last_state.terminated.reason) == (
        137,
        "ContainerStatusUnknown",
    )
    assert s.pod_ip == "10.0.0.2"
    job = make(restartPolicy="Never")
    done = status_of(job, rt(ran(job, state=EXITED)))
    assert status_of(job, PodRuntime(), previous=done).phase == "Succeeded"
    assert status_of(job, PodRuntime(), previous=done).container_statuses == done.container_statuses


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Always", (0, 1), "Running"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("Never", (0, None), "Running"),
    ],
)
def test_phases(policy: str, codes: tuple[int | None, ...], phase: str) -> None:
    pod = make(c("a"), c("b"), restartPolicy=policy)
    containers = [
        ran(pod, name, RUNNING if code is None else EXITED, code=code or 0)
        for name, code in zip(("a", "b"), codes, strict=True)
    ]
    assert status_of(pod, rt(*containers)).phase == phase


def test_init_containers() -> None:
    pod = make(initContainers=[c("i1"), c("i2")])
    s = status_of(pod, rt(ran(pod, "i1", EXITED), ran(pod, "i2")))
    assert s.phase == "Pending"
    assert conditions(s)["Initialized"] == ("False", "ContainersNotInitialized")
    assert [x.ready for x in s.init_container_statuses] == [True, False]
    assert s.container_statuses[0].state.waiting is not None
    assert s.container_statuses[0].state.waiting.reason == "PodInitializing"
    done = status_of(pod, rt(ran(pod), ran(pod, "i1", EXITED), ran(pod, "i2", EXITED)))
    assert done.phase == "Running"
    assert conditions(done)["Initialized"] == ("True", "")
    never = make(initContainers=[c("i1")], restartPolicy="Never")
    assert status_of(never, rt(ran(never, "i1", EXITED, code=1))).phase == "Failed"
    assert status_of(pod, rt(ran(pod, "i1", EXITED, code=1))).phase == "Pending"


def test_probes_decide_on_ready_and_started() -> None:
    pod = make()
    running = ran(pod)
    s = status_of(pod, rt(running), verdicts=Verdicts(not_ready=frozenset({running.id})))
    assert (s.container_statuses[0].started, s.container_statuses[0].ready) == (True, False)
    s = status_of(pod, rt(running), verdicts=Verdicts(not_started=frozenset({running.id})))
    assert (s.container_statuses[0].started, s.container_statuses[0].ready) == (False, False)
    assert s.phase == "Running"


def test_condition_times_stay_while_the_status_does() -> None:
    pod = make()
    first = status_of(pod, rt(), now=10.0)
    second = status_of(pod, rt(ran(pod)), now=20.0, previous=first)
    times = {x.type: x.last_transition_time for x in second.conditions}
    assert times["Ready"] == "1970-01-01T00:00:20Z"
    assert times["PodScheduled"] == "1970-01-01T00:00:10Z"
    assert second.start_time == "1970-01-01T00:00:10Z"
    assert status_of(pod, rt(ran(pod)), now=30.0, previous=second) == second


def test_readiness_gates_and_foreign_conditions() -> None:
    gate = {"readinessGates": [{"conditionType": "x/ok"}]}
    pod = make(**gate)
    s = status_of(pod, rt(ran(pod)))
    assert conditions(s)["Ready"] == ("False", "ReadinessGatesNotReady")
    assert conditions(s)["ContainersReady"] == ("True", "")
    met = msgspec.convert(
        {
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [c()], **gate},
            "status": {"conditions": [{"type": "x/ok", "status": "True"}]},
        },
        Pod,
    )
    s = status_of(met, rt(ran(met)))
    assert conditions(s)["Ready"] == ("True", "")
    assert conditions(s)["x/ok"] == ("True", "")


def test_outcomes_are_final() -> None:
    pod = make()
    ended = Outcome(phase="Failed", reason="DeadlineExceeded", message="too long")
    s = status_of(pod, rt(ran(pod)), outcome=ended)
    assert (s.phase, s.reason, s.message) == ("Failed", "DeadlineExceeded", "too long")
    assert not s.container_statuses[0].ready
    assert status_of(pod, rt(ran(pod)), previous=s).phase == "Failed"


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (137, "Failed")])
def test_a_pod_that_was_ended_has_a_final_phase(code: int, phase: str) -> None:
    pod = make()
    assert status_of(pod, rt(ran(pod, state=EXITED, code=code), ready=False), terminated=True).phase == phase


def test_a_created_one_waits() -> None:
    pod = make()
    s = status_of(pod, rt(ran(pod, state=CREATED)))
    assert s.container_statuses[0].state.waiting is not None
    assert s.phase == "Pending"


def test_a_pod_that_cannot_run() -> None:
    s = failed_status(2, PodStatus(), "InvalidPod", "spec is odd", 5.0)
    assert (s.phase, s.reason, s.message) == ("Failed", "InvalidPod", "spec is odd")


@given(
    st.lists(
        st.tuples(st.sampled_from(list(ContainerState)), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["Always", "OnFailure", "Never"]),
)
def test_counts_never_go_down_and_final_phases_stay(
    history: list[tuple[ContainerState, int, bool]], policy: str
) -> None:
    pod = make(restartPolicy=policy)
    previous = PodStatus()
    for state, count, present in history:
        containers = (ran(pod, state=state, count=count, code=count),) if present else ()
        s = status_of(pod, PodRuntime(sandboxes=(box(),), containers=containers), previous=previous)
        old = {x.name: x.restart_count for x in previous.container_statuses}
        assert all(x.restart_count >= old.get(x.name, 0) for x in s.container_statuses)
        if previous.phase in ("Succeeded", "Failed"):
            assert s.phase == previous.phase
        assert (
            sum(
                y is not None
                for x in s.container_statuses
                for y in (x.state.running, x.state.waiting, x.state.terminated)
            )
            == 1
        )
        # what is written can be read again
        assert msgspec.json.decode(msgspec.json.encode(s), type=PodStatus) == s
        previous = s


def test_host_network_pods_have_the_nodes_address() -> None:
    pod = make(hostNetwork=True)
    s = status_of(pod, PodRuntime(sandboxes=(replace(box(host=True)),), containers=(ran(pod),)))
    assert s.pod_ip == "9.9.9.9"
    assert conditions(s)["PodReadyToStartContainers"] == ("True", "")


def test_a_resize_that_waits_is_told_with_what_the_pod_has_meanwhile() -> None:
    pod = make(c(resources={"requests": {"cpu": "2"}}), meta={"generation": 2})
    given = {"c": ResourceRequirements(requests={"cpu": "1"})}
    pending = resize.Pending(reason="Deferred", message="others have it")
    s = status_of(pod, rt(ran(pod)), resizing=resize.Progress(pending=pending), granted=given)
    assert conditions(s)["PodResizePending"] == ("True", "Deferred")
    assert "PodResizeInProgress" not in conditions(s)
    (shown,) = s.container_statuses
    assert (shown.allocated_resources, shown.resources) == ({"cpu": "1"}, given["c"])


def test_a_resize_that_fails_is_told_with_what_the_container_has() -> None:
    pod = make(c(resources={"requests": {"cpu": "1"}}))
    first = status_of(pod, rt(ran(pod)))
    bigger = make(c(resources={"requests": {"cpu": "2"}}))
    under_way = resize.Progress(running=frozenset({"c"}), error="no")
    s = status_of(bigger, rt(ran(pod)), resizing=under_way, previous=first)
    found = next(x for x in s.conditions if x.type == "PodResizeInProgress")
    assert (found.status, found.reason, found.message) == ("True", "Error", "no")
    (shown,) = s.container_statuses
    assert shown.allocated_resources == {"cpu": "2"}
    assert shown.resources == ResourceRequirements(requests={"cpu": "1"})
    done = status_of(bigger, rt(ran(pod)), previous=s)
    assert "PodResizeInProgress" not in conditions(done)
