"""Many byte streams over one connection: the frames of the tunnel, one machine for both roles.  Pure.

A hub opens streams towards an edge; an edge answers each once, then bytes flow both ways until both ends have ended it or one
has reset it.  One binary message carries one frame:

    0        1        2                 6
    +--------+--------+--------+--------+--------+--------+----------
    |  type  | flags  |        stream, big-endian         | payload
    +--------+--------+--------+--------+--------+--------+----------

    type     from   payload
    OPEN     hub    JSON Head: kind, method, path, headers
    ANSWER   edge   JSON Answer: status, headers; once, before its first DATA
    DATA     both   bytes; with flag END the sender's last, then it may be empty
    CREDIT   both   u32: so many bytes more may be sent to me on this stream
    RESET    both   UTF-8 text: the stream is over in both directions, and why
    PING     both   nothing, stream 0; answered with PONG
    PONG     both   nothing, stream 0

Every stream has its own credit in each direction, so a reader that is slow stops its own stream and no other.  A receiver
starts with a small window and grows it, out of a pool shared by all streams, only where the reader keeps up; so what slow
readers can make it hold is bounded by streams times the small window, and by the pool beyond that."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TypeVar

import msgspec

from beehive.errors import ProtocolError, Unavailable

HEAD_BYTES = 6
_HEAD = struct.Struct("!BBI")
_CREDIT = struct.Struct("!I")

MAX_DATA = 64 * 1024
"""Payload of one DATA frame: half a second at 1 Mbit/s, so that no frame holds up the others for long.  Half of it costs a
third of the throughput on a quick line."""
MAX_JSON = 64 * 1024
"""JSON of an OPEN or ANSWER.  A command line given to exec travels in the path; Linux ends one argument at 128 KiB, Go's
servers a whole request head at 1 MiB, and commands longer than this are scripts that belong on stdin."""
MAX_FRAME = HEAD_BYTES + MAX_JSON
MAX_REASON = 512
MAX_HEADERS = 64
FIRST_WINDOW = 128 * 1024
"""Credit of a new stream in each direction, in bytes.  Part of the wire: it cannot be told before the stream exists."""
MAX_CREDIT = 64 * 1024 * 1024

PING_S = 3.0
"""How long nothing may have been heard before we ask whether the peer is there."""
SILENCE_S = 10.0
"""How long nothing may be heard before the tunnel counts as lost.  Any frame counts, so bulk does not starve it."""

FLAG_END = 1


class Kind(IntEnum):
    """Frame types."""

    OPEN = 1
    ANSWER = 2
    DATA = 3
    CREDIT = 4
    RESET = 5
    PING = 6
    PONG = 7


class Role(Enum):
    """Which end we are."""

    HUB = "hub"
    EDGE = "edge"


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a stream is for.

    kind: `http` for a request whose answer is a body; `upgrade` for one that ends in a two-way pipe.
    path: as a kubelet knows it, query included."""

    kind: str
    method: str
    path: str
    headers: list[tuple[str, str]] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The edge's answer; 101 begins the pipe of an upgrade."""

    status: int
    headers: list[tuple[str, str]] = []

    def header(self, name: str) -> str:
        """The first value of a header, by its name in lower case; empty when it is absent."""
        return next((value for key, value in self.headers if key.lower() == name), "")


# What one frame means to the shell.


@dataclass(frozen=True, slots=True)
class Opened:
    """The hub opened a stream."""

    stream: int
    head: Head


@dataclass(frozen=True, slots=True)
class Excess:
    """The hub opened one stream too many; reset it."""

    stream: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The edge answered."""

    stream: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes; `end`: the peer's last."""

    stream: int
    payload: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class Writable:
    """The peer takes bytes again."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer gave the stream up."""

    stream: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pinged:
    """Answer with `pong()`."""


Event = Opened | Excess | Answered | Data | Writable | Reset | Pinged


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost us.  The edge allows more streams than the hub opens, for closes that cross on the way."""

    streams: int = 256
    window_max: int = 1024 * 1024
    """Largest receive window: at 100 ms round trip it lets 10 MB/s through one stream."""
    pool: int = 8 * 1024 * 1024
    """Bytes that all windows together may have grown beyond their first size."""
    idle_s: float = 4 * 3600.0
    """A stream without a byte in either direction is reset after this: the kubelet's streamingConnectionIdleTimeout."""


HUB_LIMITS = Limits(streams=256, pool=32 * 1024 * 1024)
EDGE_LIMITS = Limits(streams=320, pool=4 * 1024 * 1024)

_STATUS = re.compile("[1-5][0-9][0-9]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}\Z")
_PATH = re.compile(r"/[\x21-\x7e]*\Z")
_head_decoder = msgspec.json.Decoder(Head)
_answer_decoder = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


@dataclass(slots=True)
class _Stream:
    send_credit: int
    """Bytes we may still send."""
    recv_credit: int
    """Bytes the peer may still send."""
    window: int
    touched: float
    answered: bool = False
    local_end: bool = False
    remote_end: bool = False
    held: int = 0
    """Bytes received that the reader has not taken."""
    taken: int = 0
    """Bytes the reader took that are not granted again yet."""


@dataclass(slots=True)
class Mux:
    """One end of a tunnel.  Methods return frames to send, in the order of the calls; `receive` returns what came.

    Calling a method for a stream that is over is harmless: it answers with nothing, because closes cross on the way."""

    role: Role
    limits: Limits
    _streams: dict[int, _Stream] = field(default_factory=dict)
    _last: int = 0
    _grown: int = 0

    # -- towards the peer

    def open(self, head: Head, now: float) -> tuple[int, bytes]:
        """Begin a stream.  Raises Unavailable when there are too many, ProtocolError for a head too long or malformed."""
        if self.role is not Role.HUB:
            raise ValueError("only a hub opens streams")
        if len(self._streams) >= self.limits.streams:
            raise Unavailable(f"node has {len(self._streams)} streams open already", retry_after_s=5.0)
        check_head(head)
        body = _encode_json(head)
        self._last += 1
        self._streams[self._last] = self._new(now)
        return self._last, _HEAD.pack(Kind.OPEN, 0, self._last) + body

    def answer(self, stream: int, answer: Answer, now: float) -> bytes | None:
        """Answer an opened stream, once.  Raises ProtocolError for an answer too long or malformed."""
        state = self._streams.get(stream)
        if state is None:
            return None
        if self.role is not Role.EDGE or state.answered:
            raise ValueError("a stream is answered once, by the edge")
        _check_answer(answer)
        body = _encode_json(answer)
        state.answered, state.touched = True, now
        return _HEAD.pack(Kind.ANSWER, 0, stream) + body

    def room(self, stream: int) -> int | None:
        """How many bytes the next data frame may carry; 0: wait for Writable; None: the stream is over or we ended it."""
        state = self._streams.get(stream)
        if state is None or state.local_end:
            return None
        return min(state.send_credit, MAX_DATA)

    def data(
        self, stream: int, payload: bytes | memoryview, now: float, *, end: bool = False
    ) -> bytes | None:
        """A data frame of at most `room` bytes; `end` ends our direction."""
        state = self._streams.get(stream)
        if state is None:
            return None
        if state.local_end or len(payload) > min(state.send_credit, MAX_DATA):
            raise ValueError("more data than there is room for")
        state.send_credit -= len(payload)
        state.touched = now
        state.local_end = end
        self._forget_if_over(stream, state)
        return _HEAD.pack(Kind.DATA, FLAG_END if end else 0, stream) + bytes(payload)

    def reset(self, stream: int, reason: str) -> bytes | None:
        """Give a stream up in both directions."""
        state = self._streams.pop(stream, None)
        if state is None:
            return None
        self._release(state)
        return self.refuse(stream, reason)

    @staticmethod
    def refuse(stream: int, reason: str) -> bytes:
        """The answer to Excess."""
        return _HEAD.pack(Kind.RESET, 0, stream) + _cut(reason)

    def consumed(self, stream: int, size: int) -> bytes | None:
        """The reader took `size` bytes: the credit frame that follows, if it is time for one."""
        state = self._streams.get(stream)
        if state is None or state.remote_end:
            return None
        state.held -= size
        state.taken += size
        if state.taken * 2 < state.window:
            return None
        grant = state.taken
        if state.held == 0:
            spare = self.limits.pool - self._grown
            grow = max(0, min(state.window, self.limits.window_max - state.window, spare))
            state.window += grow
            self._grown += grow
            grant += grow
        state.taken = 0
        state.recv_credit += grant
        return _HEAD.pack(Kind.CREDIT, 0, stream) + _CREDIT.pack(grant)

    @staticmethod
    def ping() -> bytes:
        """Ask whether the peer is there."""
        return _HEAD.pack(Kind.PING, 0, 0)

    @staticmethod
    def pong() -> bytes:
        """Say that we are."""
        return _HEAD.pack(Kind.PONG, 0, 0)

    # -- from the peer

    def receive(self, frame: bytes, now: float) -> Event | None:
        """What one frame means; None: nothing to do.  Raises ProtocolError: end the connection then."""
        if len(frame) < HEAD_BYTES:
            raise ProtocolError(f"tunnel frame of {len(frame)} bytes is too short")
        if len(frame) > MAX_FRAME:
            raise ProtocolError(f"tunnel frame of {len(frame)} bytes is over the limit of {MAX_FRAME}")
        kind, flags, stream = _HEAD.unpack_from(frame)
        if flags & ~FLAG_END or (flags and kind != Kind.DATA):
            raise ProtocolError(f"tunnel frame of type {kind} has flags {flags:#x}")
        payload = frame[HEAD_BYTES:]
        if kind in (Kind.PING, Kind.PONG):
            if stream or payload:
                raise ProtocolError("ping with a stream or a payload")
            return Pinged() if kind == Kind.PING else None
        if kind == Kind.OPEN:
            return self._opened(stream, payload, now)
        if not 0 < stream <= self._last:
            raise ProtocolError(f"stream {stream} was never opened")
        state = self._streams.get(stream)
        if kind == Kind.DATA:
            return self._data(stream, state, payload, flags, now)
        if kind == Kind.CREDIT:
            return self._credit(stream, state, payload)
        if kind == Kind.RESET:
            return self._reset(stream, state, payload)
        if kind == Kind.ANSWER:
            return self._answered(stream, state, payload, now)
        raise ProtocolError(f"unknown tunnel frame type {kind}")

    def expired(self, now: float) -> list[int]:
        """Streams that were idle for too long."""
        return [n for n, state in self._streams.items() if now - state.touched > self.limits.idle_s]

    @property
    def count(self) -> int:
        """Streams that are not over."""
        return len(self._streams)

    # -- inside

    def _new(self, now: float) -> _Stream:
        return _Stream(send_credit=FIRST_WINDOW, recv_credit=FIRST_WINDOW, window=FIRST_WINDOW, touched=now)

    def _opened(self, stream: int, payload: bytes, now: float) -> Event:
        if self.role is not Role.EDGE:
            raise ProtocolError("an edge opened a stream")
        if stream <= self._last:
            raise ProtocolError(f"stream {stream} opened after stream {self._last}")
        head = _decode(_head_decoder, payload)
        check_head(head)
        self._last = stream
        if len(self._streams) >= self.limits.streams:
            return Excess(stream)
        self._streams[stream] = self._new(now)
        return Opened(stream, head)

    def _answered(self, stream: int, state: _Stream | None, payload: bytes, now: float) -> Event | None:
        if self.role is not Role.HUB:
            raise ProtocolError("a hub answered a stream")
        answer = _decode(_answer_decoder, payload)
        _check_answer(answer)
        if state is None:
            return None
        if state.answered:
            raise ProtocolError(f"stream {stream} answered twice")
        state.answered, state.touched = True, now
        return Answered(stream, answer)

    def _data(
        self, stream: int, state: _Stream | None, payload: bytes, flags: int, now: float
    ) -> Event | None:
        if len(payload) > MAX_DATA:
            raise ProtocolError(f"data frame of {len(payload)} bytes is over the limit of {MAX_DATA}")
        end = bool(flags & FLAG_END)
        if state is None:
            return None  # it crossed our reset
        if self.role is Role.HUB and not state.answered:
            raise ProtocolError(f"data on stream {stream} before its answer")
        if state.remote_end:
            raise ProtocolError(f"data on stream {stream} after its end")
        if len(payload) > state.recv_credit:
            raise ProtocolError(f"data on stream {stream} beyond its credit")
        if not payload and not end:
            raise ProtocolError(f"empty data frame on stream {stream}")
        state.recv_credit -= len(payload)
        state.held += len(payload)
        state.touched = now
        state.remote_end = end
        self._forget_if_over(stream, state)
        return Data(stream, payload, end)

    def _credit(self, stream: int, state: _Stream | None, payload: bytes) -> Event | None:
        if len(payload) != _CREDIT.size:
            raise ProtocolError("credit frame of a wrong length")
        (grant,) = _CREDIT.unpack(payload)
        if state is None:
            return None
        if not grant or state.send_credit + grant > MAX_CREDIT:
            raise ProtocolError(f"credit of {grant} bytes on stream {stream}")
        state.send_credit += grant
        return Writable(stream)

    def _reset(self, stream: int, state: _Stream | None, payload: bytes) -> Event | None:
        if len(payload) > MAX_REASON:
            raise ProtocolError("reset frame is too long")
        if state is None:
            return None
        del self._streams[stream]
        self._release(state)
        return Reset(stream, _printable(payload.decode("utf-8", "replace")))

    def _forget_if_over(self, stream: int, state: _Stream) -> None:
        if state.local_end and state.remote_end:
            del self._streams[stream]
            self._release(state)

    def _release(self, state: _Stream) -> None:
        self._grown -= state.window - FIRST_WINDOW


def read_head(head: bytes, who: str) -> Answer:
    """The status line and headers of an HTTP/1.1 answer, without the empty line.  who: for the text of ProtocolError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = first.split(" ", 2)
    # three digits: a longer number could not even be converted
    if len(fields) < 2 or not fields[0].startswith("HTTP/1.") or not _STATUS.fullmatch(fields[1]):
        raise ProtocolError(f"{who} does not speak HTTP")
    headers = []
    for line in lines:
        name, found, value = line.partition(":")
        if found:
            headers.append((name.strip(), value.strip()))
    return Answer(status=int(fields[1]), headers=headers)


def _encode_json(value: Head | Answer) -> bytes:
    body = _encoder.encode(value)
    if len(body) > MAX_JSON:
        raise ProtocolError(f"request head of {len(body)} bytes is over the limit of {MAX_JSON}")
    return body


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the head of a stream: {error}") from error


def check_head(head: Head) -> None:
    """Raises ProtocolError for a head that is malformed."""
    if head.kind not in ("http", "upgrade"):
        raise ProtocolError(f"unknown kind of stream {head.kind[:32]!r}")
    if not _TOKEN.match(head.method):
        raise ProtocolError("malformed method")
    if not _PATH.match(head.path):
        raise ProtocolError("malformed path")
    check_headers(head.headers)


def _check_answer(answer: Answer) -> None:
    if not 101 <= answer.status <= 599:
        raise ProtocolError(f"status {answer.status}")
    check_headers(answer.headers)


def check_headers(headers: list[tuple[str, str]]) -> None:
    """No control characters: they would end the header in the request or the answer that is made of it."""
    if len(headers) > MAX_HEADERS:
        raise ProtocolError(f"{len(headers)} headers are over the limit of {MAX_HEADERS}")
    for name, value in headers:
        if not _TOKEN.match(name) or not _VALUE.match(value):
            raise ProtocolError(f"malformed header {name[:64]!r}")


def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:MAX_REASON]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
