"""What a hub asks of a stock KubeEdge edge, and the answers in what comes back.  Pure.

Source: KubeEdge, cloud/pkg/cloudstream."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec

from beehive import tunnel
from beehive.errors import ProtocolError, Refused
from beehive.stocktunnel import MAX_DATA, Connect, Kind, Url, encode

MAX_HEAD = 16 * 1024

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
            url=Url(Path=plain, RawPath=path if plain != path else "", RawQuery=query),
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
