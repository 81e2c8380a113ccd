"""The probes of one pod's containers, each a task of its own, and what they say."""

from __future__ import annotations

import asyncio
import logging

from edgecore.edged import plan, prober, probes
from edgecore.edged import status as statuses
from edgecore.edged.pod import Container, PodStatus, Probe
from edgecore.edged.podcontext import PodContext
from edgecore.edged.runtime import ContainerState, ContainerStatus

log = logging.getLogger(__name__)


class PodProbes:
    """Started and ended with the containers they ask."""

    def __init__(self, ctx: PodContext) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._probes: dict[tuple[str, probes.Kind], tuple[probes.ProbeState, asyncio.Task[None]]] = {}
        self.counts: dict[tuple[str, str, str], int] = {}
        """How many attempts: (container, Liveness | Readiness | Startup, successful | failed | unknown) to how many."""

    def close(self) -> None:
        """End all."""
        for _, task in self._probes.values():
            task.cancel()

    def mind(self, group: asyncio.TaskGroup, told: PodStatus) -> None:
        """Start the probes that should run, end those whose container does not run any more.  told: what was reported last."""
        running = {c.id: c for c in self._ctx.runtime.containers if c.state is ContainerState.RUNNING}
        for container_id, _ in list(self._probes):
            if container_id not in running:
                self.drop(container_id)
        known = {s.container_id: s for s in (*told.init_container_statuses, *told.container_statuses)}
        for status in running.values():
            container = self._ctx.container(status.name)
            if container is None:
                continue
            before = known.get(statuses.PREFIX + status.id)
            if container.startup_probe is not None:
                was = True if before is not None and before.started is True else None
                self._start_probe(group, status, container, probes.Kind.STARTUP, container.startup_probe, was)
                if not self._probes[(status.id, probes.Kind.STARTUP)][0].ready:
                    continue
            if container.liveness_probe is not None:
                self._start_probe(
                    group, status, container, probes.Kind.LIVENESS, container.liveness_probe, None
                )
            if container.readiness_probe is not None:
                was = True if before is not None and before.ready else None
                self._start_probe(
                    group, status, container, probes.Kind.READINESS, container.readiness_probe, was
                )

    def drop(self, container_id: str) -> None:
        """Its container is to end, or has."""
        for kind in probes.Kind:
            entry = self._probes.pop((container_id, kind), None)
            if entry is not None:
                entry[1].cancel()

    def health(self) -> plan.Health:
        """For the plan."""
        failed: dict[probes.Kind, set[str]] = {kind: set() for kind in probes.Kind}
        started = set()
        for (container_id, kind), (state, _) in self._probes.items():
            if state.failed:
                failed[kind].add(container_id)
            if kind is probes.Kind.STARTUP and state.ready:
                started.add(container_id)
        return plan.Health(
            failed_liveness=frozenset(failed[probes.Kind.LIVENESS]),
            failed_startup=frozenset(failed[probes.Kind.STARTUP]),
            started=frozenset(started),
        )

    def verdicts(self) -> statuses.Verdicts:
        """For the status."""
        not_ready, not_started = set(), set()
        for c in self._ctx.runtime.running():
            container = self._ctx.container(c.name)
            if container is None:
                continue
            startup = self._probes.get((c.id, probes.Kind.STARTUP))
            if container.startup_probe is not None and not (startup and startup[0].ready):
                not_started.add(c.id)
            readiness = self._probes.get((c.id, probes.Kind.READINESS))
            if container.readiness_probe is not None and not (readiness and readiness[0].ready):
                not_ready.add(c.id)
        return statuses.Verdicts(not_ready=frozenset(not_ready), not_started=frozenset(not_started))

    def _start_probe(
        self,
        group: asyncio.TaskGroup,
        status: ContainerStatus,
        container: Container,
        kind: probes.Kind,
        check: Probe,
        was: bool | None,  # noqa: FBT001
    ) -> None:
        if (status.id, kind) in self._probes:
            return
        state = probes.ProbeState(kind, check, verdict=was)
        task = group.create_task(
            self._probe(status, container, state), name=f"{kind.value} {self._ctx.pod.name}/{container.name}"
        )
        self._probes[(status.id, kind)] = (state, task)

    async def _probe(self, status: ContainerStatus, container: Container, state: probes.ProbeState) -> None:
        while not state.done:
            try:
                await self._probe_on(status, container, state)
            except Exception:
                # a probe must not take its pod's worker down with it (P9)
                log.exception(
                    "Pod %s/%s: %s probe failed",
                    self._ctx.pod.namespace,
                    self._ctx.pod.name,
                    state.kind.value,
                )
                await asyncio.sleep(probes.period_s(state.probe))

    async def _probe_on(
        self, status: ContainerStatus, container: Container, state: probes.ProbeState
    ) -> None:
        running_for = max(0.0, self._s.clock.now() - status.started_at)
        await asyncio.sleep(probes.first_delay_s(state.probe, running_for_s=running_for))
        while not state.done:
            ok, text = await prober.probe(
                self._s.cri,
                status.id,
                container,
                state.probe,
                pod_ip=self._ctx.pod_ip(),
                timeout_s=probes.timeout_s(state.probe),
            )
            self._count(container.name, state.kind, ok=ok)
            if ok is False or (ok is None and text):
                how = "failed" if ok is False else "errored and resulted in unknown state"
                await self._ctx.event(
                    "Warning", "Unhealthy", f"{state.kind.value.title()} probe {how}: {text}", container.name
                )
            elif ok and text and state.probe.http_get is not None:
                warned = f"{state.kind.value.title()} probe warning: {text}"
                await self._ctx.event("Warning", "ProbeWarning", warned, container.name)
            if ok is not None and state.result(ok):
                self._ctx.poke()
            await asyncio.sleep(probes.period_s(state.probe))

    def _count(self, container: str, kind: probes.Kind, *, ok: bool | None) -> None:
        result = "unknown" if ok is None else "successful" if ok else "failed"
        key = (container, kind.value.title(), result)
        self.counts[key] = self.counts.get(key, 0) + 1

    def end_all(self) -> None:
        """The pod has ended."""
        for container_id, _ in list(self._probes):
            self.drop(container_id)

    def only_readiness(self) -> None:
        """The pod is ending: nothing is started or killed for a probe any more."""
        for container_id, kind in list(self._probes):
            if kind is not probes.Kind.READINESS:
                self.drop(container_id)
