"""Where a daemon's log goes: to standard error, and where that is a file, not beyond a size.

Under systemd the journal bounds what is kept.  A daemon whose output somebody appends to a file would fill the disk in time, at
`debug` in days.  So when such a file has grown to MAX_BYTES it is copied to `<file>.1`, over what was there, and emptied; who
else writes to it goes on doing so.  A file that is not appended to is left alone."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TextIO

MAX_BYTES = 10 * 1024 * 1024
"""Of the file, and of the one copy."""

LOOK_BYTES = 128 * 1024
"""How much is written between two looks at the size."""


class Bounded(logging.StreamHandler[TextIO]):
    """A handler for a stream of this process."""

    def __init__(self, stream: TextIO, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(stream)
        self._max_bytes = max_bytes
        self._written = LOOK_BYTES

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        self._written += len(text) + 1
        return text

    def emit(self, record: logging.LogRecord) -> None:
        """Within the handler's lock, as all handlers."""
        super().emit(record)
        if self._written >= LOOK_BYTES:
            self._written = 0
            with contextlib.suppress(OSError, io.UnsupportedOperation):  # the log must not end the daemon
                keep_small(self.stream.fileno(), self._max_bytes)


def keep_small(descriptor: int, max_bytes: int) -> bool:
    """Copy a file that is appended to beside itself and empty it, when it is too big.  Whether it was.  Raises OSError."""
    found = os.fstat(descriptor)
    appended = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    if not (stat.S_ISREG(found.st_mode) and appended and found.st_size > max_bytes):
        return False
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if not path.is_file() or path.stat().st_ino != found.st_ino:
        return False  # removed or replaced: somebody else takes care of it
    with path.open("rb") as file:
        # another process that writes to it may have had the same thought
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_size <= max_bytes:
            return False
        copy = path.with_name(f"{path.name}.1")
        try:
            with open(copy, "wb", opener=_private) as kept:
                shutil.copyfileobj(file, kept, 1024 * 1024)
        except OSError:
            # no room for a copy: the room is needed more than the past
            copy.unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def configure(level: int | str, form: str) -> None:
    """The log of a daemon or a command.  level, form: as of logging.basicConfig."""
    logging.basicConfig(level=level, format=form, handlers=[Bounded(sys.stderr)])
