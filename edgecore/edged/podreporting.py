"""What is said and kept of one pod: its status, its record in the store, how it ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from beehive.errors import SkerryError
from edgecore.edged import record, resize
from edgecore.edged import status as statuses
from edgecore.edged.pod import PodStatus
from edgecore.edged.podcontext import PodContext
from edgecore.edged.podprobing import PodProbes
from edgecore.edged.podreading import PodReader
from edgecore.edged.podworker import Life, PodWorker
from edgecore.edged.status import Outcome

FINAL = ("Succeeded", "Failed")


class PodReporter:
    """Durable when a call returns, or it raises."""

    def __init__(self, ctx: PodContext, reader: PodReader, probing: PodProbes) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._reader = reader
        self._probing = probing
        # as last reported
        self.status = PodStatus()
        # whether an agent before this one knew the pod
        self.known = True
        # whether the store lacks it, and how the pod ended, if that is kept somewhere
        self.unsaved = False
        self._end_kept: Outcome | None = None
        self._started_mono: float | None = None

    async def remember(self) -> bool:
        """Take up what an earlier agent knew; False while that cannot be read."""
        try:
            held = await self._s.state.load(record.key(self._ctx.pod.uid))
            row = record.decode(held)
        except SkerryError as err:
            self._ctx.complain(f"cannot read its record: {err}")
            return False
        self.known = held is not None or bool(self._ctx.pod.status.start_time)
        known = row.status if row.status.phase else self._ctx.pod.status
        self.status = known
        self._ctx.delays = record.delays(row)
        self._ctx.started_images = dict(row.images)
        self._ctx.resized = dict(row.resized)
        self._ctx.given = row.granted
        if row.granted is None and self.known:
            self._ctx.given = resize.granted_before(self._ctx.pod, known)
        self._ctx.released = row.released
        self._ctx.cut_off = set(row.cut_off)
        self._ctx.replaced = set(row.replaced)
        self._ctx.restart_all = row.restart_all
        if row.root_dir or row.log_dir:
            self._ctx.use_folders(row.root_dir, row.log_dir)
        if not self._s.rebooted():
            self._reader.alive = record.alive(row)
        outcome = record.outcome(row)
        end = self._s.ends.find(self._ctx.pod.uid)
        if end is not None:
            # it ended when the store could not take it
            self.unsaved = True
            if end.reason:
                outcome = outcome or end
            elif known.phase not in FINAL:
                known = self.status = msgspec.structs.replace(known, phase=end.phase)
        self._end_kept = outcome
        started = _start(known)
        machine = PodWorker(self._ctx.pod, outcome=outcome, started_at=started)
        machine.absent = self._ctx.machine.absent
        if self._ctx.machine.absent:
            machine.gone()
        if known.phase in FINAL and outcome is None:
            machine.completed()
        self._ctx.machine = machine
        if machine.life is not Life.SYNCING:
            self._ctx.ending.set()
        return True

    def compute(self, *, terminated: bool = False) -> PodStatus:
        """As it is now."""
        view = statuses.View(
            now=self._s.clock.now(),
            previous=self.status,
            waiting={**self._replaced(), **self._ctx.waiting, **self._ctx.held},
            verdicts=self._probing.verdicts(),
            messages=self._reader.messages,
            host_ips=self._s.node.ips,
            outcome=self._ctx.machine.outcome,
            resizing=self._ctx.resize,
            granted={c.name: c.resources for c in self._ctx.granted.all_containers()},
            held=self._ctx.on_hold,
            restart_all=self._ctx.restart_all,
            missing=self._ctx.missing + self._ctx.lost_images,
            terminated=terminated or self._ctx.machine.life in (Life.TERMINATED, Life.FINISHED),
        )
        return statuses.compute_status(self._ctx.pod, self._ctx.runtime, view)

    def _replaced(self) -> dict[str, tuple[str, str]]:
        """Containers that have ended to be started anew: their end is not the pod's."""
        return {
            c.name: ("ContainerCreating", "")
            for c in self._ctx.runtime.containers
            if c.id in self._ctx.replaced and self._ctx.runtime.latest(c.name) is c
        }

    def done(self) -> bool:
        """Whether its containers have all ended for good."""
        return self.compute().phase in FINAL

    async def report(self, *, terminated: bool = False) -> None:
        """Report the status if it is another one than the last.  Durable when it returns."""
        status = self.compute(terminated=terminated)
        if status == self.status and not self.unsaved:
            return
        if self._ctx.machine.started_at is None:
            self._ctx.machine.started_at = self._s.clock.now()
            self._started_mono = self._s.clock.monotonic()
        # what is said later builds on it, whether it can be kept now or not
        self.status, self.unsaved = status, True
        pod = self._ctx.pod
        async with asyncio.TaskGroup() as both:
            both.create_task(self._s.state.save(record.key(pod.uid), self._record()))
            both.create_task(
                self._ctx.reports.pod_status(pod.namespace, pod.name, pod.uid, msgspec.json.encode(status))
            )
        self.unsaved = False
        await self.forget_end()

    def now_by_start(self) -> float:
        """Unix seconds by the clock that the pod was started with: one that is set by years since then, as at the first
        contact of a board without a clock of its own, must not make it late.  A start of an earlier agent is by the wall."""
        if self._started_mono is None or self._ctx.machine.started_at is None:
            return self._s.clock.now()
        return self._ctx.machine.started_at + self._s.clock.monotonic() - self._started_mono

    async def keep_end(self) -> None:
        """Before anything is stopped: the node ends it, and no agent after this one may run it again."""
        outcome = self._ctx.machine.outcome
        if outcome is None or outcome == self._end_kept:
            return
        if outcome.reason in ("Evicted", "Preempting"):
            await self._ctx.event("Warning", outcome.reason, outcome.message)
        try:
            await self._s.state.save(record.key(self._ctx.pod.uid), self._record())
        except SkerryError as err:
            self._ctx.complain(f"cannot keep that it ends: {err}")
            if not await asyncio.to_thread(self._s.ends.keep, self._ctx.pod.uid, outcome):
                # what cannot be kept anywhere must be ended all the same: it may be what fills the disk
                return
        self._end_kept = outcome

    async def keep(self) -> None:
        """Keep what is known beside the status.  Raises Unavailable (the disk)."""
        await self._s.state.save(record.key(self._ctx.pod.uid), self._record())

    async def keep_rest(self) -> None:
        """Before anything is stopped for the machine's shutdown: what that ends comes back."""
        try:
            await self.keep()
        except SkerryError as err:
            # it ends with the machine in any case
            self._ctx.complain(f"cannot keep that it is to come back: {err}")

    async def keep_replaced(self) -> None:
        """Before a container is stopped to start another in its place: the next agent is to start that."""
        try:
            await self.keep()
        except SkerryError as err:
            # this agent knows, and the next one does what the policy says
            self._ctx.complain(f"cannot keep that a container is replaced: {err}")

    async def keep_last(self) -> None:
        """Its last status could not be kept: at least that it ended, and how."""
        last = self.status
        if last.phase in FINAL and self._end_kept is None:
            end = Outcome(phase=last.phase, reason=last.reason, message=last.message)
            if await asyncio.to_thread(self._s.ends.keep, self._ctx.pod.uid, end):
                self._end_kept = end

    async def forget_end(self) -> None:
        """The store has it, or nobody needs it any more."""
        if self._s.ends.find(self._ctx.pod.uid) is not None:
            await asyncio.to_thread(self._s.ends.forget, self._ctx.pod.uid)

    def _record(self) -> bytes:
        sandbox = self._ctx.runtime.sandbox
        return record.encode(
            status=self.status,
            delays=self._ctx.delays,
            outcome=self._ctx.machine.outcome,
            sandbox=sandbox.id if sandbox is not None and sandbox.ready else "",
            images=self._ctx.started_images,
            resized=self._ctx.resized,
            granted=self._ctx.given,
            released=self._ctx.released,
            cut_off=self._ctx.cut_off,
            replaced=self._ctx.replaced,
            restart_all=self._ctx.restart_all,
            root_dir=_other(self._ctx.config.root_dir, self._s.config.root_dir),
            log_dir=_other(self._ctx.config.log_dir, self._s.config.log_dir),
        )


def _other(used: Path, usual: Path) -> str:
    return str(used) if used != usual else ""


def _start(status: PodStatus) -> float | None:
    """Unix seconds of a status' startTime."""
    return record.seconds(status.start_time) if status.start_time else None
