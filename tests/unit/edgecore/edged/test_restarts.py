from __future__ import annotations

from typing import Any

import pytest

from edgecore.edged import restarts
from edgecore.edged.backoff import Delay
from edgecore.edged.errors import BadPod
from edgecore.edged.plan import Memory, RestartAll, StartContainer, init_failed
from edgecore.edged.runtime import PodRuntime
from edgecore.edged.status import View, compute_status
from tests.unit.edgecore.edged.builders import EXITED, RUNNING, box, c, make, ran
from tests.unit.edgecore.edged.test_plan import planned, rt


def rule(operator: str, *values: int) -> dict[str, Any]:
    return {"action": "Restart", "exitCodes": {"operator": operator, "values": list(values)}}


@pytest.mark.parametrize(
    ("of_pod", "own", "rules", "code", "again"),
    [
        ("Always", "", [], 0, True),
        ("Never", "", [], 1, False),
        ("OnFailure", "", [], 0, False),
        # its own policy before the pod's
        ("Never", "Always", [], 0, True),
        ("Always", "Never", [], 1, False),
        ("Always", "OnFailure", [], 0, False),
        # and its rules before that
        ("Never", "Never", [rule("In", 42)], 42, True),
        ("Never", "Never", [rule("In", 42)], 1, False),
        ("Never", "Never", [rule("NotIn", 42)], 1, True),
        ("Never", "Never", [rule("NotIn", 42)], 42, False),
        ("Never", "Never", [rule("In", 1), rule("In", 2)], 2, True),
        # what this version does not know fits nothing
        ("Never", "Never", [{**rule("In", 42), "action": "RestartTheWorld"}], 42, False),
        ("Never", "Never", [rule("Near", 42)], 42, False),
    ],
)
def test_who_is_started_again(
    of_pod: str, own: str, rules: list[dict[str, Any]], code: int, again: bool
) -> None:
    fields = {"restartPolicy": own} if own else {}
    pod = make(c(**fields, restartPolicyRules=rules), restartPolicy=of_pod)
    assert restarts.app(pod, pod.spec.containers[0], code) is again
    # the plan and the phase say the same
    dead = ran(pod, state=EXITED, code=code)
    expected = (StartContainer(name="c", restart_count=1),) if again else ()
    assert planned(pod, rt(dead)).actions == expected
    runtime = PodRuntime(sandboxes=(box(),), containers=(dead,))
    phase = compute_status(pod, runtime, View(now=200.0)).phase
    assert phase == ("Running" if again else "Succeeded" if code == 0 else "Failed")


def test_a_pod_goes_on_while_one_of_it_comes_back() -> None:
    pod = make(
        c("a", restartPolicy="Never"), c("b", restartPolicyRules=[rule("In", 3)]), restartPolicy="Never"
    )

    def phase(code: int) -> str:
        records = (ran(pod, "a", EXITED, code=1), ran(pod, "b", EXITED, code=code))
        return compute_status(pod, PodRuntime(sandboxes=(box(),), containers=records), View(now=200.0)).phase

    assert phase(3) == "Running"
    assert phase(0) == "Failed"


def test_init_containers_have_them_too() -> None:
    pod = make(
        initContainers=[c("i", restartPolicy="Never", restartPolicyRules=[rule("In", 5)])],
        restartPolicy="Always",
    )
    container = pod.spec.init_containers[0]
    assert restarts.init(pod, container, 5)
    assert not restarts.init(pod, container, 1)
    assert not restarts.init(pod, container, 0)
    assert init_failed(pod, rt(ran(pod, "i", EXITED, code=1)))
    assert not init_failed(pod, rt(ran(pod, "i", EXITED, code=5)))
    assert planned(pod, rt(ran(pod, "i", EXITED, code=1))).actions == ()
    assert planned(pod, rt(ran(pod, "i", RUNNING))).actions == ()
    with pytest.raises(BadPod, match="restartPolicy"):
        make(c(restartPolicy="Sometimes"))


def everything(operator: str, *values: int) -> dict[str, Any]:
    return {**rule(operator, *values), "action": "RestartAllContainers"}


def test_one_that_ends_may_start_all_anew() -> None:
    pod = make(
        c("a", restartPolicyRules=[everything("In", 88)]),
        c("b"),
        initContainers=[c("i")],
        restartPolicy="Never",
    )
    init, a, b = ran(pod, "i", EXITED), ran(pod, "a", EXITED, code=88), ran(pod, "b", EXITED)
    (action,) = planned(pod, rt(init, a, b)).actions
    assert isinstance(action, RestartAll)
    assert (action.name, action.message) == (
        "a",
        "Container a exited with code 88, restarting all containers",
    )
    assert compute_status(pod, rt(init, a, b), View(now=200.0)).phase != "Failed"
    # another code is its end
    assert planned(pod, rt(init, ran(pod, "a", EXITED, code=1), b)).actions == ()
    # what ended in an earlier sandbox has no say
    old = ran(pod, "a", EXITED, code=88, sid="s-old")
    assert not any(isinstance(x, RestartAll) for x in planned(pod, rt(init, old, b)).actions)


def test_one_that_keeps_ending_backs_off() -> None:
    pod = make(c("a", restartPolicyRules=[everything("In", 88)]), c("b"), restartPolicy="Never")
    a = ran(pod, "a", EXITED, code=88, cid="x")
    memory = Memory(delays={"a": Delay(delay_s=20.0, updated_at=90.0)})
    plan = planned(pod, rt(a, ran(pod, "b")), memory, x=5.0)
    assert plan.actions == ()
    assert plan.waiting["a"][0] == "CrashLoopBackOff"
    assert plan.wake_in_s == 15.0
    assert isinstance(planned(pod, rt(a, ran(pod, "b")), memory, x=21.0).actions[0], RestartAll)


def test_an_agent_that_died_meanwhile_is_followed_by_one_that_goes_on() -> None:
    pod = make(c("a"), c("b"), initContainers=[c("i")], restartPolicy="Never")
    (action,) = planned(pod, rt(ran(pod, "b")), Memory(restart_all=restarts.ENDING)).actions
    assert isinstance(action, RestartAll)
    # when all are gone they start in order, whatever they ended with before
    memory = Memory(restarts={"i": 0, "a": 0, "b": 2}, restart_all=restarts.STARTING)
    plan = planned(pod, rt(), memory)
    assert plan.actions == (StartContainer(name="i", restart_count=1),)
    assert plan.waiting == {name: ("PodInitializing", "") for name in ("i", "a", "b")}
    plan = planned(pod, rt(ran(pod, "i", EXITED, count=1)), memory)
    assert plan.actions == (
        StartContainer(name="a", restart_count=1),
        StartContainer(name="b", restart_count=3),
    )


def test_an_init_container_that_succeeded_starts_nothing_anew() -> None:
    pod = make(
        c("a"), initContainers=[c("i", restartPolicyRules=[everything("NotIn", 7)])], restartPolicy="Never"
    )
    assert planned(pod, rt(ran(pod, "i", EXITED))).actions == (StartContainer(name="a", restart_count=0),)
    (action,) = planned(pod, rt(ran(pod, "i", EXITED, code=1))).actions
    assert isinstance(action, RestartAll)
