"""SPDY as runtimes speak it: one end here, a small server's end in the test."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import spdy
from beehive.errors import ProtocolError
from beehive.spdy import Client, Data, Reply


def control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8003, kind, flags << 24 | len(body)) + body


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!II", stream, flags << 24 | len(body)) + body


def packed(block: bytes) -> bytes:
    deflate = zlib.compressobj(9, zdict=spdy.DICTIONARY)
    return deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)


def test_the_dictionary_is_the_one_of_the_protocol() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_streams_are_opened_with_odd_numbers_and_readable_headers() -> None:
    client = Client()
    inflate = zlib.decompressobj(zdict=spdy.DICTIONARY)
    for number, name in ((1, "error"), (3, "stdin")):
        stream, frame = client.open({"StreamType": name})
        assert stream == number
        head = struct.unpack_from("!HHIIIH", frame)
        assert head == (0x8003, 1, len(frame) - 8, number, 0, 0)
        block = inflate.decompress(frame[18:])
        value = name.encode()
        assert block == struct.pack("!II", 1, 10) + b"streamtype" + struct.pack("!I", len(value)) + value


def test_data_goes_both_ways_with_its_end() -> None:
    client = Client()
    stream, _ = client.open({"streamtype": "stdout"})
    assert client.data(stream, b"abc") == b"\0\0\0\1\0\0\0\3abc"
    assert client.data(stream, b"", fin=True) == b"\0\0\0\1\1\0\0\0"
    assert client.receive(data(1, b"out") + data(1, b"", 1)) == [Data(1, b"out", False), Data(1, b"", True)]
    # nobody opened that one
    assert client.receive(data(9, b"x")) == []


def test_control_frames() -> None:
    client = Client()
    client.open({"streamtype": "stdout"})
    assert client.receive(control(2, struct.pack("!I", 1) + packed(struct.pack("!I", 0)))) == []
    assert client.receive(control(6, b"\0\0\0\2")) == [Reply(control(6, b"\0\0\0\2"))]
    assert client.receive(control(6, b"\0\0\0\1")) == []
    assert client.receive(control(4, b"\0" * 12) + control(7, b"\0" * 8) + control(9, b"\0" * 8)) == []
    assert client.receive(control(3, struct.pack("!II", 1, 5))) == [Data(1, b"", True)]


@pytest.mark.parametrize(
    "bad",
    [
        control(1, b"\0\0\0\2" + b"\0" * 6),
        control(2, b"\0"),
        control(2, b"\0\0\0\1garbage"),
        control(99, b""),
        struct.pack("!HHI", 0x8002, 6, 4) + b"\0\0\0\2",
        struct.pack("!II", 1, spdy.MAX_FRAME + 1),
        control(2, struct.pack("!I", 1) + packed(b"\0" * 10_000_000)),
    ],
)
def test_what_no_runtime_sends_is_an_error(bad: bytes) -> None:
    client = Client()
    client.open({"streamtype": "stdout"})
    with pytest.raises(ProtocolError):
        client.receive(bad)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_garbage_is_understood_or_a_protocol_error(parts: list[bytes]) -> None:
    client = Client()
    client.open({"streamtype": "stdout"})
    try:
        for part in parts:
            client.receive(part)
    except ProtocolError:
        return


@given(st.lists(st.integers(1, 9), max_size=40))
def test_frames_may_be_cut_anywhere(sizes: list[int]) -> None:
    client = Client()
    client.open({"streamtype": "stdout"})
    rest = data(1, b"hello") + control(6, b"\0\0\0\2") + data(1, b"", 1)
    events = []
    for size in sizes:
        events += client.receive(rest[:size])
        rest = rest[size:]
    events += client.receive(rest)
    assert events == [Data(1, b"hello", False), Reply(control(6, b"\0\0\0\2")), Data(1, b"", True)]
