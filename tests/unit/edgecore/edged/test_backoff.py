from __future__ import annotations

from edgecore.edged import backoff


def test_delays_double_up_to_five_minutes() -> None:
    entry, now, seen = None, 1000.0, []
    for _ in range(8):
        wait = backoff.remaining_s(entry, failed_at=now, failed_for_s=0)
        seen.append(wait)
        entry = backoff.after_try(entry, failed_at=now, now=now + wait)
        now += wait + 1
    assert seen == [0, 10, 20, 40, 80, 160, 300, 300]


def test_ten_good_minutes_forgive() -> None:
    entry = backoff.Delay(delay_s=160, updated_at=0)
    assert backoff.remaining_s(entry, failed_at=599, failed_for_s=0) == 160
    assert backoff.remaining_s(entry, failed_at=601, failed_for_s=0) == 0
    assert backoff.after_try(entry, failed_at=601, now=602).delay_s == 10


def test_time_already_waited_counts() -> None:
    entry = backoff.Delay(delay_s=10, updated_at=0)
    assert backoff.remaining_s(entry, failed_at=1, failed_for_s=4) == 6
    assert backoff.remaining_s(entry, failed_at=1, failed_for_s=40) == 0
