"""Which of the kernel's messages mean that the network may have changed."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from edgecore.edgehub.netlink import matters


def message(kind: int, body: bytes = b"\0" * 8) -> bytes:
    return struct.pack("=LHHLL", 16 + len(body), kind, 0, 0, 0) + body


def test_addresses_and_routes_matter_and_links_do_not() -> None:
    assert matters(message(20))
    assert matters(message(25))
    assert not matters(message(16))  # a pod's veth pair
    assert matters(message(16) + message(24))
    assert not matters(b"")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    matters(data)
