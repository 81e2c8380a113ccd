"""Ending one pod's containers, and taking away what is left of them."""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from edgecore.edged import backoff, cgroups, prober, record, restarts, spec, tree
from edgecore.edged.errors import CriError
from edgecore.edged.podcontext import PodContext, as_value
from edgecore.edged.podprobing import PodProbes
from edgecore.edged.podreading import PodReader
from edgecore.edged.podreporting import PodReporter
from edgecore.edged.runtime import ContainerState, ContainerStatus, PodRuntime

log = logging.getLogger(__name__)

# What the node says of a pod that it ends for others' sake is an event, too.
ENDED_BY_NODE = ("Evicted", "Preempting")
# A preStop hook that used up the grace period still leaves the container this long.
MIN_STOP_S = 2


class PodStopper:
    """Each step may be repeated."""

    def __init__(self, ctx: PodContext, reader: PodReader, probing: PodProbes, reporter: PodReporter) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._reader = reader
        self._probing = probing
        self._reporter = reporter
        self._quiet: set[str] = set()

    async def kill(self, status: ContainerStatus, grace_s: int, *, again: bool = False) -> None:
        """preStop, then the stop signal, then the kill signal when the grace period is over.

        again: to start another in its place, with whatever it ends and whatever the pod's policy is."""
        if again:
            self._ctx.replaced.add(status.id)
            await self._reporter.keep_replaced()
        began = self._s.clock.monotonic()
        container = self._ctx.container(status.name)
        if (
            container is not None
            and container.lifecycle is not None
            and container.lifecycle.pre_stop is not None
            and grace_s > 0
        ):
            problem = await prober.hook(
                self._s.cri,
                status.id,
                container,
                container.lifecycle.pre_stop,
                pod_ip=self._ctx.pod_ip(),
                timeout_s=float(grace_s),
            )
            if problem:
                await self._ctx.event(
                    "Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}", status.name
                )
        used = self._s.clock.monotonic() - began
        await self._s.cri.stop_container(status.id, max(MIN_STOP_S if used > 1 else 0, round(grace_s - used)))

    async def kill_all(self, grace_s: int) -> None:
        """End every container: the app ones together, then sidecars in reverse order."""
        sidecars = [c.name for c in self._ctx.pod.spec.init_containers if self._ctx.pod.is_sidecar(c)]
        running = self._ctx.runtime.running()
        began = self._s.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for status in running:
                if status.name not in sidecars:
                    group.create_task(self.kill(status, grace_s))
        for name in reversed(sidecars):
            for status in running:
                if status.name == name:
                    left = grace_s - (self._s.clock.monotonic() - began)
                    await self.kill(status, max(MIN_STOP_S, round(left)))

    async def terminate(self) -> None:
        """Stop everything; the state moves on only when a reading shows that nothing runs."""
        self._probing.only_readiness()
        self._ctx.waiting, self._ctx.held = {}, {}
        await self._reporter.keep_end()
        outcome = self._ctx.machine.outcome
        if outcome is not None and outcome.reason in ENDED_BY_NODE and self._ctx.runtime.running():
            await self._ctx.event("Warning", outcome.reason, outcome.message)
        for status in self._ctx.runtime.running():
            await self._ctx.event("Normal", "Killing", f"Stopping container {status.name}", status.name)
        while self._ctx.runtime.running():
            self._ctx.grace_cut.clear()
            await self._kill_until_cut(self._ctx.machine.grace_s)
            await self._reader.reread()
        for sandbox in self._ctx.runtime.sandboxes:
            if sandbox.ready:
                await self._s.cri.stop_sandbox(sandbox.id)
        await self._reader.reread()
        if self._ctx.runtime.running() or any(s.ready for s in self._ctx.runtime.sandboxes):
            raise CriError("cannot end pod: something still runs", retryable=True)
        self._ctx.machine.stopped()
        self._probing.end_all()
        try:
            await self._reporter.report(terminated=True)
        except Exception:
            await self._reporter.keep_last()
            raise
        finally:
            # it may be what it holds that keeps the report from the disk
            if self._ctx.machine.outcome is not None and self._ctx.machine.outcome.reason == "Evicted":
                await self._free()
        log.info(
            "Pod %s/%s ended (%s)", self._ctx.pod.namespace, self._ctx.pod.name, self._ctx.machine.reason
        )

    async def restart_all(self, name: str) -> None:
        """End and remove every container but the ephemeral ones.  name: of the one whose end says so; empty: go on with it.

        As KEP-5532 has it without the grace period, and with preStop hooks for as long as MIN_STOP_S lasts."""
        ctx = self._ctx
        before = ctx.runtime.latest(name) if name else None
        if before is not None:
            ctx.delays[name] = backoff.after_try(
                ctx.delays.get(name), failed_at=before.finished_at, now=self._s.clock.now()
            )
        ctx.restart_all = restarts.ENDING
        # before anything is removed, so that whoever goes on knows
        await self._reporter.report()
        await self._reporter.keep()
        wanted = {c.name for c in ctx.pod.all_containers()}
        async with asyncio.TaskGroup() as group:
            for status in ctx.runtime.running():
                if status.name in wanted:
                    self._probing.drop(status.id)
                    group.create_task(self.kill(status, MIN_STOP_S))
        await self._reader.reread()
        # their last states are told once more: then nothing has them but the status
        await self._reporter.report()
        for status in ctx.runtime.containers:
            if status.name in wanted:
                await self._s.cri.remove_container(status.id)
                self._reader.forget_container(status.id)
        ctx.restart_all = restarts.STARTING
        await self._reporter.keep()

    async def rest(self, grace_s: int) -> None:
        """Stop everything for the machine's shutdown; the pod itself does not end."""
        self._probing.end_all()
        self._ctx.waiting, self._ctx.held = {}, {}
        self._ctx.cut_off |= {status.id for status in self._ctx.runtime.running()}
        await self._reporter.keep_rest()
        for status in self._ctx.runtime.running():
            await self._ctx.event("Normal", "Killing", f"Stopping container {status.name}", status.name)
        await self.kill_all(grace_s)
        await self._reader.reread()
        for sandbox in self._ctx.runtime.sandboxes:
            if sandbox.ready:
                await self._s.cri.stop_sandbox(sandbox.id)
        await self._reader.reread()
        await self._reporter.report()

    async def clean(self) -> None:
        """Remove every trace, then say so.  Each step may be repeated."""
        cri, pod, config = self._s.cri, self._ctx.pod, self._ctx.config
        for sandbox in self._ctx.runtime.sandboxes:
            await cri.remove_sandbox(sandbox.id)
        for container in self._ctx.runtime.containers:
            await cri.remove_container(container.id)
        await self._s.storage.unpublish(pod.uid, config.root_dir)
        await asyncio.to_thread(tree.remove_tree, config.root_dir, pod.uid)
        await asyncio.to_thread(tree.remove_tree, config.log_dir, self._ctx.log_folder.name)
        if config is not self._s.config:
            await asyncio.to_thread(tree.remove_tree, self._s.config.root_dir, pod.uid)
        await asyncio.to_thread(cgroups.remove, spec.cgroup_parent(config, pod), config.cgroup_driver)
        self._s.images.forget(pod.uid)
        if pod.deleting:
            await self._ctx.reports.pod_gone(pod.namespace, pod.name, pod.uid)
        await self._s.state.drop(record.key(pod.uid))
        await self._reporter.forget_end()
        self._ctx.runtime, self._reader.alive = PodRuntime(), set()
        self._ctx.machine.cleaned()

    async def collect(self) -> None:
        """Remove dead containers beyond the last of each name, and sandboxes that nothing needs any more."""
        newest = self._ctx.runtime.sandbox
        by_name: dict[str, list[ContainerStatus]] = {}
        for c in self._ctx.runtime.containers:
            by_name.setdefault(c.name, []).append(c)
        for records in by_name.values():
            for old in records[2:]:
                if old.state is ContainerState.EXITED:
                    await self._s.cri.remove_container(old.id)
                    self._reader.forget_container(old.id)
                    await asyncio.to_thread(self._remove_log, old)
        needed = {c.sandbox_id for records in by_name.values() for c in records[:2]}
        for sandbox in self._ctx.runtime.sandboxes[1:]:
            if newest is not None and newest.ready and not sandbox.ready and sandbox.id not in needed:
                await self._s.cri.remove_sandbox(sandbox.id)
                rest = tuple(s for s in self._ctx.runtime.sandboxes if s.id != sandbox.id)
                self._reader.adopt(replace(self._ctx.runtime, sandboxes=rest))
        kept = [s.id for s in self._ctx.runtime.sandboxes[1:] if not s.ready]
        for sandbox_id in kept if newest is not None and newest.ready else ():
            if sandbox_id not in self._quiet:
                # it may have died, and then its address and the ports that lead to it are still taken
                await self._s.cri.stop_sandbox(sandbox_id)
        self._quiet = set(kept)

    async def _kill_until_cut(self, grace_s: int) -> None:
        """Kill, but begin anew when the grace period is shortened meanwhile."""
        async with asyncio.TaskGroup() as race:
            task = race.create_task(as_value(self.kill_all(grace_s)))
            cut = race.create_task(self._ctx.grace_cut.wait())
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if not task.done():
                task.cancel()
                return
        _, error = task.result()
        if error is not None:
            raise error

    async def _free(self) -> None:
        """Give back what an evicted pod held: its volumes, and the layers and logs of its containers."""
        for container in self._ctx.runtime.containers:
            await self._s.cri.remove_container(container.id)
            self._reader.forget_container(container.id)
        await self._s.storage.unpublish(self._ctx.pod.uid, self._ctx.config.root_dir)
        await asyncio.to_thread(tree.remove_tree, self._ctx.config.root_dir, self._ctx.pod.uid)
        folder = self._ctx.log_folder.name
        await asyncio.to_thread(tree.remove_tree, self._ctx.config.log_dir, folder)

    def _remove_log(self, old: ContainerStatus) -> None:
        folder = self._ctx.log_folder / old.name
        if folder.is_dir():
            # the files it was rotated to as well
            current = f"{old.restart_count}.log"
            for name in [
                p.name for p in folder.iterdir() if p.name == current or p.name.startswith(f"{current}.")
            ]:
                tree.remove_tree(folder, name)
        messages = self._ctx.message_file(old.name, old.restart_count)
        if messages.parent.is_dir():
            tree.remove_tree(messages.parent, messages.name)
