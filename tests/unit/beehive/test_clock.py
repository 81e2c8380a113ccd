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
