"""Ports for servers that a test starts a little later.

Taken from below those that the system gives to outgoing connections (net.ipv4.ip_local_port_range), so that none of the
many connections of other tests has it by the time the server binds it."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 at which nobody listens, another one each time."""
    for _ in range(1000):
        port = random.SystemRandom().randint(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no port from {_FIRST} to {_LAST} is free")
