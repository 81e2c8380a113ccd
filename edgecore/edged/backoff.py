"""Crash and pull back-off, counted as a kubelet does.  Pure.

The first failure is retried at once and leaves a delay of 10 s for the next one; each further one doubles it up to
5 minutes; a thing that held for 10 minutes starts from nothing again.
Source: client-go flowcontrol/backoff.go and kuberuntime_manager.go doBackOff.
"""

from __future__ import annotations

import msgspec

INITIAL_S = 10.0
MAX_S = 300.0
RESET_S = 600.0


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """delay_s applies to failures since updated_at (Unix seconds)."""

    delay_s: float
    updated_at: float


def remaining_s(entry: Delay | None, *, failed_at: float, failed_for_s: float) -> float:
    """How long to wait before trying again what failed at `failed_at`, `failed_for_s` seconds ago; 0 means now."""
    if entry is None or failed_at - entry.updated_at > RESET_S:
        return 0.0
    return max(0.0, entry.delay_s - failed_for_s)


def after_try(entry: Delay | None, *, failed_at: float, now: float) -> Delay:
    """The entry to keep when a new try is made after the failure at `failed_at`."""
    if entry is None or failed_at - entry.updated_at > RESET_S:
        return Delay(delay_s=INITIAL_S, updated_at=now)
    return Delay(delay_s=min(MAX_S, entry.delay_s * 2), updated_at=now)
