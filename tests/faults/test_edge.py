"""The agent, the runtime and the power: F-E."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cri import remove_everything
from tests.e2e.skerry import eventually
from tests.faults.registry import Registry
from tests.faults.stage import BACK_S, Stage, shim_of
from tests.faults.test_storage import fat_configmap, small_configmap


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
    # what is left of the old sandbox for its logs has no address any more
    eventually(lambda: len(addresses(stage)) == 10, "an address for each pod", BACK_S)


def addresses(stage: Stage) -> list[str]:
    """Of pods, as far as the plugin that gives them knows."""
    return [path.name for path in (stage.skerry.home / "containerd" / "addresses").rglob("*.*.*.*")]


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


@contextlib.contextmanager
def memory_group() -> Iterator[Path]:
    """A memory cgroup of our own, of either version."""
    roots = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
    usable = [
        root for root in roots if (root / "memory.limit_in_bytes").exists() or "memory" in _controllers(root)
    ]
    if not usable:
        pytest.skip("no memory cgroups here")
    group = usable[0] / f"sk-faults-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        eventually(lambda: (group / "cgroup.procs").read_text() == "", "an empty group", 60)
        group.rmdir()


def _controllers(root: Path) -> str:
    path = root / "cgroup.subtree_control"
    return path.read_text() if path.exists() else ""


def test_f_e08_the_agent_is_killed_for_want_of_memory(stage: Stage) -> None:
    before, restarts = stage.containers(), stage.restarts()
    kills = oom_kills()
    with memory_group() as group:
        stage.kill("edgecore")
        daemon = stage.parts.daemons["edgecore"]
        command = [str(word) for word in stage.parts.command("edgecore")]
        # all it takes counts, from its first page on
        script = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
        daemon.start(["/bin/sh", "-c", script, "sh", *command])
        eventually(stage.is_linked, "the link", BACK_S)
        eventually(stage.is_agreed, "agreement", BACK_S)
        old = (group / "memory.limit_in_bytes").exists()
        used = int((group / f"memory.{'usage_in_bytes' if old else 'current'}").read_text())
        limit = group / f"memory.{'limit_in_bytes' if old else 'max'}"
        try:
            for number in range(60):
                # what it holds of files goes first, then it is over
                with contextlib.suppress(OSError):
                    limit.write_text(str(used))
                used = int(used * 0.99)
                stage.skerry.kubectl("replace", "-f", "-", stdin=fat_configmap(f"{number}\n"))
                if daemon.pid() is None:
                    break
                time.sleep(0.2)
            assert daemon.pid() is None, "it lives with less than it has"
            assert oom_kills() > kills
            assert stage.containers() == before
        finally:
            stage.kill("edgecore")
            stage.start("edgecore")
    eventually(stage.edge_status, "the agent", 60)
    assert "for want of memory" in stage.edge_status()["lastEnd"]
    stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap("Hello from the edge.\n"))
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts
    # an end in order is not spoken of
    stage.stop("edgecore")
    stage.start("edgecore")
    eventually(stage.edge_status, "the agent", 60)
    assert stage.edge_status()["lastEnd"] == ""


def oom_kills() -> int:
    words = Path("/proc/vmstat").read_text().split()
    return int(words[words.index("oom_kill") + 1])


PULLER = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{herd: pullers}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: "{image}", imagePullPolicy: IfNotPresent}}
---"""


def test_f_e11_a_registry_hangs_never_ends_or_sends_something_else(stage: Stage) -> None:
    before = stage.containers()

    def waiting(name: str) -> str:
        statuses = stage.skerry.get("pod", name)["status"].get("containerStatuses", [])
        found = statuses[0]["state"].get("waiting", {}) if statuses else {}
        return f"{found.get('reason', '')}: {found.get('message', '')}"

    with Registry().serving() as registry:
        images = {
            name: f"127.0.0.1:{registry.port}/{name}:1" for name in ("hangs", "wrong", "endless", "forged")
        }
        text = "\n".join(
            PULLER.format(name=name, node=stage.skerry.node_name, image=image)
            for name, image in images.items()
        )
        stage.skerry.kubectl("apply", "-f", "-", stdin=text)
        try:
            for name in ("wrong", "forged"):
                eventually(lambda: "ImagePullBackOff" in waiting(name), f"{name}, refused", 90)  # noqa: B023
            eventually(lambda: registry.sent > 1024 * 1024, "the endless one, under way", 90)
            # others are not held up
            stage.make_pods("young", 1)
            eventually(lambda: any(one.pod == "young-0" for one in stage.skerry.containers()), "a pod", 60)
            stage.drop_pods("young")
            assert stage.is_linked()
            for name in ("hangs", "endless"):
                assert "ImagePull" not in waiting(name)
            asked = len([path for path in registry.asked if "/wrong/" in path])
            assert asked < 20, f"{asked} requests for one that is refused each time"
            assert not {one.pod for one in stage.skerry.containers()} & images.keys()
        finally:
            stage.drop_pods("pullers")
        # nobody wants it any more
        eventually(lambda: registry.sending == 0, "the end of the pull", 60)
        eventually(stage.is_agreed, "agreement", BACK_S)
        eventually(lambda: stage.containers() == before, "the young one's end", BACK_S)
