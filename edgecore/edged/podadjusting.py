"""Changing what runs: resources that were resized in place, devices that are back under another name."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from edgecore.edged import claims, resize
from edgecore.edged.errors import CriError
from edgecore.edged.pod import Container
from edgecore.edged.podcontext import PodContext
from edgecore.edged.podreading import PodReader
from edgecore.edged.podreporting import PodReporter
from edgecore.edged.podstopping import PodStopper
from edgecore.edged.runtime import (
    ANNOTATION_DEVICES,
    ANNOTATION_RESOURCES,
    ContainerState,
    ContainerStatus,
    PodRuntime,
    Resources,
)


class PodAdjuster:
    """Each step may be repeated."""

    def __init__(
        self, ctx: PodContext, reader: PodReader, stopper: PodStopper, reporter: PodReporter
    ) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._reader = reader
        self._stopper = stopper
        self._reporter = reporter

    async def resize(self) -> None:
        """Give running containers the resources that they should have by now, as far as there is room."""
        told = resize.last_told(self._reporter.status)
        await self._grant()
        left, error = set(), ""
        pod = self._ctx.granted
        for status in self._ctx.runtime.containers:
            if status.state is not ContainerState.RUNNING or status.id != _latest_id(
                self._ctx.runtime, status.name
            ):
                continue
            container = next((c for c in pod.all_containers() if c.name == status.name), None)
            if container is None:
                continue
            wanted = self._ctx.resources(container)
            has = self._ctx.resized.get(status.id) or resize.decode(
                status.annotations.get(ANNOTATION_RESOURCES, "")
            )
            way = resize.decide(container, has, resize.applied(wanted), told.get(container.name))
            if way is resize.Way.RESTART:
                self._ctx.resize = replace(self._ctx.resize, running=frozenset({container.name}))
                await self._reporter.report()
                await self._ctx.event(
                    "Normal", "Killing", f"Container {container.name} resize requires restart", container.name
                )
                await self._stopper.kill(status, self._ctx.machine.grace_s, again=True)
                await self._reader.reread()
            elif way is resize.Way.UPDATE and has is not None:
                problem = await self._update(container, status, wanted, less=_less_memory(has, wanted))
                if problem:
                    left.add(container.name)
                    error = problem
        self._ctx.resize = replace(self._ctx.resize, running=frozenset(left), error=error)

    async def _grant(self) -> None:
        """Let the pod have what it asks for by now, unless the node never has so much, or others have it."""
        pod, given = self._ctx.pod, self._ctx.given
        pending = None
        if given is not None and resize.differs(pod, given):
            over = resize.beyond(pod, self._s.node.allocatable)
            short = "" if over or not resize.grows(pod, given) else self._s.short(pod)
            if over:
                pending = resize.Pending(reason=resize.INFEASIBLE, message=over)
            elif short:
                pending = resize.Pending(reason=resize.DEFERRED, message=short)
        if pending is None and given is not None:
            self._ctx.given = resize.grant(pod)
        before, self._ctx.resize = self._ctx.resize, replace(self._ctx.resize, pending=pending)
        if pending is not None and (before.pending is None or before.pending.reason != pending.reason):
            await self._ctx.event(
                "Warning", f"Resize{pending.reason}", f"Pod resize {pending.reason}: {pending.message}"
            )

    async def replug(self) -> None:
        """Start containers again whose device is back under another device node: only at its start is one given to it."""
        if not claims.claims(self._ctx.pod) or self._ctx.pod.spec.restart_policy == "Never":
            return
        for status in self._ctx.runtime.containers:
            if status.state is not ContainerState.RUNNING:
                continue
            container = self._ctx.container(status.name)
            if container is None:
                continue
            stamped = status.annotations.get(ANNOTATION_DEVICES, "")
            why = claims.moved(self._ctx.pod, container, stamped, self._s.find_device)
            if why:
                await self._ctx.event(
                    "Normal", "Killing", f"Container {container.name} is started again: {why}", container.name
                )
                await self._stopper.kill(status, self._ctx.machine.grace_s, again=True)
                await self._reader.reread()

    async def _update(
        self, container: Container, status: ContainerStatus, wanted: Resources, *, less: bool
    ) -> str:
        """Why a container could not be changed; nothing when it was.  less: whether its memory shrinks."""
        problem = await self._too_full(container, status, wanted) if less else ""
        if not problem:
            problem = await self._apply(status, wanted)
        if problem:
            await self._ctx.event("Warning", "ResizeError", f"Cannot resize: {problem}", container.name)
            return problem
        self._ctx.resized[status.id] = resize.applied(wanted)
        await self._ctx.event(
            "Normal", "ResizeCompleted", f"Resized container {container.name}", container.name
        )
        return ""

    async def _too_full(self, container: Container, status: ContainerStatus, wanted: Resources) -> str:
        """A kernel would end what is in it rather than refuse a limit below what it holds (cgroups v2)."""
        used = next((u.memory_bytes for u in await self._s.cri.list_usage() if u.id == status.id), 0)
        if used < wanted.memory_limit_bytes:
            return ""
        return (
            f'attempting to set container "{container.name}" memory limit ({wanted.memory_limit_bytes}) '
            f"below current usage ({used})"
        )

    async def _apply(self, status: ContainerStatus, wanted: Resources) -> str:
        # the pod around it first when it grows, and once more afterwards for when it shrinks
        await asyncio.to_thread(self._ctx.limit)
        try:
            await self._s.cri.update_resources(status.id, wanted)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            return str(err)
        await asyncio.to_thread(self._ctx.limit)
        return ""


def _less_memory(has: resize.Applied, wanted: Resources) -> bool:
    # a limit of 0 is none
    return wanted.memory_limit_bytes > 0 and (
        has.memory_limit_bytes == 0 or wanted.memory_limit_bytes < has.memory_limit_bytes
    )


def _latest_id(runtime: PodRuntime, name: str) -> str:
    latest = runtime.latest(name)
    return latest.id if latest is not None else ""
