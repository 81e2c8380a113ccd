"""The machine goes down: pods end in order, and those that a power cut would not end come back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged.shutdown import periods
from tests.integration.edged.bench import Bench, container, pod, stage


@pytest.mark.parametrize("kind", ["fake", pytest.param("containerd", marks=pytest.mark.root)])
def test_pods_end_with_the_machine_and_return(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None

    async def main() -> None:
        async with stage(kind, tmp_path, machine) as b:
            b.config = replace(b.config, shutdown=periods(120, 60))
            pods = {
                "web": pod("web"),
                "critical": pod("critical", priority=2_000_000_000),
                # its container ends well, so only who knows why can tell that its work is not done
                "job": pod("job", restartPolicy="OnFailure"),
                "once": pod("once", restartPolicy="Never"),
            }
            async with b.edged() as agent:
                uids = {name: b.want(p) for name, p in pods.items()}
                for uid in uids.values():
                    await b.running(uid)
                done = b.want(pod("done", container(command=["sh", "-c", "exit 0"]), restartPolicy="Never"))
                await b.until(lambda: b.status(done).get("phase") == "Succeeded", "done")
                looks: list[bool] = []
                agent.on_node_change.append(lambda: looks.append(True))
                await agent.shut_down()
                assert looks, "the node's status is told at once"
                for uid in uids.values():
                    assert not [s for s in await b.cri.list_sandboxes(uid=uid) if s.ready]
                killed = [e["involvedObject"]["name"] for e in b.reports.events if e["reason"] == "Killing"]
                assert killed[-1] == "critical"
                assert sorted(killed) == ["critical", "job", "once", "web"]
                late = b.want(pod("late"))
                await asyncio.sleep(0.5)
                assert await b.cri.list_sandboxes(uid=late) == []
                await _as_told(b, uids, done)
                assert b.reports.reasons("Node")[0] == "Starting"
            # the next boot, without a cloud
            b.state.rows["node/boot"] = b"another"
            b.objects.offline = True
            async with b.edged():
                for name in ("web", "critical", "job"):
                    await b.until(lambda uid=uids[name]: b.ready(uid), f"{name} is back")  # type: ignore[misc]
                    assert b.container(uids[name])["restartCount"] == 1
                await b.running(late)
                assert b.container(late)["restartCount"] == 0
                last = b.container(uids["job"])["lastState"]["terminated"]
                assert (last["exitCode"], last["reason"]) == (137, "NodeShutdown")
                assert b.status(uids["once"])["phase"] == "Failed"
                assert b.status(done)["phase"] == "Succeeded"
                assert "Rebooted" in b.reports.reasons("Node")
                assert not [s for s in await b.cri.list_sandboxes(uid=uids["once"]) if s.ready]

    asyncio.run(main())


async def _as_told(b: Bench, uids: dict[str, str], done: str) -> None:
    """What the cloud is told of a machine that went down."""
    for name in ("web", "critical", "job"):
        status = b.status(uids[name])
        assert status["phase"] == "Running", "it comes back"
        assert not b.ready(uids[name])
        assert b.container(uids[name])["state"]["terminated"]["reason"] in ("NodeShutdown", "Error")
    once = b.status(uids["once"])
    assert (once["phase"], once["reason"]) == ("Failed", "Terminated")
    assert once["message"] == "Pod was terminated in response to imminent node shutdown."
    assert any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in once["conditions"])
    assert b.status(done)["phase"] == "Succeeded"
    assert b.agent is not None
    node = await b.agent.node_status()
    assert b'"message":"node is shutting down"' in node
