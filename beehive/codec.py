"""Bytes to messages and back.  Pure; only ProtocolError comes out, and nothing is built before the size is checked.

On the wire a frame is one JSON document.  A Go peer adds a newline and escapes `<`, `>` and `&`; both are plain JSON to
a reader.  Unknown keys are ignored."""

from __future__ import annotations

import msgspec

from beehive.errors import ProtocolError
from beehive.message import UNREADABLE, Message

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""Largest frame of an identified peer.  An API object is at most 1.5 MiB (etcd's limit); lists for edge applications
are the largest thing that crosses, and KubeEdge's own packer stops at 32 MiB."""

MAX_JOIN_BYTES = 64 * 1024
"""Largest frame of a peer that has not shown a certificate: a request for one is about 1 KiB."""

_decoder = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()


def decode(data: bytes | str, *, limit: int = MAX_FRAME_BYTES) -> Message:
    """Read one frame.  Raises ProtocolError: too long, not JSON, a wrong type, nested too deeply.

    Depth: the decoder stops at the interpreter's recursion limit, also inside the content that it only skips."""
    if len(data) > limit:
        raise ProtocolError(f"frame of {len(data)} bytes is over the limit of {limit}")
    try:
        if isinstance(data, bytes):
            # the decoder looks into what it reads only, and `content` goes on as it came
            data.decode()
        message = _decoder.decode(data)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the frame: {error}") from error
    return message


def encode(message: Message) -> bytes:
    """Write one frame as UTF-8 JSON.  The content goes through as it is."""
    return _encoder.encode(message)
