from __future__ import annotations

import pytest

from edgecore.edged.pod import ExecAction, Probe
from edgecore.edged.probes import Kind, ProbeState, first_delay_s, period_s, timeout_s


def state(kind: Kind, *, failures: int = 3, successes: int = 1, verdict: bool | None = None) -> ProbeState:
    probe = Probe(exec=ExecAction(command=["x"]), failure_threshold=failures, success_threshold=successes)
    return ProbeState(kind, probe, verdict=verdict)


@pytest.mark.parametrize(
    ("kind", "ready", "failed"),
    [(Kind.LIVENESS, True, False), (Kind.READINESS, False, False), (Kind.STARTUP, False, False)],
)
def test_before_the_first_result(kind: Kind, ready: bool, failed: bool) -> None:
    s = state(kind)
    assert (s.ready, s.failed, s.done) == (ready, failed, False)


def test_thresholds_count_in_a_row() -> None:
    s = state(Kind.LIVENESS, failures=3)
    assert [s.result(r) for r in (False, False, True, False, False)] == [False, False, True, False, False]
    assert not s.failed
    assert s.result(False)
    assert s.failed
    assert s.done


def test_readiness_goes_both_ways() -> None:
    s = state(Kind.READINESS, failures=2, successes=2)
    assert [s.result(True), s.ready] == [False, False]
    assert [s.result(True), s.ready] == [True, True]
    assert [s.result(False), s.ready] == [False, True]
    assert [s.result(False), s.ready] == [True, False]
    assert not s.done


def test_startup_ends_with_its_first_verdict() -> None:
    s = state(Kind.STARTUP)
    assert s.result(True)
    assert s.done
    assert s.ready
    failing = state(Kind.STARTUP, failures=1)
    failing.result(False)
    assert failing.failed
    assert failing.done


def test_what_was_known_before_holds_until_shown_otherwise() -> None:
    s = state(Kind.READINESS, failures=2, verdict=True)
    assert s.ready
    s.result(False)
    assert s.ready
    s.result(False)
    assert not s.ready


def test_times_have_floors() -> None:
    probe = Probe(exec=ExecAction(), period_seconds=0, timeout_seconds=0, initial_delay_seconds=5)
    assert (period_s(probe), timeout_s(probe)) == (10, 1)
    assert first_delay_s(probe, running_for_s=2) == 3
    assert first_delay_s(probe, running_for_s=9) == 0
