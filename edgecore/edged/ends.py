"""How pods ended, for when nothing else can be written: a file whose every byte was written at a better time.

What ends pods is often a disk without room, and then the store cannot take that they ended; an agent that starts anew
would run them again.  So each end has a slot here that is overwritten where it lies, which needs no room.  A slot is
given back as soon as the store has the pod's record.

Layout: SLOTS slots of SLOT_BYTES, each CRC-32 and length (big endian, 4 and 2 bytes) of JSON, then zeros.  A slot is one
sector: it is written whole or not at all, and one that is torn all the same is no slot.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from pathlib import Path

import msgspec

from edgecore.edged.status import Outcome

log = logging.getLogger(__name__)

# More than a node has pods (110); what does not fit is refused, and said.
SLOTS, SLOT_BYTES = 256, 512
_HEAD = struct.Struct(">IH")


class _Slot(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    phase: str
    reason: str = ""
    message: str = ""


class Ends:
    """The file.  Blocking; may be called from several threads.  Nothing here raises: it is the last resort already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._slots: dict[int, _Slot] = {}
        self._ready = False

    def open(self) -> None:
        """Read what an earlier agent left and see that the file is there in full."""
        with self._lock:
            self._open()

    def _open(self) -> bool:
        if self._ready:
            return True
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                data = os.pread(fd, SLOTS * SLOT_BYTES, 0)
                missing = SLOTS * SLOT_BYTES - len(data)
                if missing:
                    # written, not only reserved: turning reserved blocks into written ones may need room again
                    os.pwrite(fd, bytes(missing), len(data))
                    os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as err:
            log.warning("Cannot prepare %s: %s; an end on a full disk may be forgotten", self._path, err)
            return False
        for i in range(SLOTS):
            slot = _decode(data[i * SLOT_BYTES : (i + 1) * SLOT_BYTES])
            if slot is not None:
                self._slots[i] = slot
        self._ready = True
        return True

    def find(self, uid: str) -> Outcome | None:
        """How a pod ended, if that is only known here."""
        with self._lock:
            return next(
                (
                    Outcome(phase=s.phase, reason=s.reason, message=s.message)
                    for s in self._slots.values()
                    if s.uid == uid
                ),
                None,
            )

    def keep(self, uid: str, end: Outcome) -> bool:
        """Write down how a pod ended; False when that is not possible."""
        with self._lock:
            if not self._open():
                return False
            mine = [i for i, s in self._slots.items() if s.uid == uid]
            free = mine or [i for i in range(SLOTS) if i not in self._slots]
            if not free:
                log.warning("Cannot keep how pod %s ended: %s is full", uid, self._path)
                return False
            slot = _Slot(uid=uid, phase=end.phase, reason=end.reason[:64], message=end.message)
            if not self._write(free[0], _encode(slot)):
                return False
            self._slots[free[0]] = slot
            return True

    def forget(self, uid: str) -> None:
        """The store has it, or the pod is no more."""
        with self._lock:
            for i in [i for i, s in self._slots.items() if s.uid == uid]:
                if self._write(i, bytes(SLOT_BYTES)):
                    del self._slots[i]

    def uids(self) -> set[str]:
        """Whose ends are kept here."""
        with self._lock:
            return {s.uid for s in self._slots.values()}

    def _write(self, index: int, data: bytes) -> bool:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(fd, data, index * SLOT_BYTES)
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as err:
            log.warning("Cannot write %s: %s", self._path, err)
            return False
        return True


def _encode(slot: _Slot) -> bytes:
    room = SLOT_BYTES - _HEAD.size
    data = msgspec.json.encode(slot)
    message = slot.message
    while len(data) > room and message:
        message = message[: max(0, len(message) - (len(data) - room + 3) // 4 - 1)]
        data = msgspec.json.encode(msgspec.structs.replace(slot, message=message))
    # one that cannot be made to fit has the wrong sum and is no slot; it must not run into the next one
    return (_HEAD.pack(zlib.crc32(data), len(data)) + data).ljust(SLOT_BYTES, b"\0")[:SLOT_BYTES]


def _decode(data: bytes) -> _Slot | None:
    if len(data) < SLOT_BYTES:
        return None
    crc, length = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if not length or zlib.crc32(body) != crc:
        return None
    try:
        return msgspec.json.decode(body, type=_Slot)
    except (msgspec.MsgspecError, RecursionError):
        return None
