"""SPDY/3.1 as container runtimes speak it: frames, compressed headers, the client's side.  Pure.

    control  1|version 15|type 16|flags 8|length 24|data        data  0|stream 31|flags 8|length 24|bytes

Only what exec and attach need: open streams with headers, data both ways, half-close, reset, ping, goaway.  Windows are not
used: the peers (the spdystream library) neither send nor obey them.  Source: the SPDY protocol, draft 3.1."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from beehive.errors import ProtocolError

MAX_FRAME = 1024 * 1024
"""Data frames of runtimes are at most 32 KiB, control frames much less; the field allows 16 MiB."""
MAX_HEADER_BLOCK = 64 * 1024
_FIN = 1
_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW = 1, 2, 3, 4, 6, 7, 8, 9

_COUNTED = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(word: str) -> bytes:
    return struct.pack("!I", len(word)) + word.encode("ascii")


DICTIONARY = b"".join(
    [
        *map(
            _counted,
            [
                *_COUNTED.split(),
                "200 OK",
                "version",
                "HTTP/1.1",
                "url",
                "public",
                "set-cookie",
                "keep-alive",
                "origin",
            ],
        ),
        _TAIL.encode("ascii"),
    ]
)
"""What both ends preset their compressor with.  Its Adler-32 is e3c6a7c2; a wrong byte makes every header unreadable."""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin`: the peer's last.  A stream that is refused or ended without bytes gives an empty last one."""

    stream: int
    payload: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes: a ping's answer."""

    payload: bytes


Event = Data | Reply


class Client:
    """The client's end of one connection.  `receive` takes bytes cut anywhere."""

    def __init__(self) -> None:
        self._next = 1
        self._buffer = bytearray()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._open: set[int] = set()

    def open(self, headers: dict[str, str]) -> tuple[int, bytes]:
        """Begin a stream with these headers; names go in lower case."""
        block = struct.pack("!I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode("ascii"), value.encode("utf-8")):
                block += struct.pack("!I", len(text)) + text
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        stream, self._next = self._next, self._next + 2
        self._open.add(stream)
        return stream, _control(_SYN_STREAM, struct.pack("!IIH", stream, 0, 0) + packed)

    def data(self, stream: int, payload: bytes, *, fin: bool = False) -> bytes:
        """Bytes of a stream, at most 16 MiB; `fin` ends our direction."""
        return struct.pack("!II", stream, (_FIN if fin else 0) << 24 | len(payload)) + payload

    def receive(self, data: bytes) -> list[Event]:
        """What has come.  Raises ProtocolError for what no runtime sends."""
        self._buffer += data
        events: list[Event] = []
        while len(self._buffer) >= 8:
            head, rest = struct.unpack_from("!II", self._buffer)
            flags, length = rest >> 24, rest & 0xFFFFFF
            if length > MAX_FRAME:
                raise ProtocolError(f"SPDY frame of {length} bytes is over the limit of {MAX_FRAME}")
            if len(self._buffer) < 8 + length:
                break
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if head >> 31:
                event = self._control(head, flags, body)
            else:
                event = Data(head, body, bool(flags & _FIN)) if head in self._open else None
            if event is not None:
                events.append(event)
        return events

    def _control(self, head: int, flags: int, body: bytes) -> Event | None:
        if head >> 16 != _VERSION:
            raise ProtocolError(f"SPDY version {head >> 16 & 0x7FFF} is not 3")
        kind = head & 0xFFFF
        if kind in (_SYN_REPLY, _RST_STREAM, _HEADERS, _SYN_STREAM):
            if len(body) < 4:
                raise ProtocolError("SPDY control frame is too short")
            stream = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            if kind == _RST_STREAM:
                return Data(stream, b"", True) if stream in self._open else None
            if kind == _SYN_STREAM:
                raise ProtocolError("the runtime opened a SPDY stream")
            self._skip_headers(body[4:])
            return Data(stream, b"", True) if flags & _FIN and stream in self._open else None
        if kind == _PING:
            # odd numbers are ours: an answer
            return Reply(_control(_PING, body)) if len(body) == 4 and not body[3] & 1 else None
        if kind in (_SETTINGS, _GOAWAY, _WINDOW):
            return None
        raise ProtocolError(f"unknown SPDY frame type {kind}")

    def _skip_headers(self, block: bytes) -> None:
        """Headers of replies say nothing, but the decompressor has to see them: they share one dictionary."""
        try:
            self._inflate.decompress(block, MAX_HEADER_BLOCK)
        except zlib.error as error:
            raise ProtocolError(f"cannot read SPDY headers: {error}") from error
        if self._inflate.unconsumed_tail:
            raise ProtocolError("SPDY headers are too long")


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack("!HHI", _VERSION, kind, len(body)) + body
