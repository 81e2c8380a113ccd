"""A stage for tests of edged: the runtime (real or fake), the store, and helpers to wait for what should happen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from edgecore.edged import cgroups, tree
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.manager import Edged
from edgecore.edged.mirror import CreatePod
from edgecore.edged.runtime import ContainerInfo, ContainerState
from tests.fakes.cri import FakeCri
from tests.fakes.edged import FakeObjects, FakeReports, FakeState
from tests.integration.edged.machine import IMAGE, Containerd
from tests.integration.edged.wipe import wipe_async

# longer on a machine that only pretends to be one (tests/vm.py)
WAIT_S = float(os.environ.get("SKERRY_WAIT_S", "30"))
# of this process alone: another run on the same machine would remove it under our feet
CGROUP_ROOT = f"skerry-test-{os.getpid()}"
# obeys TERM at once, so that deleting it does not take the grace period
SERVER = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


class SkewClock:
    """The real clocks, the monotonic one plus what a test adds; the wall clock is the one containerd stamps with."""

    def __init__(self) -> None:
        self.skew = 0.0

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() + self.skew


def container(name: str = "c", command: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": command or SERVER,
        **fields,
    }


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "labels": {"app": name},
            "annotations": {"note": 'say "hi"'},
        },
        "spec": {
            "containers": list(containers) or [container()],
            "terminationGracePeriodSeconds": 2,
            **spec,
        },
    }


class Bench:
    """One runtime and one store; `edged()` runs an agent on them, as often as wanted."""

    def __init__(self, tmp: Path, cri: Cri | FakeCri) -> None:
        self.cri = cri
        self.fake = cri if isinstance(cri, FakeCri) else None
        self.objects = FakeObjects()
        self.reports = FakeReports()
        self.state = FakeState()
        self.clock = SkewClock()
        self.config = EdgedConfig(
            root_dir=tmp / "pods",
            log_dir=tmp / "logs",
            cgroup_root=CGROUP_ROOT,
            node_ip="127.0.0.1",
            relist_s=0.2,
        )
        self.agent: Edged | None = None
        # None: there is no API that takes mirror pods
        self.create_pod: CreatePod | None = None

    @contextlib.asynccontextmanager
    async def edged(self) -> AsyncIterator[Edged]:
        """An agent, cancelled at the end of the block; pods are left running."""
        agent = Edged(
            config=self.config,
            node_name="edge-1",
            objects=self.objects,
            reports=self.reports,
            state=self.state,
            clock=self.clock,
            cri=self.cri,  # type: ignore[arg-type]  # the fake has the same methods
            create_pod=self.create_pod,
        )
        self.agent = agent
        task = asyncio.get_running_loop().create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.agent = None

    def want(self, obj: dict[str, Any]) -> str:
        """Wish for a pod; returns its UID."""
        self.objects.want(obj)
        if self.agent is not None:
            self.agent.notify("pod", obj["metadata"]["namespace"], obj["metadata"]["name"])
        return str(obj["metadata"]["uid"])

    def put(self, kind: str, name: str, **fields: Any) -> None:
        self.objects.put(kind, {"metadata": {"name": name, "namespace": "default"}, **fields})
        if self.agent is not None:
            self.agent.notify(kind, "default", name)

    def delete(self, obj: dict[str, Any], grace_s: int = 2) -> str:
        """As the API server marks a pod when it is deleted."""
        meta = {
            **obj["metadata"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": grace_s,
        }
        return self.want({**obj, "metadata": meta})

    def unwant(self, uid: str) -> None:
        del self.objects.wanted[uid]
        if self.agent is not None:
            self.agent.notify("pod", "", "")

    async def until(self, check: Callable[[], object], what: str = "", wait_s: float = WAIT_S) -> None:
        """Wait until `check` holds; it is looked at after each report and every 50 ms."""
        try:
            async with asyncio.timeout(wait_s):
                while not check():
                    self.reports.changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await self.reports.changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not happen: {what}; {self.reports.statuses}") from None

    def status(self, uid: str) -> dict[str, Any]:
        return self.reports.statuses.get(uid, {})

    def container(self, uid: str, name: str = "c", key: str = "containerStatuses") -> dict[str, Any]:
        return next((s for s in self.status(uid).get(key, []) if s["name"] == name), {})

    def ready(self, uid: str) -> bool:
        return any(
            c["type"] == "Ready" and c["status"] == "True" for c in self.status(uid).get("conditions", [])
        )

    async def running(self, uid: str) -> None:
        await self.until(lambda: self.status(uid).get("phase") == "Running", f"{uid} Running")

    async def containers(self, uid: str) -> list[ContainerInfo]:
        return await self.cri.list_containers(uid=uid)

    async def container_id(self, uid: str, name: str = "c") -> str:
        """The one running container of that name."""
        found = [
            c for c in await self.containers(uid) if c.name == name and c.state is ContainerState.RUNNING
        ]
        assert len(found) == 1, found
        return found[0].id

    async def exec(self, uid: str, *argv: str, name: str = "c") -> tuple[int, str]:
        result = await self.cri.exec_sync(await self.container_id(uid, name), list(argv), 10)
        return result.exit_code, result.stdout.decode()

    async def env(self, uid: str) -> dict[str, str]:
        """The environment of a program that is run in the container."""
        _, text = await self.exec(uid, "env")
        return dict(line.split("=", 1) for line in text.splitlines())

    def poke(self, uid: str) -> None:
        assert self.agent is not None
        worker = self.agent.worker(uid)
        assert worker is not None
        worker.poke()


@contextlib.asynccontextmanager
async def stage(kind: str, tmp: Path, machine: Containerd | None) -> AsyncIterator[Bench]:
    """A bench on "fake" or "containerd"; afterwards no pod, folder, mount or cgroup is left."""
    cri: Cri | FakeCri
    cri = FakeCri((IMAGE,)) if machine is None else Cri(str(machine.socket))
    try:
        yield Bench(tmp, cri)
        if isinstance(cri, FakeCri):
            assert cri.violations == []
    finally:
        if isinstance(cri, Cri):
            await wipe_async(cri)
        cri.close()
        for point in tree.mounts_below(tmp / "pods"):
            tree.unmount(point)
        cgroups.remove_root(CGROUP_ROOT)
