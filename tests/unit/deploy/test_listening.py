"""Whether a port can be listened on, asked of the kernel."""

from __future__ import annotations

import errno
import socket

import pytest

from deploy import listening


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_is_free_until_somebody_listens(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if listening.refusal(address, 0) is not None:
        pytest.skip(f"there is no {address} here")
    with socket.create_server((address, 0), family=family) as taken:
        port = taken.getsockname()[1]
        error = listening.refusal(address, port)
        assert error is not None
        assert error.errno == errno.EADDRINUSE
    assert listening.refusal(address, port) is None


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_others(address: str) -> None:
    error = listening.refusal(address, 0)
    assert error is not None
    assert error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
