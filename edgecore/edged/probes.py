"""When a probe is due and what its results add up to.  Pure.

One `ProbeState` a container and kind; the shell asks `wait_s`, runs the probe, and hands in the result.
Source: kubelet, prober/worker.go.
"""

from __future__ import annotations

import enum

from edgecore.edged.pod import Probe


class Kind(enum.Enum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class ProbeState:
    """The verdict of one probe on one container id.

    verdict: None until the thresholds are reached for the first time.
    """

    def __init__(self, kind: Kind, probe: Probe, *, verdict: bool | None = None) -> None:
        """verdict: what was known of the same container before the agent was restarted."""
        self.kind = kind
        self.probe = probe
        self.verdict = verdict
        self._last: bool | None = None
        self._run = 0

    @property
    def ready(self) -> bool:
        """Readiness and startup: only success counts.  Liveness: alive until shown otherwise."""
        if self.kind is Kind.LIVENESS:
            return self.verdict is not False
        return self.verdict is True

    @property
    def failed(self) -> bool:
        return self.verdict is False

    @property
    def done(self) -> bool:
        """A startup probe has nothing to do once it succeeded; a container that failed is the worker's to kill."""
        if self.kind is Kind.STARTUP:
            return self.verdict is not None
        return self.kind is Kind.LIVENESS and self.verdict is False

    def result(self, success: bool) -> bool:  # noqa: FBT001
        """Take one result; True when the verdict changed."""
        if success == self._last:
            self._run += 1
        else:
            self._last, self._run = success, 1
        # liveness and startup take one success whatever is written, as the API demands
        needed = self.probe.success_threshold if success else self.probe.failure_threshold
        if self._run < max(1, needed):
            return False
        changed = self.verdict is not success
        self.verdict = success
        return changed


def first_delay_s(probe: Probe, *, running_for_s: float) -> float:
    """Seconds until the first probe of a container that has run for so long."""
    return max(0.0, probe.initial_delay_seconds - running_for_s)


def period_s(probe: Probe) -> float:
    return float(max(1, probe.period_seconds or 10))


def timeout_s(probe: Probe) -> float:
    return float(max(1, probe.timeout_seconds or 1))
