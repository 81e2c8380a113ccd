"""A queue on disk that is bounded and forgets the oldest.

Lines go to files of `SEGMENT_BYTES` each; the first file is being read, the last written.  A stop or a crash of the process
loses nothing and may repeat the last batch; a power cut may lose what the kernel has not written yet.  Without a folder the
queue is in memory."""

import contextlib
import logging
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 * 1024
MAX_BYTES = 16 * 1024 * 1024
MAX_LINE = 64 * 1024


class Outbox:
    """One queue of lines.  Not for several tasks at a time."""

    def __init__(
        self, folder: Path | None, *, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Raises: OSError if the folder cannot be used."""
        self.dropped = 0
        self._folder = folder
        self._max = max(max_bytes, 2 * segment_bytes)
        self._segment_bytes = segment_bytes
        self._segments: deque[list[int]] = deque()  # [number, bytes], oldest first
        self._head: deque[bytes] = deque()  # what is left of the first
        self._read = 0  # lines of the first that are done
        self._file: BinaryIO | None = None
        self._memory: dict[int, list[bytes]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._load(folder)
        if not self._segments:
            self._segments.append([1, 0])

    def __len__(self) -> int:
        """Lines in the first file; 0 only if there is nothing at all."""
        return len(self._head)

    def append(self, line: bytes) -> None:
        """Add a line.  The oldest go when there is no room.  Raises: OSError when it cannot be written; it is queued then,
        but does not outlive the process."""
        if len(line) > MAX_LINE or b"\n" in line:
            self.dropped += 1
            return
        if self._segments[-1][1] >= self._segment_bytes:
            self._close()
            self._segments.append([self._segments[-1][0] + 1, 0])
        number = self._segments[-1][0]
        if len(self._segments) == 1:
            self._head.append(line)
        else:
            self._memory.setdefault(number, []).append(line) if self._folder is None else None
        self._segments[-1][1] += len(line) + 1
        while sum(size for _, size in self._segments) > self._max and len(self._segments) > 1:
            self.dropped += len(self._head)
            self._next_segment()
        if self._folder is not None:
            if self._file is None:
                self._file = self._path(number).open("ab")
            self._file.write(line + b"\n")
            self._file.flush()

    def peek(self, count: int) -> list[bytes]:
        """The oldest lines, of one file at most."""
        return [self._head[i] for i in range(min(count, len(self._head)))]

    def done(self, count: int) -> None:
        """Forget the oldest lines.  Raises: OSError."""
        for _ in range(count):
            self._head.popleft()
        self._read += count
        if self._head:
            self._save_cursor()
        elif len(self._segments) > 1:
            self._next_segment()
        elif self._segments[0][1]:
            self._empty()

    def close(self) -> None:
        self._close()

    # --- files

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:010d}.lines"

    def _load(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.lines")):
            if path.stem.isdigit():
                self._segments.append([int(path.stem), path.stat().st_size])
        if not self._segments:
            return
        # a line that a crash has cut must not be joined by the next: go on in a new file
        self._segments.append([self._segments[-1][0] + 1, 0])
        number, read = self._cursor(folder)
        self._fill(skip=read if number == self._segments[0][0] else 0)
        if not self._head:
            self._next_segment()

    def _cursor(self, folder: Path) -> tuple[int, int]:
        try:
            number, _, read = (folder / "cursor").read_text().partition(" ")
            return int(number), int(read)
        except (OSError, ValueError):
            return 0, 0  # none, or torn: some lines are sent twice

    def _save_cursor(self) -> None:
        if self._folder is None:
            return
        new = self._folder / "cursor.new"
        new.write_text(f"{self._segments[0][0]} {self._read}")
        os.replace(new, self._folder / "cursor")

    def _empty(self) -> None:
        """All is sent: go on at the start of the same file, which wears a board's flash less than a new one each time."""
        self._segments[0][1] = self._read = 0
        if self._folder is None:
            return
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "cursor").unlink()
        if self._file is not None:
            self._file.truncate(0)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._path(self._segments[0][0]).unlink()

    def _fill(self, *, skip: int = 0) -> None:
        """Read what is left of the first file."""
        number = self._segments[0][0]
        if self._folder is None:
            lines = self._memory.pop(number, [])
        else:
            try:
                lines = self._path(number).read_bytes().split(b"\n")[:-1]
            except OSError as error:
                if self._segments[0][1]:
                    log.error("Cannot read %s, its readings are lost: %s", self._path(number), error)
                lines = []
        self._head = deque(lines[skip:])
        self._read = skip

    def _next_segment(self) -> None:
        """Delete the first file; the next one that holds something is first then."""
        while True:
            number, _ = self._segments.popleft()
            if not self._segments:
                self._close()
                self._segments.append([number + 1, 0])
            if self._folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._path(number).unlink()
            self._fill()
            if self._head or len(self._segments) == 1:
                break

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.closing(self._file) as file:
                self._file = None
                os.fsync(file.fileno())
