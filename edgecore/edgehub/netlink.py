"""Tells when this machine's interfaces, addresses or routes changed.  One kernel socket; nothing is polled."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""
_ADDRESS = frozenset({20, 21})  # RTM_NEWADDR, RTM_DELADDR
_ROUTE = frozenset({24, 25})  # RTM_NEWROUTE, RTM_DELROUTE
_HEADER = struct.Struct("=LHHLL")  # length, type, flags, sequence, port
_READ_BYTES = 64 * 1024


def matters(data: bytes) -> bool:
    """Whether a batch of netlink messages can mean another way to the hub.

    Links alone do not count: each pod brings a veth pair, and a link that matters has an address or a route."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind in _ADDRESS or kind in _ROUTE:
            return True
        if length < _HEADER.size:
            return False
        offset += (length + 3) & ~3
    return False


class Watch:
    """Calls `changed` in the loop.  Where netlink is forbidden `start` says so; retries then rely on back-off."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Raises: OSError."""
        found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            found.setblocking(False)
            found.bind((0, _GROUPS))
        except OSError:
            found.close()
            raise
        self._socket = found
        asyncio.get_running_loop().add_reader(found, self._readable)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None, "a reader without its socket"
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: so much changed that some was lost
            self._changed()
            return
        if matters(data):
            self._changed()
