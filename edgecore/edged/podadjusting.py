"""Changing what runs: resources that were resized in place, devices that are back under another name."""

from __future__ import annotations

import asyncio

from edgecore.edged import claims, resize
from edgecore.edged.errors import CriError
from edgecore.edged.pod import Container
from edgecore.edged.podcontext import PodContext
from edgecore.edged.podreading import PodReader
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

    def __init__(self, ctx: PodContext, reader: PodReader, stopper: PodStopper) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._reader = reader
        self._stopper = stopper

    async def resize(self) -> None:
        """Give running containers the resources that they should have by now, unless the node never has so much."""
        pending = set()
        over = resize.beyond(self._ctx.pod, self._s.node.allocatable)
        for status in self._ctx.runtime.containers:
            if status.state is not ContainerState.RUNNING or status.id != _latest_id(
                self._ctx.runtime, status.name
            ):
                continue
            container = self._ctx.container(status.name)
            if container is None:
                continue
            wanted = self._ctx.resources(container)
            has = self._ctx.resized.get(status.id) or resize.decode(
                status.annotations.get(ANNOTATION_RESOURCES, "")
            )
            way = resize.decide(container, has, resize.applied(wanted))
            if over and way is not resize.Way.NOTHING:
                pending.add(container.name)
            elif way is resize.Way.RESTART:
                await self._ctx.event(
                    "Normal", "Killing", f"Container {container.name} resize requires restart", container.name
                )
                await self._stopper.kill(status, self._ctx.machine.grace_s)
                await self._reader.reread()
            elif way is resize.Way.UPDATE and not await self._update(container, status, wanted):
                pending.add(container.name)
        self._ctx.resizing = frozenset(pending)
        self._ctx.infeasible = over if pending else ""

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
                await self._stopper.kill(status, self._ctx.machine.grace_s)
                await self._reader.reread()

    async def _update(self, container: Container, status: ContainerStatus, wanted: Resources) -> bool:
        # the pod around it first when it grows, and once more afterwards for when it shrinks
        await asyncio.to_thread(self._ctx.limit)
        try:
            await self._s.cri.update_resources(status.id, wanted)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            await self._ctx.event("Warning", "ResizeError", f"Cannot resize: {err}", container.name)
            return False
        await asyncio.to_thread(self._ctx.limit)
        self._ctx.resized[status.id] = resize.applied(wanted)
        await self._ctx.event(
            "Normal", "ResizeCompleted", f"Resized container {container.name}", container.name
        )
        return True


def _latest_id(runtime: PodRuntime, name: str) -> str:
    latest = runtime.latest(name)
    return latest.id if latest is not None else ""
