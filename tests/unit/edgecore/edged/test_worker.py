"""One pod, when something around it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from beehive.errors import Unavailable
from edgecore.edged.config import EdgedConfig
from edgecore.edged.podworker import Life
from edgecore.edged.runtime import ContainerInfo, ContainerStatus, SandboxInfo
from edgecore.edged.status import Outcome
from edgecore.edged.worker import Worker
from tests.unit.edgecore.edged.builders import EXITED, make, ran, raw


class _Runtime:
    """A runtime with one container, as far as ending it goes."""

    def __init__(self, status: ContainerStatus) -> None:
        self.containers = {status.id: status}

    async def list_sandboxes(self, *, uid: str) -> list[SandboxInfo]:
        del uid
        return []

    async def list_containers(self, *, uid: str) -> list[ContainerInfo]:
        del uid
        return [
            ContainerInfo(
                id=c.id, sandbox_id="", name=c.name, attempt=0, state=c.state, created_at=c.created_at
            )
            for c in self.containers.values()
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self.containers[container_id]

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        del timeout_s
        self.containers[container_id] = replace(self.containers[container_id], state=EXITED)

    async def remove_container(self, container_id: str) -> None:
        del self.containers[container_id]


class _FullDisk:
    """A store that takes nothing."""

    async def load(self, key: str) -> bytes | None:
        del key
        return None

    async def save(self, key: str, value: bytes) -> None:
        del key, value
        raise Unavailable("the disk is full")

    async def event(self, event: bytes) -> None:
        del event
        raise Unavailable("the disk is full")

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        del namespace, name, uid, status
        raise Unavailable("the disk is full")


def test_a_full_disk_does_not_keep_a_pod_from_being_ended_to_free_it(tmp_path: Path) -> None:
    pod = make()
    runtime = _Runtime(ran(pod))
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    held = config.root_dir / pod.uid / "volumes" / "big"
    held.mkdir(parents=True)
    clock = SimpleNamespace(now=lambda: 1000.0, monotonic=lambda: 1000.0)
    shared: Any = SimpleNamespace(
        config=config,
        node_name="edge-1",
        node=SimpleNamespace(ips=("10.0.0.1",)),
        cri=runtime,
        reports=_FullDisk(),
        state=_FullDisk(),
        clock=clock,
    )

    async def end() -> Worker:
        worker = Worker(shared, pod, raw())
        worker.evict(Outcome(phase="Failed", reason="Evicted", message="disk"), grace_s=1)
        async with asyncio.TaskGroup() as group:
            await worker._pass(group)
        return worker

    worker = asyncio.run(end())
    assert worker.machine.life is Life.TERMINATED
    assert runtime.containers == {}
    assert not held.exists()
