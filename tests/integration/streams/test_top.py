"""kubectl top against the control plane in the box, with numbers from real containers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cloudcore.cloudstream.measure import INTERVAL_S
from tests.integration.edged.bench import container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.streams.rig import NODE, Rig, rig

pytestmark = pytest.mark.root

BUSY = "while :; do :; done"


async def millicores(r: Rig, name: str) -> int:
    got = await r.kubectl("top", "pod", name, "--no-headers")
    assert got.code == 0, got.err
    return int(got.out.split()[1].removesuffix("m"))


def test_top_of_nodes_and_pods(containerd: Containerd, tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        capacity = {"cpu": "2", "memory": "8Gi"}
        node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE, "labels": {"zone": "a"}}}
        made = await r.kubectl("create", "-f", "-", stdin=json.dumps(node).encode())
        assert made.code == 0, made.err
        status = json.dumps({"status": {"capacity": capacity, "allocatable": capacity}})
        await r.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", status)
        await r.run_pod(pod("busy", container(command=["sh", "-c", BUSY])))
        await r.run_pod(pod("idle", container()))

        # the first question already gets an answer
        top = await r.kubectl("top", "nodes", "--no-headers")
        name, cpu, _, memory, _ = top.out.split()
        assert (name, top.err) == (NODE, "")
        assert int(cpu.removesuffix("m")) > 0
        assert int(memory.removesuffix("Mi")) > 0
        assert (await r.kubectl("top", "nodes", "-l", "zone=b")).out == ""
        assert await millicores(r, "busy") > 100
        assert await millicores(r, "idle") < 100
        rows = (await r.kubectl("top", "pods", "-A", "--containers", "--no-headers")).out.splitlines()
        assert [row.split()[:3] for row in rows] == [["default", "busy", "c"], ["default", "idle", "c"]]

        # one that began after the last reading has no rate yet, and kubectl says so
        late = pod("late", container())
        late["metadata"]["labels"] = {"app": "late"}
        await r.run_pod(late)
        early = await r.kubectl("top", "pod", "late")
        assert early.code == 1
        assert 'podmetrics.metrics.k8s.io "default/late" not found' in early.err
        early = await r.kubectl("top", "pods", "-l", "app=late")
        assert (early.code, early.err) == (1, "error: metrics not available yet\n")
        async with asyncio.timeout(2 * INTERVAL_S + 10):
            while (await r.kubectl("top", "pods", "-l", "app=late")).code:
                await asyncio.sleep(1)

        # numbers of whoever may not see them stay hidden
        refused = await r.kubectl("top", "pods", "--as=somebody")
        assert refused.code == 1
        assert 'cannot list resource "pods" in API group "metrics.k8s.io"' in refused.err

    async def scene() -> None:
        async with rig(tmp_path, containerd) as stage:
            await story(stage)

    asyncio.run(scene())
