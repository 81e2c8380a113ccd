"""How long to wait before trying again.  Pure: randomness and time come from the caller."""

from __future__ import annotations

import random

import msgspec


class Backoff(msgspec.Struct):
    """Exponential delays with full jitter in their upper half.

    base_s, cap_s: first and longest delay.  The nth delay lies in [d/2, d] with d = min(cap, base * 2**n): never zero, so
    that a broken peer is not hammered, and spread, so that a fleet does not return in step.  `reset` after a success."""

    base_s: float = 0.5
    cap_s: float = 30.0
    attempts: int = 0

    def next_s(self, rng: random.Random) -> float:
        """The delay before the next attempt, in seconds; counts the attempt."""
        # 2**attempts would overflow a float after weeks offline
        delay = min(self.cap_s, self.base_s * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return delay / 2 + rng.random() * delay / 2

    def reset(self) -> None:
        """Forget past failures."""
        self.attempts = 0
