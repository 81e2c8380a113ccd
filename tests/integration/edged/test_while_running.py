"""What is asked of a pod that runs already: a look inside, other resources; and pods that wait or are forbidden here."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgecore.edged import cgroups, spec
from edgecore.edged.runtime import ContainerState
from tests.integration.edged.bench import CGROUP_ROOT, Bench, container, pod
from tests.integration.edged.machine import PAUSE, Containerd
from tests.integration.edged.test_faults import on_containerd, on_fake


@pytest.mark.root
def test_a_resize_waits_until_others_leave_room(tmp_path: Path, containerd: Containerd) -> None:
    cpus = os.cpu_count() or 1

    def sized(name: str, cpu: str) -> dict[str, Any]:
        return pod(name, container(resources={"requests": {"cpu": cpu, "memory": "16Mi"}}))

    def pending(b: Bench, uid: str) -> tuple[str, str]:
        found = b.reports.statuses[uid].get("conditions", [])
        return next(((c["reason"], c["message"]) for c in found if c["type"] == "PodResizePending"), ("", ""))

    async def story(b: Bench) -> None:
        other = sized("other", f"{cpus * 1000 - 500}m")
        async with b.edged():
            uids = [b.want(other), b.want(sized("small", "100m"))]
            for uid in uids:
                await b.running(uid)
            before = await b.container_id(uid)
            b.want(sized("small", "600m"))
            await b.until(lambda: pending(b, uid)[0] == "Deferred", "told that it waits")
            assert pending(b, uid)[1].startswith("Node didn't have enough resource: cpu, requested: 600, ")
            assert b.container(uid)["allocatedResources"]["cpu"] == "100m"
            assert "102" in shares(uid) or "4" in shares(uid), shares(uid)
        async with b.edged():
            # the next agent knows what was granted
            await asyncio.sleep(1)
            assert pending(b, uid)[0] == "Deferred"
            assert b.container(uid)["allocatedResources"]["cpu"] == "100m"
            b.want(sized("third", "300m"))
            await b.running("uid-third")
            b.delete(other)
            await b.until(lambda: pending(b, uid)[0] == "", "room")
            assert b.container(uid)["resources"]["requests"]["cpu"] == "600m"
            assert "614" in shares(uid) or "24" in shares(uid), shares(uid)
            assert await b.container_id(uid) == before
            b.want(sized("small", f"{cpus + 1}"))
            await b.until(lambda: pending(b, uid)[0] == "Infeasible", "told that it never can be")
            # an update takes it back
            b.want(sized("small", "600m"))
            await b.until(lambda: pending(b, uid)[0] == "", "no wish left")

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_memory_is_not_taken_below_what_is_used(tmp_path: Path, containerd: Containerd) -> None:
    def sized(memory: str) -> dict[str, Any]:
        eats = [
            "sh",
            "-c",
            "trap 'exit 0' TERM; dd if=/dev/zero of=/dev/shm/x bs=1M count=24; sleep 1000 & wait",
        ]
        return pod("eater", container(command=eats, resources={"limits": {"cpu": "100m", "memory": memory}}))

    def progress(b: Bench, uid: str) -> dict[str, Any]:
        found = b.reports.statuses[uid].get("conditions", [])
        return next((c for c in found if c["type"] == "PodResizeInProgress"), {})

    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(sized("48Mi"))
            await b.running(uid)
            before = await b.container_id(uid)
            await b.until(lambda: used_memory(uid) > 24 * 2**20, "eaten")
            b.want(sized("16Mi"))
            await b.until(lambda: progress(b, uid).get("reason") == "Error", "told that it cannot be done")
            assert "below current usage" in progress(b, uid)["message"]
            assert b.container(uid)["resources"]["limits"]["memory"] == "48Mi"
            b.want(sized("40Mi"))
            await b.until(lambda: not progress(b, uid), "done")
            assert str(40 * 2**20) in limits(uid).values()
            assert await b.container_id(uid) == before

    on_containerd(tmp_path, containerd, story)


def _values(uid: str, *names: str) -> list[str]:
    """What files of the pod's only container in its cgroup say, of version 1 or 2."""
    return [
        file.read_text().strip()
        for h in cgroups.hierarchies()
        for name in names
        for file in h.glob(f"{CGROUP_ROOT}/**/pod{uid}/*/{name}")
    ]


def shares(uid: str) -> list[str]:
    return _values(uid, "cpu.shares", "cpu.weight")


def used_memory(uid: str) -> int:
    return max((int(v) for v in _values(uid, "memory.usage_in_bytes", "memory.current")), default=0)


def ephemeral(b: Bench, uid: str, name: str) -> dict[str, Any]:
    return b.container(uid, name, "ephemeralContainerStatuses")


@pytest.mark.root
def test_an_ephemeral_container_looks_at_its_target_and_is_not_started_twice(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        p = pod("web", container(command=["sh", "-c", "trap 'exit 0' TERM; sleep 4321 & wait"]))
        async with b.edged():
            uid = b.want(p)
            await b.running(uid)
            before = await b.container_id(uid)
            look = {**container("debug", ["sh", "-c", "ps; sleep 1"]), "targetContainerName": "c"}
            other = container("other", ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"])
            debugged = {**p, "spec": {**p["spec"], "ephemeralContainers": [look, other]}}
            b.want(debugged)
            await b.until(lambda: ephemeral(b, uid, "debug").get("state", {}).get("terminated"), "looked")
            await b.until(lambda: ephemeral(b, uid, "other").get("state", {}).get("running"), "running")
            text = (b.config.log_dir / f"default_web_{uid}" / "debug" / "0.log").read_text()
            assert "sleep 4321" in text
            assert b.ready(uid)
            assert await b.container_id(uid) == before
        async with b.edged():
            await asyncio.sleep(1)
            found = [c for c in await b.containers(uid) if c.name == "debug"]
            assert len(found) == 1
            assert found[0].state is ContainerState.EXITED
            b.delete(debugged)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert await b.containers(uid) == []

    on_containerd(tmp_path, containerd, story)


def limits(uid: str) -> dict[str, str]:
    """The values of the pod's only container in its cgroup (v1), or of v2 under the same names."""
    found = {}
    for h in cgroups.hierarchies():
        for name in ("memory.limit_in_bytes", "cpu.cfs_quota_us", "memory.max", "cpu.max"):
            for file in h.glob(f"{CGROUP_ROOT}/pod{uid}/*/{name}"):
                found[f"{file.parent.name[:12]}/{name}"] = file.read_text().strip()
    return found


@pytest.mark.root
def of_pods(b: Bench) -> int:
    """How many events of pods there were; the agent's own start is one of the node."""
    return sum(event["involvedObject"]["kind"] == "Pod" for event in b.reports.events)


def test_resources_change_in_place(tmp_path: Path, containerd: Containerd) -> None:
    def sized(cpu: str, memory: str, **fields: Any) -> dict[str, Any]:
        return pod("sized", container(resources={"limits": {"cpu": cpu, "memory": memory}}, **fields))

    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(sized("100m", "32Mi"))
            await b.running(uid)
            before = await b.container_id(uid)
            assert str(32 * 2**20) in limits(uid).values()
            b.want(sized("200m", "64Mi"))
            await b.until(lambda: "ResizeCompleted" in b.reports.reasons(), "resized")
            assert str(64 * 2**20) in limits(uid).values()
            assert {"20000", "20000 100000"} & set(limits(uid).values())
            await b.until(
                lambda: b.container(uid).get("resources", {}).get("limits", {}).get("memory") == "64Mi",
                "told",
            )
            b.want(sized("50m", "32Mi"))
            await b.until(lambda: str(32 * 2**20) in limits(uid).values(), "shrunk")
            await b.until(
                lambda: b.container(uid).get("resources", {}).get("limits", {}).get("memory") == "32Mi",
                "told of the second change",
            )
            assert await b.container_id(uid) == before
            events = of_pods(b)
        async with b.edged():
            # the next agent knows what was applied
            await asyncio.sleep(1)
            assert await b.container_id(uid) == before
            assert of_pods(b) == events
            restart = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
            b.want(sized("50m", "48Mi", resizePolicy=restart))
            await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "restarted")
            assert str(48 * 2**20) in limits(uid).values()

    on_containerd(tmp_path, containerd, story)


def test_no_container_starts_again_when_an_agent_takes_what_a_pod_says_as_a_whole_that_did_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    whole = pod("whole", container(resizePolicy=restart), resources={"limits": {"memory": "64Mi"}})

    async def story(b: Bench) -> None:
        with monkeypatch.context() as older:
            older.setattr(spec, "whole_limits", lambda _pod: {})
            async with b.edged():
                uid = b.want(whole)
                await b.running(uid)
                before = await b.container_id(uid)
        async with b.edged():
            await b.until(lambda: "ResizeCompleted" in b.reports.reasons(), "given what its pod may use")
            assert await b.container_id(uid) == before
            assert b.container(uid)["restartCount"] == 0

    on_fake(tmp_path, story)


def test_a_pod_on_hold_waits_to_be_let_go(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        p = pod("held")
        p["metadata"]["annotations"]["edge.kubeedge.io/hold-upgrade"] = "true"

        def held() -> str:
            return next(
                (c["status"] for c in b.status(uid).get("conditions", []) if c["type"] == "HeldUpgrade"), ""
            )

        async with b.edged() as agent:
            uid = b.want(p)
            await b.until(lambda: held() == "True", "held")
            assert b.status(uid)["phase"] == "Pending"
        async with b.edged() as agent:
            await b.until(lambda: agent.find("default", "held") is not None, "known")
            b.poke(uid)
            await asyncio.sleep(0.5)
            assert await b.containers(uid) == []
            assert not agent.unhold("default", "nobody")
            assert agent.unhold("default", "held")
            await b.running(uid)
            assert held() == "False"
            assert not agent.unhold("default", "held")
        assert b.fake is not None
        await b.fake.lose_everything()
        async with b.edged():
            # it was let go once: a reboot does not hold it again
            await b.until(lambda: b.container(uid).get("restartCount") == 1 and b.ready(uid), "back")

    on_fake(tmp_path, story)


def test_this_machine_forbids_what_its_owner_says(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        file = tmp_path / "policy.json"
        b.config = replace(b.config, policy_file=file)
        forbidden = pod("host", container(), hostNetwork=True)
        # the cloud may say what it likes
        forbidden["status"] = {"startTime": "2026-01-01T00:00:00Z", "phase": "Running"}
        async with b.edged():
            plain = b.want(pod("plain"))
            await asyncio.sleep(0.5)
            assert await b.containers(plain) == [], "a policy that cannot be read lets nobody in"
            file.write_text(json.dumps({"allowHostNetwork": False, "allowPrivileged": False}))
            b.poke(plain)
            await b.running(plain)
            uid = b.want(forbidden)
            await b.until(lambda: b.status(uid).get("reason") == "ForbiddenByNodePolicy", "refused")
            assert await b.containers(uid) == []
            debug = {**container("debug"), "securityContext": {"privileged": True}}
            p = pod("plain")
            b.want({**p, "spec": {**p["spec"], "ephemeralContainers": [debug]}})
            await b.until(
                lambda: (
                    ephemeral(b, plain, "debug").get("state", {}).get("waiting", {}).get("reason")
                    == "ForbiddenByNodePolicy"
                ),
                "refused",
            )
            assert b.ready(plain)

    on_fake(tmp_path, story)


def test_a_runtime_class_is_looked_up_and_waited_for(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged():
            uid = b.want(pod("crun", runtimeClassName="fast"))
            await b.until(lambda: "FailedCreatePodSandBox" in b.reports.reasons(), "missing")
            b.objects.store["runtimeclass", "", "fast"] = json.dumps(
                {"apiVersion": "node.k8s.io/v1", "metadata": {"name": "fast"}, "handler": "crun"}
            ).encode()
            b.poke(uid)
            await b.running(uid)
            assert b.fake.handlers == ["crun"]

    on_fake(tmp_path, story)


@pytest.mark.root
@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_another_image_is_started_whatever_the_policy_is(
    tmp_path: Path, containerd: Containerd, policy: str
) -> None:
    once = pod("once", container(), restartPolicy=policy)
    changed = pod("once", container(image=PAUSE), restartPolicy=policy)

    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(once)
            await b.running(uid)
            b.want(changed)
            await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "another one")
            assert {s["phase"] for u, s in b.reports.history if u == uid} <= {"Pending", "Running"}

    on_containerd(tmp_path, containerd, story)
