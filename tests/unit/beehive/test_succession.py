"""A statement of succession as both ends read it: what is taken apart, and what is not."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from beehive import succession
from beehive.errors import ProtocolError
from beehive.succession import Chain, Statement, Trust

NEW = b"\x30" + b"n" * 100
GOOD: dict[str, Any] = {
    "old": "a" * 64,
    "new": base64.b64encode(NEW).decode(),
    "begins": 100,
    "until": 200,
    "follow": 300,
    "issue": 1,
}


def wrap(payload: bytes, *, kind: str = succession.KIND, signature: bytes = b"s" * 64) -> str:
    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return f"{kind}.{text(payload)}.{text(signature)}"


def test_what_is_written_is_read() -> None:
    signed: list[bytes] = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return b"\x00" * 63 + b"\x01"

    text = succession.write(Statement(**GOOD), sign)
    said = succession.read(text)
    assert said.statement == Statement(**GOOD)
    assert said.new == NEW
    assert said.new_hash == succession.fingerprint(NEW)
    assert signed == [said.signed]
    assert said.signed.startswith(b"skerry-succession-v1.")
    assert text.encode() == said.signed + b"." + text.rpartition(".")[2].encode()
    assert said.signature == b"\x00" * 63 + b"\x01"


@pytest.mark.parametrize(
    "change",
    [
        {"old": "a" * 63},
        {"old": "A" * 64},
        {"old": succession.fingerprint(NEW)},
        {"new": ""},
        {"new": "###"},
        {"new": base64.b64encode(b"x" * (succession.MAX_CERTIFICATE + 1)).decode()},
        {"begins": 201},
        {"until": 301},
        {"begins": -1},
        {"follow": 2**41},
        {"until": 200.5},
        {"issue": 0},
        {"issue": succession.MAX_ISSUE + 1},
        {"issue": True},
        {"extra": 1},
    ],
)
def test_a_statement_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    assert succession.read(wrap(msgspec.json.encode(GOOD)))
    with pytest.raises(ProtocolError):
        succession.read(wrap(msgspec.json.encode({**GOOD, **change})))


@pytest.mark.parametrize(
    "text",
    [
        "",
        wrap(msgspec.json.encode(GOOD), kind="skerry-succession-v2"),
        wrap(msgspec.json.encode(GOOD), signature=b"s" * 63),
        wrap(msgspec.json.encode(GOOD), signature=b"s" * 65),
        wrap(msgspec.json.encode(GOOD)) + "\n",
        wrap(b"\xff\xfe"),
        wrap(b"[" * 3000),
        wrap(b"{}"),
        wrap(b"x" * 10_000),
        wrap(msgspec.json.encode(GOOD)).replace(".", "", 1),
        "skerry-succession-v1.a." + "b" * 86,
        "skerry-succession-v1.é." + "b" * 86,
    ],
)
def test_text_that_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        succession.read(text)


def test_a_chain_is_bounded() -> None:
    body = msgspec.json.encode(Chain(statements=["x"] * succession.MAX_CHAIN, first=GOOD["new"]))
    assert succession.read_chain(body) == (NEW, ["x"] * succession.MAX_CHAIN)
    for bad in (
        msgspec.json.encode(Chain(statements=["x"] * (succession.MAX_CHAIN + 1))),
        msgspec.json.encode({"first": "###"}),
        msgspec.json.encode({"statements": [1]}),
        b"<html>",
        b"\xff",
    ):
        with pytest.raises(ProtocolError):
            succession.read_chain(bad)


def test_the_header_of_an_edge() -> None:
    for trust in (Trust("b" * 64, 3), Trust("b" * 64)):
        assert succession.read_trust(str(trust)) == trust
    for text in ("", "x", "B" * 64, "b" * 64 + " 12345", "b" * 64 + " -1", "b" * 65):
        assert succession.read_trust(text) == Trust()
