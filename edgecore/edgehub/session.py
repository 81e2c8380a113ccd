"""The session that a node has with its hub, as the rest of the node sees it."""

from __future__ import annotations

import msgspec


class Session(msgspec.Struct, frozen=True):
    """The one that is live.  ours: the hub speaks our protocol.   number: fences late frames of older sessions.
    pace_s: the hub writes what one device reports this often at most."""

    address: str
    ours: bool
    number: int
    pace_s: float = 0.0
