from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcore.standalone.cron import BadSchedule, parse

START = datetime(2026, 2, 27, 10, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("* * * * *", "2026-02-27 10:31"),
        ("*/20 * * * *", "2026-02-27 10:40"),
        ("0 9-17/4 * * *", "2026-02-27 13:00"),
        ("30 10 * * *", "2026-02-28 10:30"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 12 * * mon", "2026-03-02 12:00"),
        ("0 0 13 * fri", "2026-03-06 00:00"),
        ("15,45 0 1 Jan,Jul *", "2026-07-01 00:15"),
        ("@hourly", "2026-02-27 11:00"),
        ("@weekly", "2026-03-01 00:00"),
        ("0 0 30 2 *", None),
    ],
)
def test_the_next_time(text: str, want: str | None) -> None:
    found = parse(text).after(START)
    assert (found.strftime("%Y-%m-%d %H:%M") if found else None) == want


def test_a_zone_has_its_own_midnight() -> None:
    found = parse("0 0 * * *", "Europe/Berlin").after(START)
    assert found == datetime(2026, 2, 27, 23, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@x"]
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(BadSchedule):
        parse(text)
    with pytest.raises(BadSchedule, match="time zone"):
        parse("* * * * *", "Moon/Sea")


@given(st.integers(10**9, 2 * 10**9), st.integers(0, 59), st.integers(0, 23))
def test_times_grow_and_fit(seconds: int, minute: int, hour: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    found = parse(f"{minute} {hour} * * *").after(moment)
    assert found is not None
    assert found > moment
    assert (found.minute, found.hour) == (minute, hour)
