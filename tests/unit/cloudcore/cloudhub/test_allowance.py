"""How fast one edge is read."""

from __future__ import annotations

import pytest

from cloudcore.cloudhub.allowance import Allowance


def test_a_burst_is_free_and_then_each_frame_waits_for_its_turn() -> None:
    allowance = Allowance(10.0, 3.0, 100.0)
    assert [allowance.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert allowance.take(100.0) == pytest.approx(0.1)
    assert allowance.take(100.0) == pytest.approx(0.2)
    # who waits as told is at zero again
    assert allowance.take(100.3) == pytest.approx(0.0, abs=1e-9)


def test_a_quiet_time_saves_no_more_than_a_burst() -> None:
    allowance = Allowance(10.0, 3.0, 0.0)
    assert [allowance.take(1e6) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert allowance.take(1e6) > 0
