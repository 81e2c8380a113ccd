from __future__ import annotations

import pytest

from edgecore.edged.podworker import Life, PodWorker
from edgecore.edged.status import Outcome
from tests.unit.edgecore.edged.builders import make

FAILED = Outcome(phase="Failed", reason="Evicted", message="m")


def deleting(grace: int) -> dict[str, object]:
    return {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}


def test_a_deletion_goes_through_all_states() -> None:
    w = PodWorker(make())
    assert w.life is Life.SYNCING
    assert w.update(make(meta=deleting(9)))
    assert (w.life, w.grace_s, w.reason) == (Life.TERMINATING, 9, "Deleted")
    assert not w.to_clean
    w.stopped()
    assert w.life is Life.TERMINATED
    assert w.to_clean
    w.cleaned()
    assert w.life is Life.FINISHED


def test_grace_only_gets_shorter() -> None:
    w = PodWorker(make(meta=deleting(9)))
    w.update(make(meta=deleting(20)))
    assert w.grace_s == 9
    w.update(make(meta=deleting(2)))
    assert w.grace_s == 2


def test_a_kill_is_never_taken_back() -> None:
    w = PodWorker(make(meta=deleting(9)))
    w.update(make())
    assert w.life is Life.TERMINATING
    w = PodWorker(make())
    w.gone()
    w.update(make())
    assert w.life is Life.TERMINATING


def test_a_completed_pod_stays_until_it_is_deleted() -> None:
    w = PodWorker(make())
    w.completed()
    w.stopped()
    assert w.life is Life.TERMINATED
    assert not w.to_clean
    w.update(make(meta=deleting(1)))
    assert w.to_clean
    other = PodWorker(make())
    other.completed()
    other.stopped()
    other.gone()
    assert other.to_clean


def test_an_outcome_is_kept_and_the_first_one_counts() -> None:
    w = PodWorker(make())
    assert w.fail(FAILED, grace_s=0)
    assert not w.fail(Outcome(phase="Failed", reason="Other", message=""))
    assert (w.outcome, w.grace_s) == (FAILED, 0)
    again = PodWorker(make(), outcome=FAILED)
    assert again.life is Life.TERMINATING


def test_cleaning_before_the_end_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        PodWorker(make()).cleaned()


def test_deadlines() -> None:
    w = PodWorker(make(activeDeadlineSeconds=10), started_at=100.0)
    assert w.deadline_in_s(104.0) == 6
    assert PodWorker(make(), started_at=100.0).deadline_in_s(104.0) is None
    w.completed()
    assert w.deadline_in_s(104.0) is None
