from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecore.edged.backoff import Delay
from edgecore.edged.plan import (
    CreateSandbox,
    Health,
    KillContainer,
    Memory,
    Plan,
    RemoveContainer,
    StartContainer,
    StopSandbox,
    compute_pod_actions,
    init_failed,
)
from edgecore.edged.pod import Pod
from edgecore.edged.runtime import ContainerState, PodRuntime
from tests.unit.edgecore.edged.builders import CREATED, EXITED, RUNNING, UNKNOWN, box, c, make, ran


def planned(
    pod: Pod,
    runtime: PodRuntime,
    memory: Memory = Memory(),  # noqa: B008
    health: Health = Health(),  # noqa: B008
    **ages: float,
) -> Plan:
    return compute_pod_actions(pod, runtime, memory=memory, health=health, exited_for_s=ages)


def rt(*containers: Any, sandboxes: tuple[Any, ...] | None = None) -> PodRuntime:
    return PodRuntime(sandboxes=(box(),) if sandboxes is None else sandboxes, containers=containers)


def test_a_new_pod_gets_a_sandbox_then_its_containers() -> None:
    pod = make(c("a"), c("b"))
    assert planned(pod, PodRuntime()).actions == (CreateSandbox(attempt=0),)
    assert planned(pod, rt()).actions == (
        StartContainer(name="a", restart_count=0),
        StartContainer(name="b", restart_count=0),
    )
    assert planned(pod, rt(ran(pod, "a"), ran(pod, "b"))).actions == ()


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_restart_policy(policy: str, code: int, restarts: bool) -> None:
    pod = make(restartPolicy=policy)
    expected = (StartContainer(name="c", restart_count=1),) if restarts else ()
    assert planned(pod, rt(ran(pod, state=EXITED, code=code))).actions == expected
    # the same when the runtime has lost the record
    remembered = Memory(finished={"c": code}, restarts={"c": 0})
    assert planned(pod, rt(), remembered).actions == expected


@pytest.mark.parametrize("code", [137, 143])
def test_one_that_was_killed_is_looked_at_again_before_it_is_restarted(code: int) -> None:
    pod = make()
    dead = ran(pod, state=EXITED, code=code)
    restart = (StartContainer(name="c", restart_count=1),)
    held = planned(pod, rt(dead), c0=0.1)
    assert held.actions == ()
    assert held.wake_in_s == pytest.approx(0.4)
    assert held.waiting == {}
    # it was not its sandbox that was being stopped, or it was: one restart each
    assert planned(pod, rt(dead), c0=0.6).actions == restart
    lost = rt(dead, sandboxes=(box(ready=False),))
    assert planned(pod, lost, c0=0.2).actions == (CreateSandbox(attempt=1),)
    # who ended by itself, by the kernel, or for another image, has nothing to do with the sandbox
    assert planned(pod, rt(ran(pod, state=EXITED, code=1)), c0=0.1).actions == restart
    assert planned(pod, rt(replace(dead, reason="OOMKilled")), c0=0.1).actions == restart
    assert planned(make(c(image="i:2")), rt(dead), c0=0.1).actions == restart


def test_back_off_holds_and_says_for_how_long() -> None:
    pod = make()
    memory = Memory(delays={"c": Delay(delay_s=160, updated_at=100)}, restarts={"c": 4})
    plan = planned(pod, rt(ran(pod, state=EXITED, code=1, count=4)), memory, c4=60.0)
    assert plan.actions == ()
    assert plan.wake_in_s == 100
    assert plan.waiting == {
        "c": ("CrashLoopBackOff", "back-off 2m40s restarting failed container=c pod=p_ns(u)")
    }
    assert planned(pod, rt(ran(pod, state=EXITED, code=1, count=4)), memory, c4=160.0).actions == (
        StartContainer(name="c", restart_count=5),
    )


def test_restart_counts_never_go_down() -> None:
    pod = make()
    assert planned(pod, rt(), Memory(restarts={"c": 7})).actions == (
        StartContainer(name="c", restart_count=8),
    )
    dead = ran(pod, state=EXITED, count=2)
    assert planned(pod, rt(dead), Memory(restarts={"c": 7})).actions == (
        StartContainer(name="c", restart_count=8),
    )


def test_one_that_was_never_started_is_removed_first() -> None:
    pod = make()
    half = ran(pod, state=CREATED, count=3)
    assert planned(pod, rt(half)).actions == (
        RemoveContainer(container_id=half.id),
        StartContainer(name="c", restart_count=3),
    )


def test_an_unknown_one_is_killed_before_another_starts() -> None:
    pod = make()
    (kill,) = planned(pod, rt(ran(pod, state=UNKNOWN))).actions
    assert isinstance(kill, KillContainer)


@pytest.mark.parametrize(
    ("health", "reason", "grace"),
    [
        (Health(failed_liveness=frozenset({"c0"})), "FailedLiveness", 9),
        (Health(failed_startup=frozenset({"c0"})), "FailedStartup", None),
    ],
)
def test_unhealthy_containers_are_killed(health: Health, reason: str, grace: int | None) -> None:
    probe = {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 9}
    pod = make(c(livenessProbe=probe, startupProbe={"exec": {"command": ["x"]}}))
    (kill,) = planned(pod, rt(ran(pod)), health=health).actions
    assert isinstance(kill, KillContainer)
    assert (kill.reason, kill.grace_s, kill.container_id) == (reason, grace, "c0")
    assert kill.message.endswith(" probe, will be restarted")


def test_a_changed_image_kills_and_other_changes_do_not() -> None:
    old = make(c(image="i:0"))
    pod = make(c(env=[{"name": "A"}]))
    (kill,) = planned(pod, rt(ran(old))).actions
    assert isinstance(kill, KillContainer)
    assert kill.reason == "Changed"
    assert planned(pod, rt(ran(make()))).actions == ()


def test_sandboxes() -> None:
    pod = make()
    dead = box(ready=False)
    assert planned(pod, rt(sandboxes=(dead,))).actions == (CreateSandbox(attempt=1),)
    # its containers outlived it: they go first
    assert planned(pod, rt(ran(pod), sandboxes=(dead,))).actions == (
        StopSandbox(sandbox_id="s0"),
        CreateSandbox(attempt=1),
    )
    two = (box(attempt=1, sid="s1"), box())
    assert planned(pod, rt(sandboxes=two)).actions == (
        StopSandbox(sandbox_id="s1"),
        StopSandbox(sandbox_id="s0"),
        CreateSandbox(attempt=2),
    )
    no_ip = replace(box(), ips=())
    assert planned(pod, rt(sandboxes=(no_ip,))).actions == (
        StopSandbox(sandbox_id="s0"),
        CreateSandbox(attempt=1),
    )
    host = make(hostNetwork=True)
    assert planned(host, rt(sandboxes=(box(host=True),))).actions == (
        StartContainer(name="c", restart_count=0),
    )


def test_a_finished_pod_gets_no_new_sandbox() -> None:
    for policy, code in (("Never", 1), ("Never", 0), ("OnFailure", 0)):
        pod = make(restartPolicy=policy)
        lost = PodRuntime(sandboxes=(box(ready=False),), containers=(ran(pod, state=EXITED, code=code),))
        assert planned(pod, lost).actions == ()
        assert planned(pod, PodRuntime(), Memory(finished={"c": code})).actions == ()
    pod = make(restartPolicy="OnFailure")
    assert planned(pod, PodRuntime(), Memory(finished={"c": 1})).actions == (CreateSandbox(attempt=0),)


def test_init_containers_go_one_by_one() -> None:
    pod = make(initContainers=[c("i1"), c("i2")])
    assert planned(pod, rt()).actions == (StartContainer(name="i1", restart_count=0),)
    assert planned(pod, rt(ran(pod, "i1"))).actions == ()
    one = ran(pod, "i1", EXITED)
    assert planned(pod, rt(one)).actions == (StartContainer(name="i2", restart_count=0),)
    assert planned(pod, rt(ran(pod, "i2", EXITED), one)).actions == (
        StartContainer(name="c", restart_count=0),
    )
    failed = ran(pod, "i1", EXITED, code=1)
    assert planned(pod, rt(failed)).actions == (StartContainer(name="i1", restart_count=1),)
    never = make(initContainers=[c("i1")], restartPolicy="Never")
    assert planned(never, rt(failed)).actions == ()
    assert init_failed(never, rt(failed))
    assert not init_failed(pod, rt(failed))


def test_init_containers_run_again_in_a_new_sandbox_only() -> None:
    pod = make(initContainers=[c("i1")])
    old = ran(pod, "i1", EXITED, sid="old")
    assert planned(pod, rt(old)).actions == (StartContainer(name="i1", restart_count=1),)
    # once an app container has run in this sandbox they are history
    assert planned(pod, rt(ran(pod, state=EXITED))).actions == (StartContainer(name="c", restart_count=1),)


def test_sidecars_start_in_turn_and_stay() -> None:
    pod = make(
        initContainers=[c("side", restartPolicy="Always", startupProbe={"exec": {"command": ["x"]}}), c("i2")]
    )
    assert planned(pod, rt()).actions == (StartContainer(name="side", restart_count=0),)
    up = ran(pod, "side")
    assert planned(pod, rt(up)).actions == ()
    ready = Health(started=frozenset({up.id}))
    assert planned(pod, rt(up), health=ready).actions == (StartContainer(name="i2", restart_count=0),)
    # it is restarted whatever the policy, also after initialization
    never = make(initContainers=[c("side", restartPolicy="Always")], restartPolicy="Never")
    assert planned(never, rt(ran(never), ran(never, "side", EXITED, code=1))).actions == (
        StartContainer(name="side", restart_count=1),
    )


_states = st.sampled_from(list(ContainerState))


@given(
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    inits=st.integers(0, 2),
    states=st.lists(st.tuples(_states, st.integers(0, 2)), max_size=4),
    ready=st.booleans(),
    boxes=st.integers(0, 2),
)
def test_planning_again_after_applying_comes_to_rest(
    policy: str, inits: int, states: list[tuple[ContainerState, int]], ready: bool, boxes: int
) -> None:
    """Whatever the start, applying plans ends, and never has two of a name running."""
    pod = make(c("a"), c("b"), initContainers=[c(f"i{n}") for n in range(inits)], restartPolicy=policy)
    names = [*(f"i{n}" for n in range(inits)), "a", "b"]
    containers = [
        ran(pod, name, state, code=code, sid=f"s{max(0, boxes - 1)}")
        for name, (state, code) in zip(names, states, strict=False)
    ]
    sandboxes = [box(ready=ready, attempt=n, sid=f"s{n}") for n in reversed(range(boxes))]
    for _ in range(40):
        runtime = PodRuntime(sandboxes=tuple(sandboxes), containers=tuple(containers))
        plan = planned(pod, runtime, **{x.id: 1e6 for x in containers})
        if not plan.actions:
            break
        for action in plan.actions:
            if isinstance(action, CreateSandbox):
                assert not any(s.ready for s in sandboxes)
                sandboxes.insert(0, box(attempt=action.attempt, sid=f"s{action.attempt}"))
            elif isinstance(action, StopSandbox):
                sandboxes = [
                    replace(s, ready=False, ips=()) if s.id == action.sandbox_id else s for s in sandboxes
                ]
                containers = [
                    replace(x, state=EXITED, exit_code=137) if x.state in (RUNNING, UNKNOWN) else x
                    for x in containers
                ]
            elif isinstance(action, StartContainer):
                alive = [x for x in containers if x.name == action.name and x.state in (RUNNING, UNKNOWN)]
                assert alive == []
                assert all(
                    x.restart_count < action.restart_count for x in containers if x.name == action.name
                )
                # init containers succeed at once
                state = EXITED if action.name.startswith("i") else RUNNING
                containers.insert(
                    0, ran(pod, action.name, state, count=action.restart_count, sid=sandboxes[0].id)
                )
            elif isinstance(action, KillContainer):
                containers = [
                    replace(x, state=EXITED, exit_code=137) if x.id == action.container_id else x
                    for x in containers
                ]
            else:
                containers = [x for x in containers if x.id != action.container_id]
    else:
        raise AssertionError("plans do not come to rest")


def test_a_new_image_does_not_wait_for_the_old_ones_failures() -> None:
    memory = Memory(delays={"c": Delay(delay_s=160, updated_at=100)}, restarts={"c": 4})
    dead = rt(ran(make(), state=EXITED, code=1, count=4))
    assert planned(make(), dead, memory, c4=6.0).actions == ()
    restart = (StartContainer(name="c", restart_count=5),)
    assert planned(make(c(image="i:2")), dead, memory, c4=6.0).actions == restart


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_another_image_starts_whatever_the_policy_is(policy: str) -> None:
    before, after = make(restartPolicy=policy), make(c(image="i:2"), restartPolicy=policy)
    (kill,) = planned(after, rt(ran(before))).actions
    assert isinstance(kill, KillContainer)
    assert kill.again
    assert kill.message == "Container c definition changed, will be restarted"
    ended = ran(before, "c", EXITED, code=0)
    replaced = Memory(replaced=frozenset({ended.id}))
    start = StartContainer(name="c", restart_count=1)
    assert planned(after, rt(ended), replaced, c0=10.0).actions == (start,)
    # also when the sandbox went meanwhile
    gone = planned(after, rt(ended, sandboxes=(box(ready=False),)), replaced)
    assert gone.actions == (CreateSandbox(attempt=1),)


@pytest.mark.parametrize("policy", ["OnFailure", "Never"])
def test_what_has_ended_by_itself_is_not_started_for_another_image(policy: str) -> None:
    before, after = make(restartPolicy=policy), make(c(image="i:2"), restartPolicy=policy)
    assert planned(after, rt(ran(before, "c", EXITED, code=0)), c0=10.0).actions == ()


@pytest.mark.parametrize(("policy", "again"), [("Always", True), ("OnFailure", True), ("Never", False)])
def test_one_that_is_not_alive_any_more_starts_again_unless_it_never_does(policy: str, again: bool) -> None:
    pod = make(restartPolicy=policy)
    (kill,) = planned(pod, rt(ran(pod)), health=Health(failed_liveness=frozenset({"c0"}))).actions
    assert isinstance(kill, KillContainer)
    assert kill.again is again
