"""Ages, and cells that many kinds have."""

from datetime import UTC, datetime, timedelta

import pytest

from beehive.printing import cells

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10_799, "179m"), (10_800, "3h"),
        (11_000, "3h3m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"),
        (9 * 86400, "9d"), (800 * 86400, "2y70d"), (9 * 365 * 86400, "9y"), (-1, "0s"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages(seconds: int, shown: str) -> None:
    assert cells.age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == shown


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        (None, "<unknown>"),
        ("", "<unknown>"),
        ("yesterday", "<invalid>"),
        ("0001-01-01T00:00:00+14:00", "<invalid>"),
    ],
)
def test_times_that_are_none(then: str | None, shown: str) -> None:
    assert cells.age(then, NOW) == shown


def test_what_is_not_there_is_the_default() -> None:
    assert cells.get({"a": {"b": 1}}, "a.b") == 1
    assert cells.get({"a": [1]}, "a.b", "x") == "x"
    assert cells.pairs("s")({"s": {"b": "2", "a": "1"}}, NOW) == "a=1,b=2"
    assert cells.pairs("s")({}, NOW) == "<none>"
    assert cells.count("data", "binaryData")({"data": {"a": ""}, "binaryData": None}, NOW) == 1
