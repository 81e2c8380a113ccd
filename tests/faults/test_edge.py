"""The agent, the runtime and the power: F-E."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from deploy.cri import remove_everything
from tests.e2e.skerry import eventually
from tests.faults.stage import BACK_S, Stage, shim_of


@pytest.mark.parametrize("times", [pytest.param(6, marks=pytest.mark.quick), 100])
def test_f_e01_the_agent_is_killed_many_times(stage: Stage, times: int) -> None:
    before, restarts = stage.containers(), stage.restarts()
    assert len(before) == 10
    rng = random.Random(1)
    for _ in range(times):
        stage.kill("edgecore")
        stage.start("edgecore")
        # while it starts, while it connects, while it works
        time.sleep(rng.random() * 2.0)
        assert stage.containers() == before
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts


@pytest.mark.parametrize("times", [pytest.param(3, marks=pytest.mark.quick), 25])
def test_f_e02_killed_while_it_makes_containers(stage: Stage, times: int) -> None:
    before = stage.containers()
    rng = random.Random(2)
    stage.make_pods("young", 3)
    try:
        for _ in range(times):
            time.sleep(rng.random() * 0.9)
            stage.kill("edgecore")
            stage.start("edgecore")
        eventually(stage.is_agreed, "one container each", BACK_S + 15)
        assert before <= stage.containers()
        sandboxes = [
            line for line in stage.skerry.ctr("containers", "ls").splitlines()[1:] if "pause" in line
        ]
        assert len(sandboxes) == 13
    finally:
        stage.drop_pods("young")
    eventually(
        lambda: stage.is_agreed() and stage.containers() == before, "the young ones to be gone", BACK_S
    )


def test_f_e03_a_reboot_without_a_link(stage: Stage) -> None:
    uids = {uid for uid, _, _ in stage.containers()}
    stage.kill("cloudcore")
    stage.kill("edgecore")
    assert remove_everything(stage.skerry.socket) == 10
    assert stage.containers() == frozenset()
    stage.start("edgecore")
    eventually(lambda: {uid for uid, _, _ in stage.containers()} == uids, "all pods, from the store", BACK_S)
    eventually(stage.served, "the page, from the store", BACK_S)
    before = stage.containers()
    assert len(before) == 10
    stage.start("cloudcore")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


@pytest.mark.parametrize("how", [pytest.param("killed", marks=pytest.mark.quick), "restarted"])
def test_f_e04_containerd_ends_and_comes_back(stage: Stage, how: str) -> None:
    before, restarts = stage.containers(), stage.restarts()
    for _ in range(2):
        (stage.kill if how == "killed" else stage.stop)("containerd")
        time.sleep(3)
        stage.start("containerd")
        eventually(lambda: stage.containers() == before, "containerd, with all its containers", 60)
        time.sleep(3)
        assert stage.containers() == before
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.restarts() == restarts
    # and it still works
    stage.make_pods("young", 1)
    eventually(stage.is_agreed, "a new pod after it", BACK_S)
    stage.drop_pods("young")
    eventually(lambda: stage.is_agreed() and stage.containers() == before, "its end", BACK_S)


@pytest.mark.quick
def test_f_e06_a_shim_is_killed(stage: Stage) -> None:
    before = stage.containers()
    victim = stage.container_of("herd-3")
    others = {one for one in before if one[0] != victim.pod_uid}
    os.kill(shim_of(victim), signal.SIGKILL)

    def restarted() -> bool:
        running = [one for one in stage.containers() if one[0] == victim.pod_uid]
        return len(running) == 1 and running[0][1] != victim.id

    eventually(restarted, "the container that was lost, made again", 60)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert others <= stage.containers()
    assert stage.restarts()[victim.pod_uid] >= 1


def test_f_e09_the_agent_stands_still(stage: Stage) -> None:
    """As on a machine whose processor is taken: it cannot run for twenty seconds."""
    before, restarts, number = stage.containers(), stage.restarts(), stage.session()
    agent = stage.pid("edgecore")
    os.kill(agent, signal.SIGSTOP)
    try:
        time.sleep(20)
        assert stage.containers() == before
    finally:
        os.kill(agent, signal.SIGCONT)
    eventually(lambda: stage.is_linked() and stage.session() > number, "another link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    since = time.time()
    eventually(lambda: stage.is_fresh(since), "the lease", BACK_S)
    assert stage.pid("edgecore") == agent
    assert stage.containers() == before
    assert stage.restarts() == restarts
