"""A pod as streams see it, from what its judge knows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from edgecore.edged.errors import CriError
from edgecore.edged.pod import Pod, PodStatus
from edgecore.edged.podread import decode_pod
from edgecore.edged.runtime import (
    ContainerState,
    ContainerStatus,
    InterfaceUsage,
    PodRuntime,
    SandboxStatus,
    SandboxUsage,
)
from edgecore.edgestream.edged import EdgedRuntime, view


@dataclass
class Judge:
    pod: Pod
    status: PodStatus
    runtime: PodRuntime
    raw: bytes = b"{}"
    log_root: str = "/logs"


def judge(runtime: PodRuntime, **status: Any) -> Judge:
    body = {
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-1"},
        "spec": {
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "c", "image": "x", "tty": True, "stdin": True}],
        },
    }
    return Judge(decode_pod(msgspec.json.encode(body)), msgspec.convert(status, PodStatus), runtime)


def container(number: int, name: str, state: ContainerState) -> ContainerStatus:
    return ContainerStatus(
        id=f"{name}-{number}",
        name=name,
        attempt=number,
        state=state,
        created_at=1.0,
        log_path=f"/logs/{name}/{number}.log",
    )


def sandbox(*, ready: bool) -> SandboxStatus:
    return SandboxStatus(
        id="s-1", name="web", namespace="default", uid="uid-1", attempt=0, ready=ready, created_at=1.0
    )


def test_instances_are_newest_first_and_created_ones_do_not_count() -> None:
    runtime = PodRuntime(
        sandboxes=(sandbox(ready=True),),
        containers=(
            container(2, "c", ContainerState.CREATED),
            container(1, "c", ContainerState.RUNNING),
            container(0, "c", ContainerState.EXITED),
            container(0, "debugger", ContainerState.RUNNING),
        ),
    )
    found = view(judge(runtime))
    assert (found.sandbox, found.log_root, [c.name for c in found.containers]) == (
        "s-1",
        "/logs",
        ["i", "c", "debugger"],
    )
    main = found.container("c")
    assert main is not None
    assert (main.tty, main.stdin) == (True, True)
    assert [(i.id, i.running, i.log) for i in main.instances] == [
        ("c-1", True, "/logs/c/1.log"),
        ("c-0", False, "/logs/c/0.log"),
    ]
    assert found.container("x") is None


def test_a_sandbox_that_is_not_ready_takes_no_port_forward() -> None:
    assert view(judge(PodRuntime(sandboxes=(sandbox(ready=False),)))).sandbox == ""
    assert view(judge(PodRuntime())).sandbox == ""


def test_why_a_container_waits_is_known() -> None:
    rows = [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    found = view(judge(PodRuntime(), containerStatuses=rows)).container("c")
    assert found is not None
    assert (found.waiting, found.instances) == ("ImagePullBackOff", ())


def test_a_sandbox_that_ends_meanwhile_spoils_nothing_about_the_others() -> None:
    ready = judge(PodRuntime(sandboxes=(sandbox(ready=True),)))
    other = judge(PodRuntime(sandboxes=(replace(sandbox(ready=True), id="s-2"),)))
    ended = judge(PodRuntime(sandboxes=(sandbox(ready=False),)))
    judges = {"a": ready, "b": other, "c": ended}

    class Edged:
        async def running_pods(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(uid=uid) for uid in [*judges, "unknown"]]

        def worker(self, uid: str) -> Judge | None:
            return judges.get(uid)

    class Runtime:
        async def sandbox_usage(self, sandbox_id: str) -> SandboxUsage:
            if sandbox_id == "s-2":
                raise CriError("no running task found", retryable=True, code="NOT_FOUND")
            return SandboxUsage(timestamp=7.0, interfaces=(InterfaceUsage(name="eth0", rx_bytes=3),))

    runtime = EdgedRuntime(cast("Any", Edged()), cast("Any", Runtime()), node="edge-1")
    (found,) = asyncio.run(runtime._sandboxes())
    assert (found.id, found.uid, found.at, found.interfaces[0].rx_bytes) == ("s-1", "uid-1", 7.0, 3)
