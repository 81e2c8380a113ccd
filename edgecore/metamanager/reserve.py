"""Room on the disk that only the store may have, for a start on a disk that is full.

SQLite removes its log and its shared memory when it is closed in order, and must make both anew when it is opened.  On a
full disk it cannot, and without its store nothing of the daemon starts: not even what would end the pod that fills the disk.
So a file of this size lies beside the store, is removed when it cannot be opened, and made again once there is room."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

SIZE_BYTES = 1024 * 1024
"""The shared memory (32 KiB), and a log for the first hundreds of writes: what ends a pod and says so."""

ROOM_BYTES = 16 * SIZE_BYTES
"""So much must be free before it is made, or it would itself be what is missing."""


class Reserve:
    """Of the store at `path`.  Blocking; nothing here raises."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".reserve")

    def give(self) -> bool:
        """Give the room back to the disk; False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("Gave up the reserve of the store: it cannot be opened, perhaps because its disk is full")
        return True

    def keep(self) -> None:
        """See that it is there, if there is room."""
        try:
            if self._path.exists() and self._path.stat().st_size >= SIZE_BYTES:
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
                return
            self._make()
        except OSError as error:
            log.debug("! cannot reserve room for the store: %s", error)

    def _make(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(fd)
