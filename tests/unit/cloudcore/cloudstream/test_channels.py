"""Channel messages to SPDY and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ProtocolError
from cloudcore.cloudstream.channels import MAX_DATA, Translator
from cloudcore.cloudstream.podrequests import PodRequest


def translator(**streams: bool) -> tuple[Translator, dict[str, int]]:
    request = PodRequest(verb="exec", node="n", container="c", path="/", **streams)
    made = Translator(request)
    opening = made.opening()
    numbers = {}
    order = [
        "error",
        *(n for n in ("stdin", "stdout", "stderr") if streams.get(n)),
        *(["resize"] * streams.get("tty", False)),
    ]
    at = 0
    for name in order:
        _, kind, length, stream = struct.unpack_from("!HHII", opening, at)
        assert kind == 1
        numbers[name] = stream
        at += 8 + (length & 0xFFFFFF)
    assert at == len(opening)
    return made, numbers


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!II", stream, flags << 24 | len(body)) + body


def test_every_wanted_stream_is_opened_and_no_other() -> None:
    assert set(translator(stdin=True, stdout=True, stderr=True)[1]) == {"error", "stdin", "stdout", "stderr"}
    assert set(translator(stdout=True, tty=True)[1]) == {"error", "stdout", "resize"}


def test_stdin_goes_down_in_parts_and_its_end_is_told_once() -> None:
    made, n = translator(stdin=True, stdout=True)
    assert made.from_client(b"\0hello") == data(n["stdin"], b"hello")
    long = made.from_client(b"\0" + b"x" * (MAX_DATA + 1))
    assert long == data(n["stdin"], b"x" * MAX_DATA) + data(n["stdin"], b"x")
    assert made.from_client(b"\xff\0") == data(n["stdin"], b"", 1)
    assert made.from_client(b"\xff\0") == b""
    assert made.from_client(b"\0late") == b""
    assert made.from_client(b"") == made.from_client(b"\0") == made.from_client(b"\xff\1") == b""


def test_sizes_of_the_terminal_go_down() -> None:
    made, n = translator(stdout=True, tty=True)
    assert made.from_client(b'\4{"Width":80,"Height":24}') == data(n["resize"], b'{"Width":80,"Height":24}')
    assert translator(stdout=True)[0].from_client(b"\4{}") == b""


def test_outputs_and_the_verdict_come_up_on_their_channels() -> None:
    made, n = translator(stdout=True, stderr=True)
    messages, back = made.from_runtime(data(n["stdout"], b"o") + data(n["stderr"], b"e", 1))
    assert (messages, back, made.finished) == ([b"\1o", b"\2e"], b"", False)
    ping = struct.pack("!HHI", 0x8003, 6, 4) + b"\0\0\0\2"
    messages, back = made.from_runtime(ping + data(n["error"], b"{}"))
    assert (messages, back, made.finished) == ([b"\3{}"], ping, True)


@pytest.mark.parametrize("message", [b"\1x", b"\3x", b"\x07x", b"\xff", b"\xff\0\0"])
def test_what_a_client_must_not_send(message: bytes) -> None:
    made, _ = translator(stdin=True, stdout=True)
    with pytest.raises(ProtocolError):
        made.from_client(message)


@given(st.lists(st.binary(max_size=30)), st.lists(st.binary(max_size=30)))
def test_garbage_is_understood_or_a_protocol_error(down: list[bytes], up: list[bytes]) -> None:
    made, _ = translator(stdin=True, stdout=True)
    for messages, take in ((down, made.from_client), (up, made.from_runtime)):
        for message in messages:
            try:
                take(message)
            except ProtocolError:
                break
