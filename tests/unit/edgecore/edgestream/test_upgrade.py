"""What a runtime's streaming server is asked, and what may come back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beehive.errors import ProtocolError, Unavailable
from edgecore.edgestream.upgrade import parse_head, upgrade


@given(st.binary(max_size=200))
@example(b"HTTP/1.1 " + b"1" * 5000)
@example(b"HTTP/1.1 \xb2\xb2\xb2")
def test_an_answer_is_read_or_refused(head: bytes) -> None:
    try:
        answer = parse_head(head)
    except ProtocolError:
        return
    assert 100 <= answer.status <= 599


def test_status_and_headers() -> None:
    answer = parse_head(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nno header\r\nA:b")
    assert (answer.status, answer.headers) == (101, [("Upgrade", "SPDY/3.1"), ("A", "b")])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://[::1",
        "http://127.0.0.1:99999/exec/x",
        "http://127.0.0.1/exec/x",
        "http://192.0.2.1:80/exec/x",
        "http://localhost:80/exec/x",
        "https://127.0.0.1:80/exec/x",
        "http://127.0.0.1:80/exec/\N{SNOWMAN}",
        "http://127.0.0.1:80/exec/a b",
        "unix:///run/x",
    ],
)
def test_only_plain_http_on_this_machine_is_dialled(url: str) -> None:
    with pytest.raises(Unavailable, match="plain HTTP on this machine"):
        asyncio.run(upgrade(url, "POST", []))
