"""A second runtime beside runc: what a kubelet's pods can do, they can do under it as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from edgecore.edged import cgroups
from edgecore.edged.podread import decode_pod
from edgecore.edged.spec import cgroup_parent
from tests.fakes.edged import FakeObjects
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.edged.test_faults import on_containerd, on_fake

pytestmark = pytest.mark.root


def runtime_class(b: Bench, name: str, handler: str) -> None:
    b.objects.store["runtimeclass", "", name] = json.dumps(
        {"apiVersion": "node.k8s.io/v1", "metadata": {"name": name}, "handler": handler}
    ).encode()


def written(b: Bench, raw: dict[str, object], *names: str) -> set[str]:
    """What the files of the pod's cgroup say, of those names that are there."""
    parent = cgroup_parent(b.config, decode_pod(json.dumps(raw).encode())).lstrip("/")
    files = [h / parent / name for h in cgroups.hierarchies() for name in names]
    return {f.read_text().strip() for f in files if f.exists()}


@pytest.mark.skipif(shutil.which("crun") is None, reason="crun is not installed")
def test_pods_run_under_crun(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        runtime_class(b, "crun", "crun")
        sized = {"limits": {"cpu": "500m", "memory": "32Mi"}}
        overhead = {"cpu": "250m", "memory": "16Mi"}
        async with b.edged():
            p = pod("small", container(resources=sized), runtimeClassName="crun", overhead=overhead)
            uid = b.want(p)
            await b.running(uid)
            own = await b.container_id(uid)
            # it is crun that keeps it
            assert (containerd.home / "crun" / "k8s.io" / own).is_dir()
            assert (await b.exec(uid, "sh", "-c", "echo hi; exit 3")) == (3, "hi\n")
            files = {"memory.limit_in_bytes", "memory.max"}
            limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
            assert (await b.exec(uid, "sh", "-c", limit))[1].strip() == str(32 * 2**20)
            # what the runtime itself needs is the pod's, too
            assert written(b, p, *files) == {str(48 * 2**20)}
            assert written(b, p, "cpu.cfs_quota_us", "cpu.max") <= {"75000", "75000 100000"}
            (usage,) = [u for u in await b.cri.list_usage() if u.uid == uid]
            assert usage.memory_bytes > 0
            assert usage.cpu_ns > 0
            more = {"limits": {"cpu": "500m", "memory": "40Mi"}}
            grown = pod("small", container(resources=more), runtimeClassName="crun", overhead=overhead)
            b.want(grown)
            await b.until(lambda: "ResizeCompleted" in b.reports.reasons(), "resized")
            assert (await b.exec(uid, "sh", "-c", limit))[1].strip() == str(40 * 2**20)
            assert await b.container_id(uid) == own
            b.delete(grown)
            await b.until(lambda: uid in b.reports.gone, "gone")

    on_containerd(tmp_path, containerd, story)


@pytest.mark.skipif(shutil.which("crun") is None, reason="crun is not installed")
def test_what_takes_too_much_memory_under_crun_is_told_as_such(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        runtime_class(b, "crun", "crun")
        hog = container(
            command=["sh", "-c", "x=x; while true; do x=$x$x; done"],
            resources={"limits": {"memory": "16Mi"}},
        )
        async with b.edged():
            uid = b.want(pod("hog", hog, runtimeClassName="crun", restartPolicy="Never"))
            await b.until(lambda: b.status(uid).get("phase") == "Failed", "killed")
            ended = b.container(uid)["state"]["terminated"]
            assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

    on_containerd(tmp_path, containerd, story)


@pytest.mark.skipif(not cgroups.unified(), reason="older cgroups end one program of a container")
def test_a_container_out_of_memory_ends_as_a_whole(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        # the first program of it needs little, and would go on
        hog = "sh -c 'x=x; while true; do x=$x$x; done' & trap '' TERM; while true; do sleep 1; done"
        c = container(command=["sh", "-c", hog], resources={"limits": {"memory": "16Mi"}})
        async with b.edged():
            uid = b.want(pod("hog", c, restartPolicy="Never"))
            await b.until(lambda: b.status(uid).get("phase") == "Failed", "killed")
            ended = b.container(uid)["state"]["terminated"]
            assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

    on_containerd(tmp_path, containerd, story)


def test_a_runtime_that_the_machine_has_not_is_named(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        runtime_class(b, "odd", "nowhere")
        async with b.edged():
            uid = b.want(pod("odd", runtimeClassName="odd"))
            plain = b.want(pod("plain"))
            await b.until(lambda: "FailedCreatePodSandBox" in b.reports.reasons(), "told")
            said = [e["message"] for e in b.reports.events if e["reason"] == "FailedCreatePodSandBox"]
            assert "nowhere" in said[0]
            await b.running(plain)
            runtime_class(b, "odd", "runc")
            b.poke(uid)
            await b.running(uid)

    on_containerd(tmp_path, containerd, story)


class Stale(FakeObjects):
    """What was stored first, but to those who ask the cloud."""

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        found = await super().fetch(kind, namespace, name, fresh=fresh)
        return found if fresh or found is None else msgspec.Raw(bytes(found).replace(b"two", b"one"))


def test_a_class_that_was_made_anew_counts_for_the_next_sandbox(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        b.objects = Stale()
        async with b.edged():
            runtime_class(b, "odd", "one")
            uid = b.want(pod("web", runtimeClassName="odd"))
            await b.running(uid)
            runtime_class(b, "odd", "two")
            (first,) = await b.cri.list_sandboxes(uid=uid)
            await b.cri.stop_sandbox(first.id)
            handlers = b.fake.handlers
            await b.until(lambda: len(handlers) == 2, "another sandbox")
            assert handlers == ["one", "two"]

    on_fake(tmp_path, story)
