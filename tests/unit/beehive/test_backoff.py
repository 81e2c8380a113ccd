"""Delays between attempts: beehive.backoff."""

from __future__ import annotations

import random

from beehive.backoff import Backoff


def test_delays_grow_to_the_cap_with_jitter_in_the_upper_half() -> None:
    backoff = Backoff(base_s=0.5, cap_s=30.0)
    rng = random.Random(7)
    for attempt in range(200):
        full = min(30.0, 0.5 * 2**attempt)
        assert full / 2 <= backoff.next_s(rng) <= full
    backoff.reset()
    assert backoff.next_s(rng) <= 0.5


def test_a_fleet_does_not_return_in_step() -> None:
    rng = random.Random(1)
    delays = {round(Backoff(attempts=6).next_s(rng), 2) for _ in range(1000)}
    assert len(delays) > 500
