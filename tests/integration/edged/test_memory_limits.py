"""A kernel without its memory controller: pods with limits run all the same, and it is said what is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edgecore.edged import cgroups, node
from tests.integration.edged.bench import container, pod, stage


@pytest.mark.parametrize("kind", ["fake", pytest.param("containerd", marks=pytest.mark.root)])
def test_limits_that_cannot_be_kept_are_left_out_and_said(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None
    monkeypatch.setattr(cgroups, "limits_memory", lambda: False)

    async def main() -> None:
        async with stage(kind, tmp_path, machine) as b, b.edged() as agent:
            limited = container(resources={"limits": {"memory": "64Mi", "cpu": "1"}})
            uid = b.want(pod("limited", limited))
            free = b.want(pod("free"))
            await b.running(uid)
            await b.running(free)
            status = await b.cri.container_status(await b.container_id(uid))
            assert json.loads(status.annotations["skerry.dev/resources"])["memory_limit_bytes"] == 0
            told = [e for e in b.reports.events if e["reason"] == "MemoryLimitIgnored"]
            assert [e["involvedObject"]["name"] for e in told] == ["limited"]
            assert "cgroup_enable=memory" in told[0]["message"]
            conditions = json.loads(await agent.node_status())["conditions"]
            assert [c["status"] for c in conditions if c["type"] == node.IGNORED] == ["True"]

    asyncio.run(main())
