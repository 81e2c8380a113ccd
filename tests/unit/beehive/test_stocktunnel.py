"""The wire of KubeEdge's tunnel: the frames that are known of it, requests, garbage."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import tunnel
from beehive.errors import ProtocolError
from beehive.stocktunnel import Frame, Kind, decode, encode, read_connect


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(300, Kind.DATA, b"hello"), "ac 02 03 68 65 6c 6c 6f"),
        (Frame(1, Kind.REMOVE_CONNECT, b""), "01 04"),
        (Frame(0, Kind.CLOSE_CONNECT, b""), "00 05"),
        (Frame(2**64 - 1, Kind.DATA, b"\xff"), "ff ff ff ff ff ff ff ff ff 01 03 ff"),
    ],
)
def test_frames(frame: Frame, message: str) -> None:
    assert encode(frame.connection, frame.kind, frame.data) == bytes.fromhex(message)
    assert decode(bytes.fromhex(message)) == frame


@given(st.binary(max_size=40))
def test_garbage_is_a_frame_or_a_protocol_error(data: bytes) -> None:
    try:
        frame = decode(data)
    except ProtocolError:
        return
    assert 0 <= frame.connection < 2**64


@pytest.mark.parametrize(
    "bad", [b"", b"\x80", b"\x01", b"\xff" * 10 + b"\x03", b"\x80" * 11, b"\x01\x03" + b"x" * (2**20 + 1)]
)
def test_what_is_no_frame(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(bad)


LOGS = {
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
    "header": {"User-Agent": ["kube-apiserver"], "Accept-Encoding": ["gzip"]},
}


def asked(kind: Kind, body: object) -> tuple[int, tunnel.Head]:
    return read_connect(Frame(7, kind, msgspec.json.encode(body)))


def test_a_request_for_a_log_is_read() -> None:
    assert asked(Kind.LOGS_CONNECT, LOGS) == (
        7,
        tunnel.Head(
            kind="http", method="GET", path="/containerLogs/default/web-0/c?follow=true&tailLines=10"
        ),
    )


def test_a_request_for_an_exec_keeps_its_headers_and_its_spelling() -> None:
    body = {
        "MessID": 9,
        "url": {"Path": "/exec/default/a b/c", "RawPath": "/exec/default/a%20b/c", "RawQuery": "command=x"},
        "header": {
            "Upgrade": ["SPDY/3.1"],
            "X-Stream-Protocol-Version": ["v4.channel.k8s.io", "v3.channel.k8s.io"],
        },
        "method": "POST",
    }
    number, head = asked(Kind.EXEC_CONNECT, body)
    assert (number, head.kind, head.method) == (9, "upgrade", "POST")
    assert head.path == "/exec/default/a%20b/c?command=x"
    assert head.headers[1:] == [
        ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
        ("X-Stream-Protocol-Version", "v3.channel.k8s.io"),
    ]
    del body["url"]["RawPath"]  # type: ignore[attr-defined]
    assert asked(Kind.ATTACH_CONNECT, body)[1].path == "/exec/default/a%20b/c?command=x"


@pytest.mark.parametrize(
    "change",
    [
        {"MessID": 0},
        {"MessID": "7"},
        {"url": {}},
        {"url": {"Path": "no slash"}},
        {"url": {"Path": "/x", "RawQuery": "a b"}},
        {"url": {"Path": "/x", "RawPath": "/\r\nX: y"}},
        {"header": {"A": "b"}},
        {"header": {"A": ["b\r\nC: d"]}},
        {"method": "G T"},
    ],
)
def test_what_no_hub_asks(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        asked(Kind.EXEC_CONNECT, {**LOGS, **change})


@given(st.binary(max_size=60))
def test_garbage_is_no_request(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_connect(Frame(1, Kind.LOGS_CONNECT, data))
