"""Which address a hub tells others."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cloudcore.identity import addresses


class Probe:
    """A socket of a machine that has the families in `routes`."""

    routes: dict[int, str] = {}

    def __init__(self, family: int, kind: int) -> None:
        del kind
        self.family = family

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def connect(self, target: tuple[str, int]) -> None:
        assert (":" in target[0]) == (self.family == socket.AF_INET6)
        if self.family not in self.routes:
            raise OSError(101, "Network is unreachable")

    def getsockname(self) -> tuple[str, int]:
        return (self.routes[self.family], 1)


@pytest.mark.parametrize(
    ("routes", "address"),
    [
        ({socket.AF_INET: "10.0.0.7", socket.AF_INET6: "fd00::7"}, "10.0.0.7"),
        ({socket.AF_INET6: "fd00::7"}, "fd00::7"),
        ({}, "127.0.0.1"),
    ],
)
def test_the_address_towards_others(
    routes: dict[int, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with IPv6 alone the hub named loopback, and nobody else could reach the nodes' logs."""
    monkeypatch.setattr(Probe, "routes", routes)
    monkeypatch.setattr(addresses.socket, "socket", Probe)
    assert addresses.primary_address() == address
