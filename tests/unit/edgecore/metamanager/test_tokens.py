"""When a stored token is used and when another is asked for."""

import json

import msgspec
import pytest

from beehive.errors import ProtocolError
from edgecore.metamanager import tokens

REQUEST = b'{"spec":{"audiences":["b","a"],"expirationSeconds":3607,"boundObjectRef":{"uid":"pod-1"}}}'


def answer(ends: str = "2026-01-01T01:00:00Z") -> bytes:
    return json.dumps({"status": {"token": "t", "expirationTimestamp": ends}}).encode()


NOW = 1767225600.0  # 2026-01-01T00:00:00Z


def test_a_token_is_fresh_for_four_fifths_of_its_life() -> None:
    held = tokens.accept(answer(), now=NOW)
    assert held.is_fresh(NOW)
    assert held.is_fresh(NOW + 0.79 * 3600)
    assert not held.is_fresh(NOW + 0.81 * 3600)


def test_a_long_token_is_fresh_for_a_day() -> None:
    held = tokens.accept(answer("2027-01-01T00:00:00Z"), now=NOW)
    assert held.is_fresh(NOW + 23 * 3600)
    assert not held.is_fresh(NOW + 25 * 3600)


def test_a_clock_that_was_turned_back_makes_it_stale() -> None:
    assert not tokens.accept(answer(), now=NOW).is_fresh(NOW - 5)


def test_the_key_says_whose_and_for_what() -> None:
    key = tokens.key("ns", "sa", REQUEST)
    assert key.startswith("token/pod-1/ns/sa/")
    assert key.startswith(tokens.prefix("pod-1"))
    assert key == tokens.key("ns", "sa", REQUEST.replace(b'"b","a"', b'"a","b"'))
    assert key != tokens.key("ns", "sa", REQUEST.replace(b"3607", b"600"))
    assert tokens.key("ns", "sa", b'{"spec":{}}').startswith("token/-/")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"status":{}}', b'{"status":{"token":"t"}}', b'{"spec":5}'])
def test_an_answer_without_a_token_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        tokens.accept(text, now=NOW)


def test_what_is_stored_is_read_back() -> None:
    held = tokens.accept(answer(), now=NOW)
    found = tokens.read(msgspec.json.encode(held))
    assert found is not None
    assert (bytes(found.token), found.ends) == (answer(), NOW + 3600)
    assert tokens.read(b"nonsense") is None
