"""The cloud hub goes, comes, and is met twice: F-C."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from beehive.errors import SkerryError
from cloudcore import kube
from cloudcore.objects import CONFIGMAP
from edgecore import local
from tests.e2e.skerry import eventually
from tests.fakes import edge
from tests.faults.stage import BACK_S, Stage

OBJECTS = 300

_READER = """
apiVersion: v1
kind: Pod
metadata: {{name: reader, namespace: default}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
  - name: main
    image: skerry.local/busybox:1
    imagePullPolicy: Never
    command: [/bin/sleep, "100000"]
    volumeMounts: [{{name: all, mountPath: /all}}]
  volumes:
  - name: all
    projected:
      sources:
{sources}
"""


async def write_all(stage: Stage, value: str) -> None:
    """Bring every object of the sync to this value, as fast as the API takes it."""
    api = kube.Kube(kube.load(str(stage.skerry.home / "kubeconfig")))
    patch = msgspec.json.encode({"data": {"value": value, "fill": "x" * 400}})
    slots = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with slots:
            await api.patch(CONFIGMAP, f"sync-{number}", patch, "default")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(OBJECTS):
                group.create_task(one(number))
    finally:
        await api.close()


def held(stage: Stage) -> dict[str, str]:
    """Name to value of the sync's objects that the edge has stored; empty while it does not answer."""
    try:
        answer: dict[str, Any] = local.ask(stage.edge / "edgecore.sock", "get", kind="configmaps")
    except SkerryError:
        return {}
    return {
        item["metadata"]["name"]: item["data"]["value"]
        for item in answer["items"]
        if item["metadata"]["name"].startswith("sync-")
    }


@pytest.fixture
def synced(stage: Stage) -> Iterator[Stage]:
    """A stage with a pod that refers to 300 configmaps, all of which the edge has."""
    stage.make_configmaps("sync", OBJECTS, "v0")
    sources = "\n".join(
        f"      - configMap: {{name: sync-{n}, items: [{{key: value, path: v{n}}}]}}" for n in range(OBJECTS)
    )
    stage.skerry.kubectl(
        "apply", "-f", "-", stdin=_READER.format(node=stage.skerry.node_name, sources=sources)
    )
    try:
        eventually(stage.is_agreed, "the reader", 60)
        yield stage
    finally:
        stage.settle()
        stage.skerry.kubectl("delete", "pod", "reader", "--wait=false")
        names = [f"sync-{number}" for number in range(OBJECTS)]
        stage.skerry.kubectl("delete", "configmap", "--wait=false", *names)


@pytest.mark.parametrize("rounds", [pytest.param(2, marks=pytest.mark.quick), 8])
def test_f_c01_the_hub_is_killed_in_a_sync(synced: Stage, rounds: int) -> None:
    stage = synced
    before = stage.containers()
    rng = random.Random(3)
    for number in range(1, rounds + 1):
        # slow enough that the kill comes while objects are on their way
        stage.line.line.rate = 60_000
        asyncio.run(write_all(stage, f"v{number}"))
        time.sleep(rng.random() * 1.5)
        stage.kill("cloudcore")
        seen = held(stage)
        stage.line.good()
        stage.start("cloudcore")
        # the edge may have all of it already
        eventually(stage.api_is_ready, "the API", 60)
        eventually(
            lambda number=number: set(held(stage).values()) == {f"v{number}"},  # type: ignore[misc]
            f"all objects at v{number}; at the kill {sum(v == f'v{number}' for v in seen.values())} were",
            BACK_S,
        )
        assert len(held(stage)) == OBJECTS
        assert stage.containers() == before
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_s01_the_agent_is_killed_in_a_sync(synced: Stage) -> None:
    """What the edge acknowledged is not sent again, so what were lost with the kill would never come."""
    stage = synced
    before = stage.containers()
    rng = random.Random(4)
    for number in range(1, 9):
        stage.line.line.rate = 100_000
        asyncio.run(write_all(stage, f"v{number}"))
        time.sleep(rng.random() * 1.2)
        stage.kill("edgecore")
        stage.line.good()
        stage.start("edgecore")
        eventually(
            lambda number=number: set(held(stage).values()) == {f"v{number}"},  # type: ignore[misc]
            f"all objects at v{number}",
            BACK_S,
        )
        store = stage.edge_status()["store"]
        assert (store["damagedRows"], store["setAside"]) == (0, "")
        assert stage.containers() == before


def test_f_c03_pods_crash_while_the_hub_is_away(stage: Stage) -> None:
    before, restarts = stage.containers(), stage.restarts()
    victim = stage.container_of("herd-4")
    stage.stop("cloudcore")
    time.sleep(2)
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: stage.container_of("herd-4").id != victim.id, "the pod, restarted here", BACK_S)
    time.sleep(8)
    now = stage.containers()
    assert {one for one in before if one[0] != victim.pod_uid} <= now
    stage.start("cloudcore")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.restarts() == {**restarts, victim.pod_uid: restarts[victim.pod_uid] + 1}
    # once: nothing goes on being written
    first = stage.skerry.get("pod", "herd-4")["metadata"]["resourceVersion"]
    time.sleep(4)
    assert stage.skerry.get("pod", "herd-4")["metadata"]["resourceVersion"] == first
    assert stage.containers() == now


@pytest.mark.quick
def test_f_c05_the_same_node_connects_twice(stage: Stage) -> None:
    """With the node's own certificate; the newer session wins each time, and the end of an older one takes nothing away."""
    before = stage.containers()

    async def twin() -> int:
        async with edge.connected(stage.hub, stage.identity()) as other:
            await asyncio.sleep(1.5)
            return other.session

    sessions = [stage.session()]
    for _ in range(4):
        sessions.append(asyncio.run(twin()))
        eventually(stage.is_linked, "the true edge", 60)
        sessions.append(stage.session())
    assert sessions == sorted(sessions)
    assert sessions[-1] > sessions[-2]
    # the last one stays: no clean-up of an older session ends it, and the hub keeps its lease
    time.sleep(6)
    since = time.time()
    assert stage.session() == sessions[-1]
    eventually(lambda: stage.is_fresh(since), "the lease", 60)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_c05_an_old_session_is_half_open(stage: Stage) -> None:
    """The agent is killed while its line is dead, so that the hub still holds the old connection when the new one comes."""
    before = stage.containers()
    first = stage.session()
    stage.line.line.blackhole = True
    time.sleep(1)
    stage.kill("edgecore")
    stage.start("edgecore")
    time.sleep(1)
    stage.line.line.blackhole = False
    eventually(stage.is_linked, "the new session", 60)
    second = stage.session()
    assert second > first
    time.sleep(12)
    since = time.time()
    assert stage.session() == second
    eventually(lambda: stage.is_fresh(since), "the lease", 60)
    assert stage.containers() == before
