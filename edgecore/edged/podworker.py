"""The life of one pod UID: syncing, terminating, terminated, finished.  Pure.

The worker that holds this machine is the only judge of its pod: others ask it, nobody infers.  A kill is never taken back:
an update that says otherwise is remembered but does not revive the pod.

    SYNCING --end--> TERMINATING --stopped--> TERMINATED --(deleted or absent)--> FINISHED once cleaned

Source: kubelet, pod_workers.go.
"""

from __future__ import annotations

import enum

from edgecore.edged.pod import Pod
from edgecore.edged.status import Outcome


class Life(enum.Enum):
    SYNCING = "syncing"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FINISHED = "finished"


class PodWorker:
    """State of one pod UID.  pod: the newest that was wanted.  Times are Unix seconds."""

    def __init__(self, pod: Pod, *, outcome: Outcome | None = None, started_at: float | None = None) -> None:
        """outcome: as remembered from before a restart of the agent."""
        self.pod = pod
        self.life = Life.SYNCING
        self.outcome = outcome
        self.started_at = started_at
        self.absent = False
        self.grace_s = pod.grace_period_s
        self.reason = ""
        if outcome is not None:
            self._end("Ended", pod.grace_period_s)
        self.update(pod)

    def update(self, pod: Pod) -> bool:
        """A newer desired pod; True when something is to be done.  A deletion's grace can only get shorter."""
        changed = pod is not self.pod
        self.pod = pod
        # whatever made it look absent was wrong, unless it is being ended already
        if self.life is Life.SYNCING:
            self.absent = False
        if pod.deleting:
            changed |= self._end("Deleted", pod.grace_period_s)
        return changed

    def gone(self) -> bool:
        """It is wanted no more, and two readings agreed on that."""
        was = self.absent
        self.absent = True
        return self._end("Orphaned", self.pod.grace_period_s) or not was

    def fail(self, outcome: Outcome, grace_s: int | None = None) -> bool:
        """The node ends it: deadline, eviction, a spec that cannot be run."""
        if self.life is not Life.SYNCING:
            return False
        self.outcome = outcome
        return self._end(outcome.reason, grace_s if grace_s is not None else self.pod.grace_period_s)

    def cut(self, grace_s: int) -> bool:
        """One that is ending has no more than this left; True when that is news."""
        return self.life is Life.TERMINATING and self._end(self.reason, grace_s)

    def completed(self) -> bool:
        """Its containers have all ended for good."""
        return self._end("Completed", self.pod.grace_period_s)

    def stopped(self) -> None:
        """Nothing of it runs any more."""
        if self.life is Life.TERMINATING:
            self.life = Life.TERMINATED

    def cleaned(self) -> None:
        """Volumes, containers and sandboxes are removed."""
        assert self.to_clean
        self.life = Life.FINISHED

    @property
    def to_clean(self) -> bool:
        """Whether everything of it may be removed: it ended, and nobody wants to read it any more."""
        return self.life is Life.TERMINATED and (self.pod.deleting or self.absent)

    def deadline_in_s(self, now: float) -> float | None:
        """Seconds until activeDeadlineSeconds; None when there is none."""
        limit = self.pod.spec.active_deadline_seconds
        if limit is None or self.started_at is None or self.life is not Life.SYNCING:
            return None
        return self.started_at + limit - now

    def _end(self, reason: str, grace_s: int) -> bool:
        if self.life is Life.SYNCING:
            self.life = Life.TERMINATING
            self.reason = reason
            self.grace_s = grace_s
            return True
        if self.life is Life.TERMINATING and grace_s < self.grace_s:
            self.grace_s = grace_s
            return True
        return False
