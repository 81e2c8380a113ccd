"""The wire of KubeEdge's own tunnel for streams: frames, and the requests in them.  Pure.

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

from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import quote

import msgspec

from beehive import tunnel
from beehive.errors import ProtocolError

MAX_DATA = 1024 * 1024
"""A receiver cuts what is longer, without a word."""
MAX_FRAME = MAX_DATA + 20
PATH = "/v1/kubeedge/connect"
PORT = 10004
HEADER_NODE, HEADER_NODE_IP = "SessionHostNameOverride", "SessionInternalIP"
"""Of the upgrade; the second may be absent."""
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


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """A Go url.URL, with its names."""

    Scheme: str = "http"
    Opaque: str = ""
    User: object = None
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
    url: Url
    header: dict[str, list[str]]
    method: str = ""


CONNECTS = frozenset({Kind.LOGS_CONNECT, Kind.EXEC_CONNECT, Kind.METRIC_CONNECT, Kind.ATTACH_CONNECT})
PIPES = frozenset({Kind.EXEC_CONNECT, Kind.ATTACH_CONNECT})
_decoder = msgspec.json.Decoder(Connect)


def read_connect(frame: Frame) -> tuple[int, tunnel.Head]:
    """What a hub asks, and the connect id of the answer.  Raises ProtocolError.

    Scheme and host are the edge's own kubelet's, whatever the hub says."""
    try:
        asked = _decoder.decode(frame.data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the request: {error}") from error
    if not 0 < asked.MessID < 2**64:
        raise ProtocolError(f"connect id {asked.MessID}")
    path = asked.url.RawPath or quote(asked.url.Path, safe="/:@!$&'()*+,;=-._~")
    piped = frame.kind in PIPES
    head = tunnel.Head(
        kind="upgrade" if piped else "http",
        method=(asked.method or "POST") if piped else "GET",
        path=f"{path}?{asked.url.RawQuery}" if asked.url.RawQuery else path,
        headers=[(name, value) for name, values in asked.header.items() for value in values] if piped else [],
    )
    tunnel.check_head(head)
    return asked.MessID, head
