"""The tunnel of stock KubeEdge edges: frames, requests, and the answers in what comes back.  Pure.

    uvarint connect id | uvarint type | data         one websocket text message, though data is any bytes

    type               from   data
    0 LOGS_CONNECT     hub    JSON of the request
    1 EXEC_CONNECT     hub    JSON of the request; the edge writes it to its kubelet and copies bytes from then on
    2 METRIC_CONNECT   hub    JSON of the request; the body comes back line by line
    3 DATA             both   bytes
    4 REMOVE_CONNECT   both   nothing: the stream is over
    5 CLOSE_CONNECT    hub    text: the session is over
    6 ATTACH_CONNECT   hub    as EXEC_CONNECT

There is no credit, no half-close, and no status for logs and metrics: an error of the edge's kubelet is their body.
Source: KubeEdge, pkg/stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from urllib.parse import unquote

import msgspec

from beehive import tunnel
from beehive.errors import ProtocolError, Refused

MAX_DATA = 1024 * 1024
"""A receiver cuts what is longer, without a word."""
MAX_FRAME = MAX_DATA + 20
MAX_HEAD = 16 * 1024
KUBELET = "127.0.0.1:10350"
"""Where a stock edge serves its kubelet's endpoints; fixed there."""


class Kind(IntEnum):
    """Message types."""

    LOGS_CONNECT = 0
    EXEC_CONNECT = 1
    METRIC_CONNECT = 2
    DATA = 3
    REMOVE_CONNECT = 4
    CLOSE_CONNECT = 5
    ATTACH_CONNECT = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.  kind: a number that may be nobody's."""

    connection: int
    kind: int
    data: bytes


def encode(connection: int, kind: int, data: bytes = b"") -> bytes:
    """One message."""
    return _uvarint(connection) + _uvarint(kind) + data


def decode(frame: bytes) -> Frame:
    """Read one message.  Raises ProtocolError."""
    connection, at = _read_uvarint(frame, 0)
    kind, at = _read_uvarint(frame, at)
    if len(frame) - at > MAX_DATA:
        raise ProtocolError(f"tunnel message with {len(frame) - at} bytes is over the limit of {MAX_DATA}")
    return Frame(connection, kind, frame[at:])


def _uvarint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position in range(10):
        if at >= len(data):
            raise ProtocolError("tunnel message is too short")
        value |= (data[at] & 0x7F) << 7 * position
        at += 1
        if data[at - 1] < 0x80:
            if value >> 64:
                break
            return value, at
    raise ProtocolError("tunnel message with a number of more than 64 bits")


class _Url(msgspec.Struct, frozen=True, kw_only=True):
    Scheme: str = "http"
    Opaque: str = ""
    User: None = None
    Host: str = KUBELET
    Path: str
    RawPath: str = ""
    OmitHost: bool = False
    ForceQuery: bool = False
    RawQuery: str = ""
    Fragment: str = ""
    RawFragment: str = ""


class Connect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of a CONNECT.  MessID: the connect id again; the edge answers with this one."""

    MessID: int
    url: _Url
    header: dict[str, list[str]]
    method: str = ""


_UPGRADES = {
    "exec": Kind.EXEC_CONNECT,
    "attach": Kind.ATTACH_CONNECT,
    # the wire has no type for it, but an exec is the request written to the kubelet, and its bytes
    "portForward": Kind.EXEC_CONNECT,
}
_PLAIN = {"containerLogs": Kind.LOGS_CONNECT, "stats": Kind.METRIC_CONNECT, "metrics": Kind.METRIC_CONNECT}


def connect(connection: int, head: tunnel.Head) -> bytes:
    """The message that asks an edge.  Raises Refused for what the wire cannot ask, ProtocolError for what is too long."""
    path, _, query = head.path.partition("?")
    first = path.lstrip("/").partition("/")[0]
    kind = (_UPGRADES if head.kind == "upgrade" else _PLAIN).get(first)
    if kind is None:
        raise Refused(f"a KubeEdge edge does not serve {first[:64] or path[:64]}")
    plain = unquote(path)
    header: dict[str, list[str]] = {}
    for name, value in head.headers:
        header.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    body = msgspec.json.encode(
        Connect(
            MessID=connection,
            url=_Url(Path=plain, RawPath=path if plain != path else "", RawQuery=query),
            header=header,
            method=head.method if head.kind == "upgrade" else "",
        )
    )
    if len(body) > MAX_DATA:
        raise ProtocolError(f"request head of {len(body)} bytes is over the limit of {MAX_DATA}")
    return encode(connection, kind, body)


def follows(head: tunnel.Head) -> bool:
    """Whether an answer may say nothing for long."""
    return head.kind == "http" and "follow=true" in head.path.partition("?")[2].split("&")


def plain_answer(head: tunnel.Head) -> tunnel.Answer:
    """The answer for a body whose status the wire does not tell."""
    json = head.path.startswith("/stats")
    kind = "application/json" if json else "text/plain; charset=utf-8"
    return tunnel.Answer(status=200, headers=[("Content-Type", kind)])


@dataclass(slots=True)
class AnswerReader:
    """Finds the HTTP answer of an upgrade in the bytes of its stream.

    `answer` is set once its head has come; `over`: the body of a refusal is whole, though the connection stays open."""

    answer: tunnel.Answer | None = None
    over: bool = False
    _head: bytearray = field(default_factory=bytearray)
    _left: int = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes that follow the head, none before it is whole.  Raises ProtocolError."""
        if self.answer is not None:
            return self._body(data)
        # the end may have come in two parts
        at = max(0, len(self._head) - 3)
        self._head += data
        end = self._head.find(b"\r\n\r\n", at)
        if end < 0:
            if len(self._head) > MAX_HEAD:
                raise ProtocolError("the edge's kubelet answered with a head that is too long")
            return b""
        self.answer = tunnel.read_head(bytes(self._head[:end]), "the edge's kubelet")
        rest = bytes(self._head[end + 4 :])
        self._head.clear()
        length = self.answer.header("content-length")
        self._left = int(length) if length.isdecimal() and len(length) < 10 else 0
        return self._body(rest)

    def _body(self, data: bytes) -> bytes:
        if self.answer is not None and self.answer.status == 101:
            return data
        data = data[: self._left]
        self._left -= len(data)
        self.over = self._left == 0
        return data
