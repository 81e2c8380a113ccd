"""The message model and its bytes: beehive.message, beehive.codec."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import codec, message
from beehive.errors import ProtocolError

VECTORS = Path(__file__).parents[2] / "vectors" / "kubeedge" / "hub.jsonl"
FRAMES = [
    record["text"]
    for record in map(json.loads, VECTORS.read_text().splitlines())
    if record["dir"] in ("up", "down")
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_every_recorded_frame_is_read_and_written_back_with_the_same_meaning() -> None:
    assert len(FRAMES) > 200
    for text in FRAMES:
        decoded = codec.decode(text)
        assert json.loads(codec.encode(decoded)) == json.loads(text)


def test_content_passes_through_byte_for_byte() -> None:
    frame = b'{"header":{"msg_id":"a","timestamp":1},"route":{},"content":{"b" : [1.50, "\\u003c"]}}'
    assert bytes(codec.decode(frame).content) == b'{"b" : [1.50, "\\u003c"]}'
    assert b'{"b" : [1.50, "\\u003c"]}' in codec.encode(codec.decode(frame))


def test_what_is_not_set_is_not_written_but_content_always_is() -> None:
    written = json.loads(codec.encode(message.new(source="", group="", operation="", resource="")))
    assert set(written) == {"header", "route", "content"}
    assert set(written["header"]) == {"msg_id", "timestamp"}
    assert written["route"] == {}
    assert written["content"] is None


def test_a_reply_carries_the_request_as_parent() -> None:
    push = message.new(
        source="edgecontroller", group="resource", operation="insert", resource="ns/pod/p", version="7"
    )
    ack = message.reply(push)
    assert (ack.parent, ack.route.operation, ack.is_ok, ack.version) == (push.id, "response", True, "")
    assert (ack.route.source, ack.route.group, ack.route.resource) == (
        "edgecontroller",
        "resource",
        "ns/pod/p",
    )


@given(json_values)
def test_content_survives(value: object) -> None:
    sent = message.new(source="a", group="b", operation="c", resource="d", content=value)
    assert codec.decode(codec.encode(sent)).decode(object) == value


def test_text_unquotes_strings_and_leaves_the_rest() -> None:
    def text(content: object) -> str:
        return message.new(source="", group="", operation="", resource="", content=content).text()

    assert text('{"a":1}') == '{"a":1}'
    assert text({"a": 1}) == '{"a":1}'
    assert text(None) == "null"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"null",
        b"[]",
        b'""',
        b"7",
        b"{",
        b'{"header":null,"route":{},"content":1}',
        b'{"header":{"msg_id":"a","timestamp":"1"},"route":{},"content":1}',
        b'{"header":{"msg_id":1,"timestamp":1},"route":{},"content":1}',
        b'{"header":{"msg_id":"a","timestamp":1},"route":[],"content":1}',
        b'{"header":{"msg_id":"a","timestamp":1},"route":{"source":{}},"content":1}',
        b'{"header":{"msg_id":"a","timestamp":1e999},"route":{},"content":1}',
        b'{"header":{"msg_id":"\xff","timestamp":1},"route":{},"content":1}',
        b'{"header":{"msg_id":"a","timestamp":1},"route":{},"content":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}",
        b'{"header":{"msg_id":"a","timestamp":1},"route":{},"content":1}{}',
    ],
)
def test_a_bad_frame_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(frame)


@given(st.binary(max_size=200))
def test_garbage_raises_only_protocol_errors(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        codec.decode(data)


@given(st.sampled_from(FRAMES[:60]), st.integers(0, 5000), st.binary(min_size=1, max_size=3))
def test_a_damaged_frame_is_read_or_refused(text: str, at: int, junk: bytes) -> None:
    data = text.encode()
    at %= len(data)
    with contextlib.suppress(ProtocolError):
        codec.decode(data[:at] + junk + data[at + 1 :])


def test_the_limit_is_checked_before_anything_is_built() -> None:
    with pytest.raises(ProtocolError, match="over the limit of 10"):
        codec.decode(b'{"header":' * 2, limit=10)


def test_a_wrong_content_names_the_path() -> None:
    sent = message.new(
        source="", group="", operation="inventory", resource="", content={"objects": {"u": ["r", 5]}}
    )
    with pytest.raises(ProtocolError, match=r"\$\.objects\[\.\.\.\]\[1\]"):
        sent.decode(message.Inventory)


def test_inventory_round_trip() -> None:
    inventory = message.Inventory(objects={"uid": message.InventoryEntry("ns/pod/p", "12")}, session=3)
    raw = message.raw(inventory)
    assert msgspec.json.decode(raw) == {"objects": {"uid": ["ns/pod/p", "12"]}, "session": 3}
    assert msgspec.json.decode(raw, type=message.Inventory) == inventory


@pytest.mark.parametrize("content", [b'"\xff"', b'["\xff"]', b'{"\xff":1}', b'"\\ud800"'])
def test_text_that_is_no_utf_8_is_a_fault_of_the_peer_wherever_it_stands(content: bytes) -> None:
    frame = b'{"header":{"msg_id":"a","timestamp":1},"route":{},"content":%s}' % content
    with pytest.raises(ProtocolError):
        codec.decode(frame)
    made = message.new(source="", group="", operation="", resource="", content=content)
    for read in (made.text, lambda: made.decode(list[str]), lambda: made.decode(message.Inventory)):
        with contextlib.suppress(ProtocolError):  # anything else is a fault of ours
            read()
