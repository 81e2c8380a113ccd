"""What stock edges are asked, and their answers cut anywhere."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import tunnel
from beehive.errors import ProtocolError, Refused
from beehive.stocktunnel import Kind, decode
from cloudcore.cloudstream import stock
from cloudcore.cloudstream.stock import AnswerReader, connect

SPDY = [
    ("connection", "Upgrade"),
    ("upgrade", "SPDY/3.1"),
    ("x-stream-protocol-version", "v4.channel.k8s.io"),
]


def sent(head: tunnel.Head) -> tuple[int, dict[str, object]]:
    frame = decode(connect(7, head))
    assert frame.connection == 7
    return frame.kind, msgspec.json.decode(frame.data)


def test_a_log_is_asked_for_as_a_stock_hub_asks() -> None:
    head = tunnel.Head(
        kind="http", method="GET", path="/containerLogs/default/web-0/c?follow=true&tailLines=10"
    )
    kind, body = sent(head)
    assert kind == Kind.LOGS_CONNECT
    assert body == {
        "MessID": 7,
        "url": {
            "Scheme": "http",
            "Opaque": "",
            "User": None,
            "Host": "127.0.0.1:10350",
            "Path": "/containerLogs/default/web-0/c",
            "RawPath": "",
            "OmitHost": False,
            "ForceQuery": False,
            "RawQuery": "follow=true&tailLines=10",
            "Fragment": "",
            "RawFragment": "",
        },
        "header": {},
    }
    assert stock.follows(head)
    assert stock.plain_answer(head).header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/exec/default/web/c?command=x", Kind.EXEC_CONNECT),
        ("/attach/default/web/c", Kind.ATTACH_CONNECT),
        ("/portForward/default/web", Kind.EXEC_CONNECT),
    ],
)
def test_an_upgrade_goes_with_its_method_and_headers(path: str, kind: Kind) -> None:
    got, body = sent(tunnel.Head(kind="upgrade", method="POST", path=path, headers=SPDY))
    assert got == kind
    assert body["method"] == "POST"
    assert body["header"] == {
        "Connection": ["Upgrade"],
        "Upgrade": ["SPDY/3.1"],
        "X-Stream-Protocol-Version": ["v4.channel.k8s.io"],
    }


@pytest.mark.parametrize("path", ["/stats/summary", "/metrics", "/metrics/resource", "/metrics/cadvisor"])
def test_numbers_are_a_type_of_their_own(path: str) -> None:
    kind, body = sent(tunnel.Head(kind="http", method="GET", path=path))
    assert kind == Kind.METRIC_CONNECT
    assert "method" not in body


@pytest.mark.parametrize(("kind", "path"), [("http", "/pods"), ("http", "/exec/a/b/c"), ("upgrade", "/pods")])
def test_what_the_wire_cannot_ask(kind: str, path: str) -> None:
    with pytest.raises(Refused, match="a KubeEdge edge does not serve"):
        connect(1, tunnel.Head(kind=kind, method="GET", path=path))


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n"


@given(st.lists(st.integers(1, 30), max_size=12))
def test_an_answer_may_be_cut_anywhere(sizes: list[int]) -> None:
    data = HEAD + b"\x80\x03\r\n\r\nmore"
    reader, got = AnswerReader(), b""
    for size in [*sizes, len(data)]:
        part, data = data[:size], data[size:]
        got += reader.feed(part)
    assert reader.answer is not None
    assert (reader.answer.status, reader.answer.header("upgrade")) == (101, "SPDY/3.1")
    assert got == b"\x80\x03\r\n\r\nmore"
    assert not reader.over


def test_a_refusal_ends_with_its_body_though_the_connection_stays() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno") == b"no"
    assert not reader.over
    assert reader.feed(b"neHTTP/1.1 400 ") == b"ne"
    assert reader.over
    assert reader.feed(b"x") == b""


def test_a_head_without_end_is_refused() -> None:
    reader = AnswerReader()
    assert reader.feed(b"x" * stock.MAX_HEAD) == b""
    with pytest.raises(ProtocolError, match="too long"):
        reader.feed(b"x")
    with pytest.raises(ProtocolError, match="does not speak HTTP"):
        AnswerReader().feed(b"SSH-2.0\r\n\r\n")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b"HTTP/1.1 ", b"404", b" x\r\n", b"\r\n", b"Content-Length: 3"]),
        )
    )
)
def test_garbage_is_an_answer_or_a_protocol_error(parts: list[bytes]) -> None:
    reader, got = AnswerReader(), b""
    try:
        for part in parts:
            got += reader.feed(part)
    except ProtocolError:
        return
    assert reader.answer is not None or got == b""
    assert len(got) <= sum(map(len, parts))
