"""Pods and streams of edged, as edgestream wants them: the adapter between the two."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from beehive import clock
from edgecore.edged import imagedisk, quantity
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.errors import CriError, NotFound
from edgecore.edged.evict import Usage
from edgecore.edged.imagegc import Disk
from edgecore.edged.node import Facts
from edgecore.edged.pod import Pod, PodStatus, Volume
from edgecore.edged.resources import container_limits
from edgecore.edged.runtime import ContainerState, PodRuntime
from edgecore.edged.volumes import volume_dir
from edgecore.edgestream import scraped, stats
from edgecore.edgestream.ports import ContainerView, Instance, PodView

log = logging.getLogger(__name__)


class Judge(Protocol):
    """edged's worker of a pod."""

    @property
    def pod(self) -> Pod: ...

    @property
    def status(self) -> PodStatus: ...

    @property
    def runtime(self) -> PodRuntime: ...

    @property
    def raw(self) -> bytes: ...

    @property
    def log_root(self) -> str: ...

    @property
    def config(self) -> EdgedConfig: ...

    @property
    def probe_counts(self) -> Mapping[tuple[str, str, str], int]:
        """(container, kind, result) to how many attempts."""
        ...


class Line(Protocol):
    """A line of edged's list of pods."""

    @property
    def uid(self) -> str: ...


class Judges(Protocol):
    """edged."""

    def find(self, namespace: str, name: str) -> Judge | None: ...

    def worker(self, uid: str) -> Judge | None: ...

    async def running_pods(self) -> Sequence[Line]: ...

    async def disk_usage(self) -> Mapping[str, Usage]:
        """What every pod holds on the disk, by UID, as counted lately."""
        ...

    async def read_facts(self) -> Facts:
        """Look at the machine."""
        ...

    async def image_disk(self) -> Disk | None:
        """What images are on; None while that is not known."""
        ...


class EdgedRuntime:
    """Implements ports.StreamRuntime over edged and its runtime client.   own_metrics: what `/metrics` says."""

    def __init__(
        self, edged: Judges, cri: Cri, *, node: str, own_metrics: Callable[[], str] = lambda: ""
    ) -> None:
        self._own_metrics = own_metrics
        self._edged = edged
        self._node = node
        self._usage = stats.Usage()
        self._cri = cri

    async def pod(self, namespace: str, name: str) -> PodView | None:
        judge = self._edged.find(namespace, name)
        return None if judge is None else view(judge)

    async def running(self, container_id: str) -> bool:
        try:
            status = await self._cri.container_status(container_id)
        except NotFound:
            return False
        return status.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        return await self._cri.exec_url(
            container_id, list(command), tty=tty, stdin=stdin, stdout=stdout, stderr=stderr
        )

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        return await self._cri.attach_url(container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        return await self._cri.port_forward_url(sandbox_id, list(ports))

    async def pods_json(self) -> bytes:
        items = []
        for line in await self._edged.running_pods():
            judge = self._edged.worker(line.uid)
            if judge is None:
                continue
            whole = msgspec.json.decode(judge.raw, type=dict[str, msgspec.Raw])
            whole["status"] = msgspec.Raw(msgspec.json.encode(judge.status))
            items.append(whole)
        return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def stats_json(self) -> bytes:
        node = await asyncio.to_thread(stats.read_node)
        disks, used = await self._disks(), await self._edged.disk_usage()
        held, sandboxes = await asyncio.to_thread(self._held, used), await self._sandboxes()
        readings = [
            replace(r, log_bytes=used[r.uid].logs.get(r.name)) if r.uid in used else r
            for r in await self._readings()
        ]
        return msgspec.json.encode(
            stats.summary(self._node, node, readings, self._usage, disks, held, sandboxes)
        )

    async def _disks(self) -> stats.NodeDisks:
        facts = await self._edged.read_facts()
        return stats.NodeDisks(
            at=clock.wall_ms() / 1000.0,
            pods=Disk(
                bytes_total=facts.disk_bytes,
                bytes_free=facts.disk_available_bytes,
                inodes=facts.inodes,
                inodes_free=facts.inodes_free,
            ),
            images=await self._edged.image_disk(),
            pids=facts.pids,
            pids_max=facts.pid_max,
        )

    def _held(self, used: Mapping[str, Usage]) -> dict[str, stats.PodDisk]:
        """By UID, what pods hold.  Blocking."""
        found = {}
        for uid, usage in used.items():
            judge = self._edged.worker(uid)
            if judge is not None:
                rows = [_volume(judge, v, usage) for v in judge.pod.spec.volumes]
                found[uid] = stats.PodDisk(
                    used_bytes=usage.disk_bytes, volumes=[row for row in rows if row is not None]
                )
        return found

    async def metrics_text(self, path: str) -> bytes:
        match path:
            case "metrics":
                page = self._own_metrics()
            case "metrics/probes":
                page = scraped.probes(await self._attempts())
            case "metrics/cadvisor":
                node = await asyncio.to_thread(stats.read_node)
                page = scraped.cadvisor(
                    node, await self._readings(), await self._sandboxes(), cpus=os.cpu_count() or 1
                )
            case _:
                node = await asyncio.to_thread(stats.read_node)
                page = scraped.resource(node, await self._readings())
        return page.encode()

    async def _attempts(self) -> list[scraped.Attempts]:
        found = []
        for line in await self._edged.running_pods():
            judge = self._edged.worker(line.uid)
            if judge is None:
                continue
            for (container, kind, result), count in judge.probe_counts.items():
                found.append(
                    scraped.Attempts(
                        namespace=judge.pod.namespace,
                        pod=judge.pod.name,
                        uid=judge.pod.uid,
                        container=container,
                        kind=kind,
                        result=result,
                        count=count,
                    )
                )
        return found

    async def _sandboxes(self) -> list[stats.PodReading]:
        """What the runtime counts of pods that edged knows and that run; of those with the machine's network only processes."""

        async def read(judge: Judge, sandbox_id: str) -> stats.PodReading | None:
            try:
                usage = await self._cri.sandbox_usage(sandbox_id)
            except CriError as error:
                # it ends just now, or this runtime does not count: what else is known is told all the same
                log.debug("! %s", error)
                return None
            return stats.PodReading(
                at=usage.timestamp or clock.wall().timestamp(),
                id=sandbox_id,
                namespace=judge.pod.namespace,
                pod=judge.pod.name,
                uid=judge.pod.uid,
                interfaces=() if judge.pod.spec.host_network else usage.interfaces,
                processes=usage.processes,
            )

        asked = []
        async with asyncio.TaskGroup() as group:
            for line in await self._edged.running_pods():
                judge = self._edged.worker(line.uid)
                sandbox = judge.runtime.sandbox if judge is not None else None
                if judge is not None and sandbox is not None and sandbox.ready:
                    asked.append(group.create_task(read(judge, sandbox.id)))
        return [reading for task in asked if (reading := task.result()) is not None]

    async def _readings(self) -> list[stats.ContainerReading]:
        """What the runtime measured of the containers of pods that edged knows."""
        found: list[stats.ContainerReading] = []
        for usage in await self._cri.list_usage():
            judge = self._edged.worker(usage.uid)
            if judge is None or not usage.timestamp:
                continue
            status = next((c for c in judge.runtime.containers if c.id == usage.id), None)
            wanted = next((c for c in judge.pod.all_containers() if c.name == usage.name), None)
            limit = container_limits(wanted).get("memory", 0) if wanted is not None else 0
            found.append(
                stats.ContainerReading(
                    id=usage.id,
                    image=wanted.image if wanted is not None else "",
                    started_at=status.started_at if status is not None else 0.0,
                    memory_limit_bytes=quantity.units(limit),
                    memory=usage.memory,
                    inodes=usage.inodes,
                    name=usage.name,
                    namespace=judge.pod.namespace,
                    pod=judge.pod.name,
                    uid=usage.uid,
                    at=usage.timestamp,
                    cpu_ns=usage.cpu_ns,
                    memory_bytes=usage.memory_bytes,
                    disk_bytes=usage.disk_bytes,
                )
            )
        return found


def _volume(judge: Judge, volume: Volume, usage: Usage) -> stats.VolumeReading | None:
    """One volume of a pod: counted, or as full as the file system that it is; None for what is neither."""
    if volume.name in usage.volumes:
        return stats.VolumeReading(
            name=volume.name,
            used_bytes=usage.volumes[volume.name],
            inodes=usage.volume_inodes.get(volume.name),
        )
    claim = volume.persistent_volume_claim
    if claim is None and volume.empty_dir is None:
        return None
    try:
        disk = imagedisk.read(str(volume_dir(judge.config.root_dir, judge.pod.uid, volume)))
    except OSError:
        # not mounted yet, or not any more
        return None
    return stats.VolumeReading(
        name=volume.name,
        used_bytes=disk.bytes_total - disk.bytes_free,
        inodes=disk.inodes - disk.inodes_free if disk.inodes else None,
        disk=disk,
        claim=(judge.pod.namespace, claim.claim_name) if claim is not None else None,
    )


def view(judge: Judge) -> PodView:
    """A pod as its judge last saw it.  Pure."""
    pod, runtime = judge.pod, judge.runtime
    waiting: dict[str, str] = {}
    for row in (*judge.status.init_container_statuses, *judge.status.container_statuses):
        if row.state.waiting is not None:
            waiting[row.name] = row.state.waiting.reason
    wanted = {c.name: c for c in pod.all_containers()}
    # containers that the runtime has and the pod does not name were added to it while it ran
    names = [*wanted, *(c.name for c in runtime.containers if c.name not in wanted)]
    containers = tuple(
        ContainerView(
            name=name,
            instances=tuple(
                Instance(
                    id=c.id,
                    attempt=c.attempt,
                    running=c.state in (ContainerState.RUNNING, ContainerState.UNKNOWN),
                    log=c.log_path,
                )
                for c in runtime.containers
                if c.name == name and c.state is not ContainerState.CREATED
            ),
            waiting=waiting.get(name, ""),
            tty=name in wanted and wanted[name].tty,
            stdin=name in wanted and wanted[name].stdin,
        )
        for name in dict.fromkeys(names)
    )
    sandbox = runtime.sandbox
    return PodView(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        sandbox=sandbox.id if sandbox is not None and sandbox.ready else "",
        containers=containers,
        log_root=judge.log_root,
    )
