"""A container runtime in memory with the methods of edgecore.edged.cri.Cri.

It knows a few programs (see `_Program` and `exec_sync`), keeps containerd's rules that matter to edged (a name and attempt is
reserved while it exists, removing a sandbox removes its containers), and counts what must never happen in `violations`.  The
contract tests in tests/integration/edged run against it and against containerd.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from edgecore.edged.errors import CriError, NotFound
from edgecore.edged.runtime import (
    LABEL_POD_UID,
    ContainerConfig,
    ContainerInfo,
    ContainerState,
    ContainerStatus,
    ContainerUsage,
    ExecResult,
    Image,
    ImageAuth,
    Resources,
    RuntimeConditions,
    RuntimeSetup,
    RuntimeVersion,
    SandboxConfig,
    SandboxInfo,
    SandboxStatus,
    SandboxUsage,
)

_SCRIPT = re.compile(
    r"(?:echo (?P<said>\w+) > (?P<file>\S+); )?(?:sleep (?P<s>[\d.]+); )?exit (?P<code>\d+)\Z"
)


@dataclass
class _Sandbox:
    status: SandboxStatus
    config: SandboxConfig


@dataclass
class _Container:
    status: ContainerStatus
    config: ContainerConfig
    sandbox_id: str
    timer: asyncio.TimerHandle | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class _Program:
    """How a container behaves: ends by itself after `after_s` with `code`, or runs; `obeys`: ends at once on TERM."""

    after_s: float | None
    code: int
    obeys: bool


class FakeCri:
    """Every call may be made to fail or to lie through `faults`: method name -> what to raise, or a coroutine to run first."""

    def __init__(self, images: tuple[str, ...] = ()) -> None:
        self.images = {ref: Image(id="sha256:" + ref, tags=(ref,), size_bytes=1000) for ref in images}
        self.registry: dict[str, Image] = {}
        self.faults: dict[str, list[Exception | Callable[[], Awaitable[None]]]] = {}
        self.image_dir = ""
        # whether a program that the fake does not know is one that is not there
        self.any_exec = False
        self.handlers: list[str] = []
        self.sandbox_image = "fake/pause:1"
        self.away = False
        self.empty_lists = 0
        self.calls: list[str] = []
        self.violations: list[str] = []
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._number = 0

    def close(self) -> None:
        """Nothing is connected."""

    async def _enter(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.away:
            raise CriError(f"cannot {name}: runtime is away", retryable=True, code="UNAVAILABLE")
        queue = self.faults.get(name)
        if queue:
            fault = queue.pop(0)
            if isinstance(fault, Exception):
                raise fault
            await fault()

    def made(self, container_id: str) -> ContainerConfig:
        """What a container was made of."""
        return self._containers[container_id].config

    def _id(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number:04d}"

    async def version(self) -> RuntimeVersion:
        await self._enter("version")
        return RuntimeVersion(name="fake", version="1", api_version="v1")

    async def conditions(self) -> RuntimeConditions:
        await self._enter("conditions")
        return RuntimeConditions(
            runtime_ready=True, runtime_message="", network_ready=True, network_message=""
        )

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig, *, handler: str = "") -> str:
        await self._enter("run_sandbox")
        for s in self._sandboxes.values():
            if (s.config.uid, s.config.attempt) == (config.uid, config.attempt):
                raise CriError("name is reserved", retryable=True, code="UNKNOWN")
            if s.config.uid == config.uid and s.status.ready:
                self.violations.append(f"second sandbox for {config.uid}")
        self.handlers.append(handler)
        sandbox_id = self._id("s")
        host = config.namespaces.host_network
        self._sandboxes[sandbox_id] = _Sandbox(
            SandboxStatus(
                id=sandbox_id,
                name=config.name,
                namespace=config.namespace,
                uid=config.uid,
                attempt=config.attempt,
                ready=True,
                created_at=time.time(),
                labels=dict(config.labels),
                annotations=dict(config.annotations),
                ips=() if host else (f"10.0.0.{self._number % 250 + 2}",),
                host_network=host,
            ),
            config,
        )
        return sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._enter("stop_sandbox")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for c in self._containers.values():
            if c.sandbox_id == sandbox_id and c.status.state is ContainerState.RUNNING:
                self._end(c, 137)
        sandbox.status = replace(sandbox.status, ready=False, ips=())

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        self._sandboxes.pop(sandbox_id, None)
        for cid in [cid for cid, c in self._containers.items() if c.sandbox_id == sandbox_id]:
            del self._containers[cid]

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        await self._enter("sandbox_status")
        if sandbox_id not in self._sandboxes:
            raise NotFound(f"no sandbox {sandbox_id}")
        return self._sandboxes[sandbox_id].status

    async def list_sandboxes(self, *, uid: str = "") -> list[SandboxInfo]:
        await self._enter("list_sandboxes")
        if self.empty_lists:
            self.empty_lists -= 1
            return []
        return [
            SandboxInfo(
                id=s.status.id,
                name=s.status.name,
                namespace=s.status.namespace,
                uid=s.status.uid,
                attempt=s.status.attempt,
                ready=s.status.ready,
                created_at=s.status.created_at,
                labels=s.status.labels,
            )
            for s in self._sandboxes.values()
            if not uid or s.status.labels.get(LABEL_POD_UID) == uid
        ]

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        await self._enter("create_container")
        if sandbox_id not in self._sandboxes:
            raise NotFound(f"no sandbox {sandbox_id}")
        uid = config.labels[LABEL_POD_UID]
        for c in self._containers.values():
            if c.config.labels[LABEL_POD_UID] == uid and (c.config.name, c.config.attempt) == (
                config.name,
                config.attempt,
            ):
                raise CriError("name is reserved", retryable=True, code="UNKNOWN")
        missing = [
            m.host_path
            for m in config.mounts
            if not m.image and not os.path.exists(m.host_path)  # noqa: ASYNC240
        ]
        if missing:
            raise CriError(f"no such path {missing[0]}", retryable=True, code="UNKNOWN")
        container_id = self._id("c")
        self._containers[container_id] = _Container(
            ContainerStatus(
                id=container_id,
                name=config.name,
                attempt=config.attempt,
                state=ContainerState.CREATED,
                created_at=time.time(),
                image=config.user_image,
                image_ref=config.image,
                labels=dict(config.labels),
                annotations=dict(config.annotations),
                log_path=f"{sandbox.log_directory}/{config.log_path}",
                mounts=config.mounts,
            ),
            config,
            sandbox_id,
        )
        return container_id

    async def start_container(self, container_id: str) -> None:
        await self._enter("start_container")
        c = self._get(container_id)
        program = _program(c)
        for other in self._containers.values():
            same = (other.config.name, other.config.labels[LABEL_POD_UID]) == (
                c.config.name,
                c.config.labels[LABEL_POD_UID],
            )
            if same and other.status.state is ContainerState.RUNNING:
                self.violations.append(f"second container {c.config.name}")
        c.status = replace(c.status, state=ContainerState.RUNNING, started_at=time.time())
        if program.after_s is not None:
            loop = asyncio.get_running_loop()
            c.timer = loop.call_later(program.after_s, self._end, c, program.code)

    def _end(self, c: _Container, code: int) -> None:
        if c.status.state is not ContainerState.RUNNING:
            return
        if c.timer is not None:
            c.timer.cancel()
        c.status = replace(
            c.status,
            state=ContainerState.EXITED,
            finished_at=time.time(),
            exit_code=code,
            reason="Completed" if code == 0 else "Error",
        )
        c.stopped.set()

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        await self._enter("stop_container")
        c = self._containers.get(container_id)
        if c is None or c.status.state is not ContainerState.RUNNING:
            return
        if _program(c).obeys and timeout_s > 0:
            self._end(c, 0)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await c.stopped.wait()
        except TimeoutError:
            self._end(c, 137)

    async def remove_container(self, container_id: str) -> None:
        await self._enter("remove_container")
        c = self._containers.pop(container_id, None)
        if c is not None:
            self._end(c, 137)

    async def list_containers(self, *, uid: str = "") -> list[ContainerInfo]:
        await self._enter("list_containers")
        if self.empty_lists:
            self.empty_lists -= 1
            return []
        return [
            ContainerInfo(
                id=c.status.id,
                sandbox_id=c.sandbox_id,
                name=c.status.name,
                attempt=c.status.attempt,
                state=c.status.state,
                created_at=c.status.created_at,
                image=c.status.image,
                image_ref=c.status.image_ref,
                labels=c.status.labels,
            )
            for c in self._containers.values()
            if not uid or c.status.labels.get(LABEL_POD_UID) == uid
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        await self._enter("container_status")
        return self._get(container_id).status

    def _get(self, container_id: str) -> _Container:
        if container_id not in self._containers:
            raise NotFound(f"no container {container_id}")
        return self._containers[container_id]

    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult:
        await self._enter("exec_sync")
        c = self._get(container_id)
        if c.status.state is not ContainerState.RUNNING:
            raise CriError("container is not running", retryable=True, code="UNKNOWN")
        match argv:
            case ["true"]:
                return _result(0)
            case ["false"]:
                return _result(1)
            case ["sleep", seconds]:
                if float(seconds) > timeout_s:
                    await asyncio.sleep(timeout_s)
                    raise CriError("timed out", retryable=True, code="DEADLINE_EXCEEDED")
                await asyncio.sleep(float(seconds))
                return _result(0)
            case ["env"]:
                return _result(0, "".join(f"{k}={v}\n" for k, v in c.config.env).encode())
            case ["cat", path]:
                found = _host_path(c.config, path)
                return _result(0, found.read_bytes()) if found and found.exists() else _result(1)
            case ["test", "-e", path]:
                found = _host_path(c.config, path)
                return _result(0 if found is not None and found.exists() else 1)
            case ["touch", path]:
                found = _host_path(c.config, path)
                assert found is not None
                found.touch()
                return _result(0)
            case ["rm", path]:
                found = _host_path(c.config, path)
                assert found is not None
                found.unlink()
                return _result(0)
        if self.any_exec:
            raise CriError(f"exec: {argv}: executable file not found", retryable=True, code="UNKNOWN")
        raise AssertionError(f"the fake does not know {argv}")

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        await self._enter("update_resources")
        c = self._get(container_id)
        c.config = replace(c.config, resources=resources)

    async def reopen_log(self, container_id: str) -> None:
        await self._enter("reopen_log")

    async def list_usage(self) -> list[ContainerUsage]:
        await self._enter("list_usage")
        return []

    async def sandbox_usage(self, sandbox_id: str) -> SandboxUsage:
        await self._enter("sandbox_usage")
        return SandboxUsage(timestamp=0.0)

    # -- images

    async def image_status(self, ref: str) -> Image | None:
        await self._enter("image_status")
        return next((i for i in self.images.values() if ref in (i.id, *i.tags, *i.digests)), None)

    async def list_images(self) -> list[Image]:
        await self._enter("list_images")
        return list(self.images.values())

    async def setup(self) -> RuntimeSetup:
        await self._enter("setup")
        return RuntimeSetup(sandbox_image=self.sandbox_image)

    async def image_paths(self) -> list[str]:
        await self._enter("image_paths")
        return [self.image_dir] if self.image_dir else []

    async def remove_image(self, ref: str) -> None:
        await self._enter("remove_image")
        for name in [n for n, i in self.images.items() if ref in (i.id, *i.tags, *i.digests)]:
            del self.images[name]

    async def pull_image(self, ref: str, auth: ImageAuth | None, sandbox: SandboxConfig | None) -> str:
        await self._enter("pull_image")
        if ref not in self.registry:
            raise CriError(f"failed to pull {ref}", retryable=True, code="UNKNOWN")
        self.images[ref] = self.registry[ref]
        return self.registry[ref].id

    # -- what a test does behind edged's back

    def crash(self, name: str, code: int = 1) -> None:
        """A running container of that name ends."""
        for c in self._containers.values():
            if c.config.name == name and c.status.state is ContainerState.RUNNING:
                self._end(c, code)

    async def lose_everything(self) -> None:
        """What a reboot leaves of pods: nothing."""
        for c in self._containers.values():
            self._end(c, 137)
        self._sandboxes.clear()
        self._containers.clear()


def _result(code: int, out: bytes = b"") -> ExecResult:
    return ExecResult(exit_code=code, stdout=out, stderr=b"")


def _host_path(config: ContainerConfig, path: str) -> Path | None:
    for m in sorted(config.mounts, key=lambda m: -len(m.container_path)):
        if path == m.container_path:
            return Path(m.host_path)
        if path.startswith(m.container_path.rstrip("/") + "/"):
            return Path(m.host_path) / path[len(m.container_path.rstrip("/")) + 1 :]
    return None


def _program(c: _Container) -> _Program:
    argv = [*c.config.command, *c.config.args]
    if argv[:1] == ["sleep"]:
        return _Program(after_s=float(argv[1]), code=0, obeys=False)
    if argv[:2] == ["sh", "-c"]:
        if "trap" in argv[2]:
            return _Program(after_s=None, code=0, obeys=True)
        match = _SCRIPT.match(argv[2])
        if match is not None:
            if match["file"]:
                path = _host_path(c.config, match["file"])
                if path is not None:
                    path.write_text(match["said"] + "\n")
            return _Program(after_s=float(match["s"] or 0), code=int(match["code"]), obeys=False)
    raise CriError(f"exec: {argv}: no such file", retryable=True, code="UNKNOWN")
