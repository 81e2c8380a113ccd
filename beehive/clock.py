"""The only reader of clocks, so that everything else can be given a time.

Two clocks: `wall` for what people and peers read, `monotonic` for how long something took.  The monotonic one counts
while the machine sleeps (CLOCK_BOOTTIME), because edge machines do sleep and a lease does not wait for them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Seconds since boot, sleep included; never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def wall_ms() -> int:
    """Now as whole milliseconds since the epoch, as the wire's timestamps are."""
    return time.time_ns() // 1_000_000


def rfc3339(at: datetime | None = None) -> str:
    """`at` (default now) as Kubernetes writes metav1.Time: whole seconds, `Z`."""
    return (at or wall()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(at: datetime | None = None) -> str:
    """`at` (default now) as Kubernetes writes metav1.MicroTime."""
    return (at or wall()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """Read either form.  Raises ValueError."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:  # the first and the last day, with an offset
        raise ValueError(f"{text!r} is no time that can be reckoned with") from error
