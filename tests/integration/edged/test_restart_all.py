"""A container whose end starts all of its pod anew, in the same sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.edged.bench import container, pod, stage

RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}


@pytest.mark.root
def test_all_containers_start_anew(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    machine = request.getfixturevalue("containerd")
    # the worker ends with 88 in its first life, when the init container has run once
    script = "echo x >> /data/runs; [ $(wc -l < /data/inits) -ge 2 ] || exit 88; trap 'exit 0' TERM; sleep 1000 & wait"
    mounts = [{"name": "data", "mountPath": "/data"}]

    async def main() -> None:
        async with stage("containerd", tmp_path, machine) as b, b.edged():
            uid = b.want(
                pod(
                    "job",
                    container(
                        "worker",
                        ["sh", "-c", script],
                        volumeMounts=mounts,
                        restartPolicy="Never",
                        restartPolicyRules=[RULE],
                    ),
                    container("beside"),
                    initContainers=[
                        container("setup", ["sh", "-c", "echo x >> /data/inits"], volumeMounts=mounts)
                    ],
                    volumes=[{"name": "data", "emptyDir": {}}],
                    restartPolicy="Never",
                )
            )
            await b.until(lambda: b.ready(uid) and b.container(uid, "worker")["restartCount"] == 1, "again")
            assert b.container(uid, "beside")["restartCount"] == 1
            assert b.container(uid, "setup", "initContainerStatuses")["restartCount"] == 1
            assert b.container(uid, "worker")["lastState"]["terminated"]["exitCode"] == 88
            assert len(await b.cri.list_sandboxes(uid=uid)) == 1, "the sandbox stays"
            told = [
                c["status"]
                for _, status in b.reports.history
                for c in status["conditions"]
                if c["type"] == "AllContainersRestarting"
            ]
            assert told[0] == "True"
            assert told[-1] == "False"
            assert "RestartAllContainers" in b.reports.reasons()
            # from here on it is a pod like any other
            first = await b.container_id(uid, "worker")
            await b.cri.stop_container(first, 2)
            await b.until(
                lambda: "terminated" in b.container(uid, "worker").get("state", {}), "ended for good"
            )
            assert b.status(uid)["phase"] == "Running"

    asyncio.run(main())
