"""Times as Kubernetes writes them: beehive.clock."""

from __future__ import annotations

from datetime import UTC, datetime

from beehive import clock


def test_formats() -> None:
    at = datetime(2026, 11, 21, 5, 4, 35, 120, tzinfo=UTC)
    assert clock.rfc3339(at) == "2026-11-21T05:04:35Z"
    assert clock.rfc3339_micro(at) == "2026-11-21T05:04:35.000120Z"
    assert clock.parse_rfc3339("2026-11-21T05:04:35.000120Z") == at


def test_monotonic_does_not_go_back() -> None:
    assert clock.monotonic() <= clock.monotonic()
