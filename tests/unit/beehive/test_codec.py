"""Bytes to messages and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import codec
from beehive.errors import ProtocolError
from beehive.message import Group, Op, Source, new


def test_what_was_written_is_read() -> None:
    message = new(
        source=Source.EDGED,
        group=Group.RESOURCE,
        operation=Op.UPDATE,
        resource="ns/pod/p",
        content={"a": "<&>\u2028"},
    )
    assert codec.decode(codec.encode(message)) == message
    assert codec.decode(codec.encode(message).decode()) == message
    assert codec.decode(codec.encode(message) + b"\n") == message, "as a Go peer ends it"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_a_fault_of_the_peer(data: bytes) -> None:
    try:
        codec.decode(data)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"header": 3}',
        b'{"content": "\xff"}',
        b'{"content": ' + b"[" * 100_000,
        b'{"header": {"msg_id": "\xed\xa0\x80"}}',
    ],
)
def test_what_cannot_be_read(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(data)


def test_the_size_is_looked_at_first() -> None:
    with pytest.raises(ProtocolError, match="over the limit of 10"):
        codec.decode(b" " * 11, limit=10)
