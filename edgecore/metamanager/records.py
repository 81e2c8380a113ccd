"""What the store's rows say, each with a checksum over all that it says.  Pure."""

from __future__ import annotations

import zlib

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One object from the cloud.  `key` is its path on the wire; `value` its JSON as it came; version -1: never known."""

    key: str
    type: str
    namespace: str
    name: str
    uid: str
    version: int
    value: bytes

    @property
    def head(self) -> str:
        """All but the value."""
        return f"{self.key}\0{self.type}\0{self.namespace}\0{self.name}\0{self.uid}\0{self.version}\0"

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.value, zlib.crc32(self.head.encode()))


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """One frame that the cloud has not acknowledged.  `seq` orders them; `key` is what newer ones replace it by."""

    seq: int
    key: str
    kind: str
    at_ms: int
    message: bytes

    @property
    def checksum(self) -> int:
        return zlib.crc32(
            self.message, zlib.crc32(f"{self.seq}\0{self.key}\0{self.kind}\0{self.at_ms}\0".encode())
        )


def note_checksum(key: str, value: bytes) -> int:
    """Of a part's note."""
    return zlib.crc32(value, zlib.crc32(key.encode() + b"\0"))
