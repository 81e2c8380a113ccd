"""Addresses on a loopback device: one of a network namespace that ends with the test's child."""

import os
import subprocess
import sys

import pytest

from edgecore.metaserver import addresses

STORY = """
import ctypes, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x40000000) == 0  # CLONE_NEWNET
from beehive.errors import Unavailable
from edgecore.metaserver import addresses
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for address in ("169.254.30.10", "fe80::30:10"):
    assert not addresses.is_here(address) or ":" in address
    addresses.add(address)
    addresses.add(address)
    shown = subprocess.run(["ip", "-o", "addr", "show", "dev", "lo"], capture_output=True, text=True).stdout
    assert f" {address}/" in shown, shown
    if ":" not in address:
        assert addresses.is_here(address)
        with socket.create_server((address, 0)) as server:
            socket.create_connection(server.getsockname()).close()
    addresses.remove(address)
    addresses.remove(address)
    shown = subprocess.run(["ip", "-o", "addr", "show", "dev", "lo"], capture_output=True, text=True).stdout
    assert f" {address}/" not in shown, shown
try:
    addresses.add("169.254.30.10", "nothing0")
except Unavailable as error:
    assert "nothing0" in str(error)
else:
    raise AssertionError("a device that is not there")
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_an_address_comes_and_goes() -> None:
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    done = subprocess.run(
        [sys.executable, "-c", STORY],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("address", "ours"),
    [("169.254.30.10", True), ("127.0.0.1", False), ("192.0.2.1", False), ("fe80::1", True), ("::1", False)],
)
def test_only_link_local_addresses_are_taken(address: str, ours: bool) -> None:
    assert addresses.is_link_local(address) is ours
