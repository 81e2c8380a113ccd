"""How guessing is slowed down: cloudcore.identity.join.Limiter."""

from __future__ import annotations

from cloudcore.identity.join import Limiter


def test_who_fails_waits_and_nobody_else() -> None:
    limiter = Limiter(burst=3, rate_s=1.0)
    for _ in range(3):
        assert not limiter.blocked(10.0, "192.0.2.1")
        limiter.failed(10.0, "192.0.2.1")
    assert limiter.blocked(10.5, "192.0.2.1")
    assert not limiter.blocked(10.5, "192.0.2.2")
    assert not limiter.blocked(11.5, "192.0.2.1"), "one more attempt for each second waited"
    limiter.failed(11.5, "192.0.2.1")
    assert limiter.blocked(11.9, "192.0.2.1")


def test_an_ipv6_network_is_one_source() -> None:
    limiter = Limiter(burst=2)
    limiter.failed(0.0, "2001:db8::1")
    limiter.failed(0.0, "2001:db8::ffff")
    assert limiter.blocked(0.0, "2001:db8::2")
    assert not limiter.blocked(0.0, "2001:db8:0:1::2")


def test_what_is_remembered_is_bounded() -> None:
    limiter = Limiter(burst=1, sources=10)
    for number in range(1000):
        limiter.failed(0.0, f"host-{number}")
    assert len(limiter._buckets) == 10
    assert limiter.blocked(0.0, "host-999")
    assert not limiter.blocked(0.0, "host-1")
