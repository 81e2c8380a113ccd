"""How much one edge may send: a bucket that fills with time.  Pure."""

from __future__ import annotations


class Allowance:
    """rate_s: frames each second.   burst: frames at once after a quiet time.   now: of any clock that does not go back."""

    def __init__(self, rate_s: float, burst: float, now: float) -> None:
        self._rate_s = rate_s
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> float:
        """One more came: how long to wait before the next is read."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate_s) - 1
        self._at = now
        return max(0.0, -self._left / self._rate_s)
