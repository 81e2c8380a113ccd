"""One pod, from its first sight to its last trace: the shell around podworker, plan and the parts that act.

Theory of operation.  `run` loops: read the runtime (podreading), let the pure modules decide, perform (podstarting,
podstopping, podadjusting, podvolumes, podprobing), report (podreporting), sleep until poked or until something is due.  Every
pass starts from a fresh reading, so a pass that was cut off is simply repeated.  Each CRI call's effect is read back at once,
so a start is reported without waiting for the relist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from beehive.errors import SkerryError
from edgecore.edged import claims, closure, env, plan, record, resize, restarts, shutdown
from edgecore.edged.config import EdgedConfig
from edgecore.edged.errors import RoomComing
from edgecore.edged.pod import Pod, PodStatus
from edgecore.edged.podadjusting import PodAdjuster
from edgecore.edged.podcontext import PodContext, Shared
from edgecore.edged.podprobing import PodProbes
from edgecore.edged.podreading import DOUBT_S, FIRST_DOUBT_S, Listed, PodReader
from edgecore.edged.podreporting import PodReporter
from edgecore.edged.podstarting import PodStarter
from edgecore.edged.podstopping import PodStopper
from edgecore.edged.podvolumes import PodVolumes
from edgecore.edged.podworker import Life, PodWorker
from edgecore.edged.ports import Reports
from edgecore.edged.runtime import PodRuntime
from edgecore.edged.status import Outcome

log = logging.getLogger(__name__)

# After a pass that failed: first and longest wait.
RETRY_S, MAX_RETRY_S = 0.5, 30.0
# How soon a container held back by its configuration, its volumes or a failed create is tried again; a change of what
# it refers to pokes the worker at once.
HELD_RETRY_S = 5.0
# How soon a pod looks again whether others have ended for it.
ROOM_S = 0.5


class Worker:
    """The only judge of one pod UID.  `run` returns when nothing of the pod is left; everything else is non-blocking."""

    def __init__(
        self,
        shared: Shared,
        pod: Pod,
        raw: bytes,
        *,
        admit: Callable[[Worker], Outcome | None] = lambda _: None,
        reports: Reports | None = None,
        unseen: bool = False,
        listed: Listed | None = None,
    ) -> None:
        """admit: why it may not run, if so; asked once.  reports: others than everybody's, for a pod that the cloud does not
        know.  unseen: the runtime's lists have nothing of it, and no worker before this one made anything.
        listed: what the runtime has of it, if that was just read."""
        self._s = shared
        self._may_run = admit
        self._ctx = PodContext(shared, pod, raw, reports=reports)
        self._reader = PodReader(self._ctx)
        self._probing = PodProbes(self._ctx)
        self._reporter = PodReporter(self._ctx, self._reader, self._probing)
        self._volumes = PodVolumes(self._ctx)
        self._stopper = PodStopper(self._ctx, self._reader, self._probing, self._reporter)
        self._starter = PodStarter(self._ctx, self._reader, self._reporter, self._volumes, self._stopper)
        self._adjuster = PodAdjuster(self._ctx, self._reader, self._stopper, self._reporter)
        # container name -> id of the one whose end was told as one that waits
        self._backing_off: dict[str, str] = {}
        self._failures = 0
        # nothing of it has ever been here, so there is nothing to read before its first sandbox
        self._unseen = unseen
        self._listed = listed
        self._rested = asyncio.Event()
        self._settled = asyncio.Event()
        self.admitted = False

    # -- what others may call

    @property
    def machine(self) -> PodWorker:
        """Its life."""
        return self._ctx.machine

    @property
    def config(self) -> EdgedConfig:
        """With the folders of this pod."""
        return self._ctx.config

    @property
    def pod(self) -> Pod:
        return self._ctx.pod

    @property
    def granted(self) -> Pod:
        """As it may run now, which is less than it asks for while a resize waits."""
        return self._ctx.granted

    @property
    def status(self) -> PodStatus:
        """As last reported."""
        return self._reporter.status

    @property
    def runtime(self) -> PodRuntime:
        """As last read."""
        return self._ctx.runtime

    @property
    def raw(self) -> bytes:
        return self._ctx.raw

    @property
    def log_root(self) -> str:
        """The folder that holds the folder of this pod's logs."""
        return str(self._ctx.config.log_dir)

    @property
    def probe_counts(self) -> Mapping[tuple[str, str, str], int]:
        """(container, Liveness | Readiness | Startup, successful | failed | unknown) to how many attempts."""
        return self._probing.counts

    @property
    def syncing(self) -> bool:
        """Whether it should run: it is neither ending nor refused."""
        return self._ctx.syncing

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._ctx.machine.life in (Life.TERMINATED, Life.FINISHED)

    def image_refs(self) -> set[str]:
        """References and ids of the images it was started from or needs to be started again."""
        return self._ctx.pod.image_references() | set(self._ctx.started_images.values())

    def look_for_images(self, present: Collection[str]) -> None:
        """Say in the pod's status which of its images are not on this node.   present: what those are called that are."""
        ctx = self._ctx
        lost: tuple[str, ...] = ()
        if not self.ended:
            failed = self._s.images.failed(ctx.pod.uid)
            lost = closure.lost_images(ctx.pod, present, started=ctx.started_images, failed=failed)
        if lost != ctx.lost_images:
            ctx.lost_images = lost
            self.poke()

    @property
    def held(self) -> bool:
        """Whether it waits for `release`; one that has run is not held any more."""
        return self._ctx.on_hold

    @property
    def old(self) -> bool:
        """Whether it was accepted by an agent before this one, or runs already."""
        return self._reporter.status.start_time is not None or bool(self._ctx.runtime.sandboxes)

    def release(self) -> None:
        """Somebody at the edge lets it start."""
        self._ctx.released = True
        self.poke()

    def evict(self, outcome: Outcome, *, grace_s: int) -> None:
        """The node ends it and keeps nothing of it but its status."""
        if self._ctx.machine.fail(outcome, grace_s):
            self._ctx.ending.set()
            self.poke()

    def rest(self, grace_s: int) -> None:
        """The machine goes down: stop within so long, and run again when it is back.  What never runs twice fails."""
        if self._ctx.resting is not None:
            return
        grace_s = min(grace_s, self._ctx.pod.grace_period_s)
        self._ctx.resting = grace_s
        before = self._ctx.machine.grace_s
        if self._ctx.syncing and self._ctx.runtime.sandboxes:
            if self._reporter.done():
                self._ctx.machine.completed()
            elif not shutdown.returns(self._ctx.pod):
                self._ctx.machine.fail(shutdown.TERMINATED, grace_s)
        self._ctx.machine.cut(grace_s)
        self._ctx.ending.set()
        if self._ctx.machine.life is Life.TERMINATING and grace_s < before:
            self._ctx.grace_cut.set()
        self.poke()

    @property
    def rested(self) -> bool:
        """Whether nothing of it runs any more for that."""
        return self.ended or self._rested.is_set()

    async def until_rested(self) -> None:
        """Wait for that."""
        await self._rested.wait()

    async def settled(self) -> None:
        """Wait for the end of its first pass: what can be started of it has been."""
        await self._settled.wait()

    def poke(self) -> None:
        """Look again."""
        self._ctx.poke()

    def update(self, pod: Pod, raw: bytes) -> None:
        """The pod is wanted like this now."""
        self._ctx.raw = raw
        grace = self._ctx.machine.grace_s
        self._ctx.machine.update(pod)
        self._volumes.stale = True
        self._after_machine(grace)

    def gone(self) -> None:
        """The pod is wanted no more (two readings agreed)."""
        grace = self._ctx.machine.grace_s
        self._ctx.machine.gone()
        self._after_machine(grace)

    def refresh(self, kind: str, name: str) -> None:
        """An object that the pod may refer to has changed."""
        config_maps, secrets = env.references(self._ctx.pod)
        if (kind == "configmap" and name in config_maps) or (kind == "secret" and name in secrets):
            self._volumes.stale = True
            self.poke()
        elif kind == "service":
            # read again before a container starts; those that run keep what they were told
            self._volumes.stale = self._volumes.stale or self._ctx.pod.spec.enable_service_links
        elif kind == "device" and name in claims.claims(self._ctx.pod):
            self._ctx.held = {}
            self.poke()

    def _after_machine(self, grace_before: int) -> None:
        if self._ctx.machine.life is not Life.SYNCING:
            self._ctx.ending.set()
            if self._ctx.machine.grace_s < grace_before:
                self._ctx.grace_cut.set()
        self.poke()

    # -- the loop

    async def run(self) -> None:
        """Until the pod is finished."""
        while not await self._reporter.remember():  # noqa: ASYNC110  # nothing tells when a store works again
            await asyncio.sleep(HELD_RETRY_S)
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    self._ctx.poked.clear()
                    wait = await self._pass(group)
                    self._settled.set()
                    if self.ended:
                        self._rested.set()
                    if self._ctx.machine.life is Life.FINISHED:
                        return
                    try:
                        async with asyncio.timeout(wait):
                            await self._ctx.poked.wait()
                    except TimeoutError:
                        pass
            finally:
                self._settled.set()
                self._probing.close()

    async def _pass(self, group: asyncio.TaskGroup) -> float | None:
        """One pass; seconds until the next one is due, None when only a poke is."""
        try:
            wait = await self._step(group)
        except Exception as err:
            # the boundary of a pod (P9): whatever is wrong with this one, the others go on
            fault = _expected(err)
            if fault is not None:
                self._ctx.complain(str(fault))
            else:
                log.exception("Pod %s/%s: pass failed", self._ctx.pod.namespace, self._ctx.pod.name)
        else:
            self._failures = 0
            self._ctx.content()
            return wait
        self._failures += 1
        return min(MAX_RETRY_S, RETRY_S * 2.0 ** min(self._failures - 1, 10))

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        unseen, self._unseen = self._unseen and not self._reporter.known, False
        listed, self._listed = self._listed, None
        if not unseen and not await self._reader.read(listed):
            if not self._ctx.runtime.sandboxes:
                return DOUBT_S if self._failures else FIRST_DOUBT_S
            return DOUBT_S if self._failures else self._ctx.config.relist_s
        machine = self._ctx.machine
        if machine.life is Life.SYNCING and self._ctx.resting is not None:
            runtime = self._ctx.runtime
            if runtime.running() or any(s.ready for s in runtime.sandboxes):
                await self._stopper.rest(self._ctx.resting)
            self._rested.set()
            return None
        if machine.life is Life.SYNCING and not self.admitted:
            try:
                await self._admit()
            except RoomComing as err:
                self._ctx.complain(str(err))
                return ROOM_S
        if machine.life is Life.SYNCING:
            left = machine.deadline_in_s(self._reporter.now_by_start())
            if left is not None and left <= 0:
                self._ctx.fail(
                    Outcome(
                        phase="Failed",
                        reason="DeadlineExceeded",
                        message="Pod was active on the node longer than the specified deadline",
                    )
                )
            elif self._reporter.done():
                machine.completed()
                self._ctx.ending.set()
        if self._ctx.on_hold:
            await self._reporter.report()
            return None
        if machine.life is Life.SYNCING:
            return await self._sync(group)
        if machine.life is Life.TERMINATING:
            await self._stopper.terminate()
        if machine.to_clean:
            await self._stopper.clean()
        elif machine.life is Life.TERMINATED and self._reporter.unsaved:
            await self._reporter.report(terminated=True)
        return None

    async def _admit(self) -> None:
        """Ask once whether there is room and whether it is allowed.  What has run here before needs not ask for room."""
        refused = self._may_run(self)
        if refused is None:
            self.admitted = True
            if self._ctx.given is None:
                self._ctx.given = resize.grant(self._ctx.pod)
            return
        self._ctx.fail(refused)
        await self._ctx.event("Warning", refused.reason, refused.message)

    async def _sync(self, group: asyncio.TaskGroup) -> float | None:
        """Plan and perform until nothing is left to do."""
        self._probing.mind(group, self._reporter.status)
        await self._adjuster.resize()
        await self._adjuster.replug()
        runtime = self._ctx.runtime
        if self._ctx.restart_all == restarts.STARTING and all(
            runtime.latest(c.name) for c in self._ctx.pod.all_containers()
        ):
            self._ctx.restart_all = ""
        waits = False
        while self._ctx.active:
            decided = plan.compute_pod_actions(
                self._ctx.pod,
                self._ctx.runtime,
                memory=record.memory(
                    self._reporter.status, self._ctx.delays, self._ctx.restart_all, self._ctx.replaced
                ),
                health=self._probing.health(),
                exited_for_s=self._reader.ages(),
            )
            self._ctx.waiting = decided.waiting
            await self._tell_backing_off()
            actions = [
                a
                for a in decided.actions
                if not (isinstance(a, plan.StartContainer) and a.name in self._ctx.held)
            ]
            if not actions:
                break
            prepared = nothing
            if any(isinstance(a, plan.CreateSandbox) for a in actions):
                prepared = await self._s.turns.take()
            try:
                if not await self._volumes.bring():
                    # tried again after a while: if that went well in this pass, nobody would plan for it
                    waits = True
                    break
                for action in actions:
                    if not self._ctx.active:
                        break
                    await self._perform(action, group, prepared)
            finally:
                prepared()
        else:
            return 0.0
        if self._volumes.due and not waits:
            await self._volumes.bring()
        await self._reporter.report()
        await self._stopper.collect()
        if self._reporter.done():
            return 0.0
        return self._next(decided)

    async def _perform(
        self, action: plan.Action, group: asyncio.TaskGroup, prepared: Callable[[], None]
    ) -> None:
        if isinstance(action, plan.CreateSandbox):
            await self._starter.create_sandbox(action.attempt, prepared)
        elif isinstance(action, plan.StopSandbox):
            await self._stopper.kill_all(self._ctx.machine.grace_s)
            await self._s.cri.stop_sandbox(action.sandbox_id)
            await self._reader.reread()
        elif isinstance(action, plan.RemoveContainer):
            await self._s.cri.remove_container(action.container_id)
            self._reader.forget_container(action.container_id)
        elif isinstance(action, plan.RestartAll):
            if action.name:
                await self._ctx.event("Normal", restarts.ALL, action.message, action.name)
            await self._stopper.restart_all(action.name)
        elif isinstance(action, plan.KillContainer):
            await self._ctx.event("Normal", "Killing", action.message, action.name)
            status = next(c for c in self._ctx.runtime.containers if c.id == action.container_id)
            grace = action.grace_s if action.grace_s is not None else self._ctx.machine.grace_s
            await self._stopper.kill(status, grace, again=action.again)
            self._probing.drop(action.container_id)
            await self._reader.reread()
        else:
            await self._starter.start(self._ctx.granted.container(action.name), action.restart_count)
            self._probing.mind(group, self._reporter.status)

    async def _tell_backing_off(self) -> None:
        """One event for each end of a container that is not started again at once."""
        for name, (reason, _) in self._ctx.waiting.items():
            last = self._ctx.runtime.latest(name)
            if reason != "CrashLoopBackOff" or last is None or self._backing_off.get(name) == last.id:
                continue
            self._backing_off[name] = last.id
            pod = f"{self._ctx.pod.name}_{self._ctx.pod.namespace}({self._ctx.pod.uid})"
            text = f"Back-off restarting failed container {name} in pod {pod}"
            await self._ctx.event("Warning", "BackOff", text, name)

    def _next(self, decided: plan.Plan) -> float | None:
        waits = [decided.wake_in_s]
        if (
            self._ctx.held
            or self._starter.sandbox_error is not None
            or self._volumes.stale
            or self._ctx.resize.again
        ):
            waits.append(HELD_RETRY_S)
            waits.append(self._s.images.retry_in_s(self._ctx.pod.uid))
            # what held them is judged anew at the next pass
            self._ctx.held = {}
        if self._volumes.refresh_at is not None:
            waits.append(max(0.0, self._volumes.refresh_at - self._s.clock.now()))
        waits.append(self._ctx.machine.deadline_in_s(self._reporter.now_by_start()))
        due = [w for w in waits if w is not None]
        return max(0.05, min(due)) if due else None


def nothing() -> None:
    """There is nobody to tell."""


def _expected(error: Exception) -> SkerryError | OSError | None:
    """The fault that may end a pass, the first of several at once; None: there is a bug among them."""
    if isinstance(error, ExceptionGroup):
        found = [_expected(each) for each in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, (SkerryError, OSError)) else None
