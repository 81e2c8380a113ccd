"""Cron schedules: when is the next time.  Pure.

The five fields with names, ranges, lists and steps, and the @ words.  As in Kubernetes, a day must fit the day of the
month or the day of the week when both are restricted.  Source: robfig/cron's documentation, which CronJob names."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {name: at for at, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: at for at, name in enumerate(_DAY_NAMES)}
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
HORIZON_DAYS = 8 * 366
"""29 February can be eight years away."""


class BadSchedule(ValueError):
    """The text is not a schedule, or names no zone that is known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: tzinfo

    def _fits_day(self, at: datetime) -> bool:
        if at.month not in self.months:
            return False
        day, weekday = at.day in self.days, (at.weekday() + 1) % 7 in self.weekdays
        return day and weekday if self.any_day or self.any_weekday else day or weekday

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than `moment`, in UTC; None if there is none."""
        start = moment.astimezone(self.zone).replace(second=0, microsecond=0)
        hours, minutes = sorted(self.hours), sorted(self.minutes)
        day = start.replace(hour=0, minute=0)
        for _ in range(HORIZON_DAYS):
            if self._fits_day(day):
                for hour in hours:
                    if day.date() == start.date() and hour < start.hour:
                        continue
                    for minute in minutes:
                        # wall time that a change of the clock skips is moved on by it
                        at = day.replace(hour=hour, minute=minute).astimezone(UTC)
                        if at > moment:
                            return at
            day = (day.replace(hour=12) + timedelta(days=1)).replace(hour=0)
        return None


def parse(text: str, zone: str = "") -> Schedule:
    """Raises BadSchedule."""
    try:
        where = zoneinfo.ZoneInfo(zone) if zone else UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise BadSchedule(f"unknown time zone {zone}") from error
    parts = _WORDS.get(text.strip(), text).split()
    if len(parts) != len(_FIELDS):
        raise BadSchedule(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    values = [_field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
    return Schedule(
        minutes=values[0],
        hours=values[1],
        days=values[2],
        months=values[3],
        weekdays=values[4],
        any_day=parts[2][0] in "*?",
        any_weekday=parts[4][0] in "*?",
        zone=where,
    )


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        if span in ("*", "?"):
            first, last = low, high
        else:
            first = _number(first_text, names, name)
            last = _number(last_text, names, name) if dash else high if slash else first
        step = _number(step_text, {}, name) if slash else 1
        if first < low or last > high or first > last or step < 1:
            raise BadSchedule(f"{part} is not a {name}: {low} to {high}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, names: dict[str, int], field: str) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise BadSchedule(f"failed to parse {field} {text!r}")
    return int(text)
