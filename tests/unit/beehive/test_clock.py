"""Times as Kubernetes writes them: beehive.clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from beehive import clock


def test_formats() -> None:
    at = datetime(2026, 11, 21, 5, 4, 35, 120, tzinfo=UTC)
    assert clock.rfc3339(at) == "2026-11-21T05:04:35Z"
    assert clock.rfc3339_micro(at) == "2026-11-21T05:04:35.000120Z"
    assert clock.parse_rfc3339("2026-11-21T05:04:35.000120Z") == at


def test_monotonic_does_not_go_back() -> None:
    assert clock.monotonic() <= clock.monotonic()


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "soon", ""])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    """Whoever reads a time from outside expects nothing else."""
    with pytest.raises(ValueError):
        clock.parse_rfc3339(text)


def test_a_clock_that_is_far_ahead_of_a_known_time_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        """Its clock on the wall, and how long it has run."""

        CLOCK_BOOTTIME = 7
        now, ran = 2_000_000_000.0, 100.0

        def time(self) -> float:
            return self.now

        def time_ns(self) -> int:
            return int(self.now * 1e9)

        def clock_gettime(self, number: int) -> float:
            return self.ran

    machine = Machine()
    monkeypatch.setattr(clock, "time", machine)
    monkeypatch.setattr(clock, "_known", None)
    assert clock.wall().timestamp() == 2_000_000_000
    clock.correct(1_800_000_000.0)
    machine.now += 50
    machine.ran += 50
    assert clock.wall().timestamp() == 1_800_000_050
    assert clock.wall_ms() == 1_800_000_050_000
    assert clock.rfc3339() == "2027-01-15T08:00:50Z"
    assert clock.ahead_s() == 200_000_000
    assert clock.machine().timestamp() == 2_000_000_050
    # set, and a little ahead still
    machine.now = 1_800_000_050.0 + clock.AHEAD_S
    assert clock.wall().timestamp() == machine.now
    assert clock.ahead_s() == 0
    # a step that comes later is another matter
    machine.now += 1e8
    assert clock.wall().timestamp() == machine.now
