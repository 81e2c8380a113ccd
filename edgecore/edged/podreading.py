"""Reading what the runtime has of one pod, and believing it.

What was alive in the last reading and is missing from this one is believed only when a second reading agrees: an empty answer
destroys nothing and starts no second sandbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set

from msgspec.structs import replace

from edgecore.edged import adopt, restarts, tree
from edgecore.edged.errors import CriError, NotFound
from edgecore.edged.podcontext import PodContext
from edgecore.edged.runtime import (
    ContainerInfo,
    ContainerState,
    ContainerStatus,
    PodRuntime,
    SandboxInfo,
    SandboxStatus,
)

log = logging.getLogger(__name__)

# A second reading is taken this soon after one that misses something.
DOUBT_S = 0.25
# ... and at the start of an agent a little sooner: each pod of a board that was switched off waits for it.
FIRST_DOUBT_S = 0.14
# The kubelet's limits on a termination message.
MESSAGE_BYTES, MESSAGE_LOG_BYTES, MESSAGE_LOG_LINES = 4096, 2048, 80


Listed = tuple[Sequence[SandboxInfo], Sequence[ContainerInfo]]
"""What the runtime's lists have of one pod."""


class Doubt:
    """Whether a reading is believed that misses what was alive: only when one before it, not just now, missed the same."""

    def __init__(self) -> None:
        self._missing: frozenset[str] = frozenset()
        self._since = 0.0

    def believes(self, missing: Set[str], now: float) -> bool:
        """missing: ids that were alive and are not there.  now: by a clock that only grows."""
        if missing and (missing != self._missing or now - self._since < DOUBT_S / 2):
            if missing != self._missing:
                self._missing, self._since = frozenset(missing), now
            return False
        self._missing = frozenset()
        return True


class PodReader:
    """The runtime's side of one pod."""

    def __init__(self, ctx: PodContext) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        # ids of what ran at the last reading
        self.alive: set[str] = set()
        # container id -> its termination message
        self.messages: dict[str, str] = {}
        self._exits: dict[str, float] = {}
        self._doubt = Doubt()
        self._container_cache: dict[tuple[str, ContainerState], ContainerStatus] = {}
        self._sandbox_cache: dict[tuple[str, bool], SandboxStatus] = {}

    async def read(self, listed: Listed | None = None) -> bool:
        """Read the runtime; False when the reading is not believed yet.   listed: need not be asked for again."""
        cri, uid = self._s.cri, self._ctx.pod.uid
        if listed is None:
            listed = await cri.list_sandboxes(uid=uid), await cri.list_containers(uid=uid)
        sandbox_list, container_list = listed
        sandboxes = []
        for s in sorted(sandbox_list, key=lambda s: (s.attempt, s.created_at), reverse=True):
            cached = self._sandbox_cache.get((s.id, s.ready))
            if cached is None or (s.ready and not cached.ips):
                try:
                    cached = await cri.sandbox_status(s.id)
                except NotFound:
                    continue
                self._sandbox_cache[(s.id, cached.ready)] = cached
            sandboxes.append(cached)
        containers = []
        for c in sorted(container_list, key=lambda c: (c.attempt, c.created_at), reverse=True):
            status = await self._status_of(c)
            if status is not None:
                containers.append(status)
        present = {s.id for s in sandboxes} | {c.id for c in containers}
        if not self._doubt.believes(self.alive - present, self._s.clock.monotonic()):
            return False
        self.adopt(PodRuntime(sandboxes=tuple(sandboxes), containers=tuple(containers)))
        return True

    async def reread(self) -> None:
        """Read again after something was done, with a second look where the first is not believed."""
        if not await self.read():
            await asyncio.sleep(DOUBT_S)
            await self.read()

    def adopt(self, runtime: PodRuntime) -> None:
        """Take a reading for what is."""
        self._ctx.runtime = runtime
        self._take_over(runtime)
        self.alive = {s.id for s in runtime.sandboxes if s.ready} | {c.id for c in runtime.running()}
        present = {s.id for s in runtime.sandboxes} | {c.id for c in runtime.containers}
        self._container_cache = {k: v for k, v in self._container_cache.items() if k[0] in present}
        self._sandbox_cache = {k: v for k, v in self._sandbox_cache.items() if k[0] in present}
        self.messages = {k: v for k, v in self.messages.items() if k in present}
        self._ctx.cut_off &= present
        self._ctx.replaced &= present
        self._ctx.resized = {k: v for k, v in self._ctx.resized.items() if k in present}
        now = self._s.clock.monotonic()
        self._exits = {
            c.id: self._exits.get(c.id, now) for c in runtime.containers if c.state is ContainerState.EXITED
        }

    def _take_over(self, runtime: PodRuntime) -> None:
        """Go on using the folders of the agent that started these containers, if that was another one."""
        if self._ctx.config is not self._s.config:
            return
        folder = self._ctx.log_folder.name
        for c in runtime.containers:
            if not adopt.stranger(c):
                continue
            root, logs = adopt.volumes_root(c, self._ctx.pod.uid), adopt.logs_root(c, folder)
            if root is not None or logs is not None:
                self._ctx.use_folders(str(root or ""), str(logs or ""))
                # by this it is known as one of this node's pods, whatever becomes of its record
                (self._s.config.root_dir / self._ctx.pod.uid).mkdir(parents=True, exist_ok=True)
                log.info(
                    "Pod %s/%s was started by another agent: its files stay in %s and %s",
                    self._ctx.pod.namespace,
                    self._ctx.pod.name,
                    self._ctx.config.root_dir,
                    self._ctx.config.log_dir,
                )
                return

    async def read_back(self, container_id: str, sandbox_id: str) -> None:
        """Read one container at once, so that its start needs not wait for the relist."""
        status = replace(await self._s.cri.container_status(container_id), sandbox_id=sandbox_id)
        self._container_cache[(status.id, status.state)] = status
        if status.state is ContainerState.EXITED:
            self.messages[status.id] = await asyncio.to_thread(self._termination_message, status)
        others = tuple(c for c in self._ctx.runtime.containers if c.id != container_id)
        self.adopt(replace(self._ctx.runtime, containers=(status, *others)))

    def forget_container(self, container_id: str) -> None:
        """It was removed."""
        rest = tuple(c for c in self._ctx.runtime.containers if c.id != container_id)
        self.adopt(replace(self._ctx.runtime, containers=rest))

    def ages(self) -> dict[str, float]:
        """How long each dead container has been dead, by whichever clock says longer: the wall clock may have been set back."""
        wall, mono = self._s.clock.now(), self._s.clock.monotonic()
        return {
            c.id: max(wall - c.finished_at, mono - self._exits.get(c.id, mono))
            for c in self._ctx.runtime.containers
            if c.state is ContainerState.EXITED
        }

    async def _status_of(self, info: ContainerInfo) -> ContainerStatus | None:
        cached = self._container_cache.get((info.id, info.state))
        if cached is not None and info.state is not ContainerState.UNKNOWN:
            return cached
        try:
            status = replace(await self._s.cri.container_status(info.id), sandbox_id=info.sandbox_id)
        except NotFound:
            return None
        if adopt.stranger(status):
            status = replace(status, image_names=await self._image_names(status))
        status = self._told(status)
        self._container_cache[(info.id, status.state)] = status
        if status.state is ContainerState.EXITED and info.id not in self.messages:
            self.messages[info.id] = await asyncio.to_thread(self._termination_message, status)
        return status

    def _told(self, status: ContainerStatus) -> ContainerStatus:
        """One that ended well for the machine's shutdown has not done its work: it was cut off."""
        if (
            status.id in self._ctx.cut_off
            and status.state is ContainerState.EXITED
            and status.exit_code in (0, 128 + 15)
        ):
            return replace(status, exit_code=restarts.CUT_OFF, reason="NodeShutdown")
        return status

    async def _image_names(self, status: ContainerStatus) -> tuple[str, ...]:
        """All names of the image that another agent's container runs, as far as the runtime knows."""
        cri = self._s.cri
        try:
            runs = await cri.image_status(status.image_ref) if status.image_ref else None
            wanted = await cri.image_status(self._ctx.pod.container(status.name).image)
        except (CriError, KeyError):
            return ()
        if runs is None:
            return ()
        same = wanted is not None and wanted.id == runs.id
        return (*runs.tags, *runs.digests, *((self._ctx.pod.container(status.name).image,) if same else ()))

    def _termination_message(self, status: ContainerStatus) -> str:
        container = self._ctx.container(status.name)
        if container is None:
            return status.message
        file = self._ctx.message_file(status.name, status.restart_count)
        if adopt.stranger(status):
            file = adopt.message_file(status) or file
        text = tree.read_bounded(file, MESSAGE_BYTES)
        if (
            not text
            and status.exit_code != 0
            and container.termination_message_policy == "FallbackToLogsOnError"
        ):
            folder = self._ctx.log_folder
            tail = tree.read_bounded(
                folder / status.name / f"{status.restart_count}.log", MESSAGE_LOG_BYTES * 2, tail=True
            )
            # CRI log lines are "<time> <stream> <P|F> <text>"
            lines = [line.split(b" ", 3)[-1] for line in tail.split(b"\n") if line.count(b" ") >= 3]
            text = b"\n".join(lines[-MESSAGE_LOG_LINES:])[-MESSAGE_LOG_BYTES:]
        return text.decode("utf-8", "replace") or status.message

    def add_sandbox(self, status: SandboxStatus) -> None:
        """One that was just made."""
        self._sandbox_cache[(status.id, status.ready)] = status
        self.adopt(replace(self._ctx.runtime, sandboxes=(status, *self._ctx.runtime.sandboxes)))
