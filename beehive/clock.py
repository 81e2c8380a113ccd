"""The only reader of clocks, so that everything else can be given a time.

Two clocks: `wall` for what people and peers read, `monotonic` for how long something took.  The monotonic one counts
while the machine sleeps (CLOCK_BOOTTIME), because edge machines do sleep and a lease does not wait for them.

A machine's clock may be years ahead (a battery, a wrong hand): then every certificate and token looks as if it were over.  Who
has the time from somebody to be trusted says so by `correct`, and `wall` is that time as long as the machine's own is far ahead
of it.  `machine` is what the machine says in any case, for what is compared with times that others on it wrote."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

log = logging.getLogger(__name__)

AHEAD_S = 3600.0
"""A machine's clock that is no more than this ahead of a known time is believed: somebody has set it, or sets it soon."""

_known: tuple[float, float] | None = None
"""A time that was known (Unix seconds), and when, by `monotonic`."""


def monotonic() -> float:
    """Seconds since boot, sleep included; never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> datetime:
    """Now, in UTC."""
    return datetime.fromtimestamp(_now(), UTC) if _known is not None else machine()


def wall_ms() -> int:
    """Now as whole milliseconds since the epoch, as the wire's timestamps are."""
    return int(_now() * 1000) if _known is not None else machine_ms()


def machine() -> datetime:
    """What this machine's clock says, in UTC, right or wrong."""
    return datetime.fromtimestamp(time.time(), UTC)


def machine_ms() -> int:
    """The same as whole milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def correct(at: float) -> None:
    """Now it is `at` (Unix seconds), says somebody who can be trusted.  Counts while the machine's clock is far ahead of it."""
    global _known
    _known = (at, monotonic())


def ahead_s() -> float:
    """By how much the machine's clock is ahead of a time that is known; 0 while it is believed."""
    if _known is None:
        return 0.0
    return max(0.0, time.time() - _now())


def _now() -> float:
    global _known
    machine, known = time.time(), _known
    if known is None:
        return machine
    now = known[0] + monotonic() - known[1]
    if machine - now > AHEAD_S:
        return now
    _known = None
    log.info("This machine's clock is right again")
    return machine


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
