"""Log files on disk: open them safely, read them across rotation, follow them.

Files are opened component by component below the folder of all pods' logs, with O_NOFOLLOW, and only regular files count: a pod
that mounts that folder can plant links and pipes there.  Reading happens in a thread per block, as a card may be slow."""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from beehive.errors import NotFound, Unavailable
from edgecore.edgestream.crilog import BLOCK, Options, Printer, tail_start

_T = TypeVar("_T")
POLL_S = 0.1
"""How often a followed file is looked at: one fstat of an open file."""
STILL_RUNNING_S = 1.0
"""How often the runtime is asked whether a followed container has ended."""
LET_GO_S = 5.0
"""How often it is looked whether what somebody reads slowly was removed meanwhile."""
MAX_ROTATED = 32
MAX_UNPACKED = 256 * 1024 * 1024
"""Most that one packed file may unpack to; a log file is rotated at 10 MiB."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class LogFile:
    """The path of a container's newest log file below the folder of all logs.  Raises NotFound for a path that is not below."""

    def __init__(self, root: str, path: str) -> None:
        relative = PurePosixPath(path)
        if not relative.is_relative_to(root) or ".." in relative.parts:
            raise NotFound("log file is not below the folder of logs")
        self._root = Path(root)
        *self._folders, self._name = relative.relative_to(root).parts

    def open(self, name: str = "") -> IO[bytes]:
        """Open the newest file, or the rotated one called `name`.  Raises NotFound."""
        folder = self._folder()
        try:
            fd = os.open(name or self._name, _FILE, dir_fd=folder)
        except OSError as error:
            raise NotFound(f"cannot open the log: {error.strerror}") from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotFound("cannot open the log: it is no regular file")
        return os.fdopen(fd, "rb", buffering=0)

    def rotated(self, besides: tuple[int, int]) -> list[str]:
        """Names of the rotated files, oldest first: `0.log.20260102-150405`, perhaps packed.

        besides: the identity of a file that is open already; it may have been rotated a moment ago."""
        try:
            folder = self._folder()
        except NotFound:
            return []
        try:
            reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        prefix = f"{self._name}."
        found: set[str] = set()
        try:
            for name in os.listdir(reading):
                if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1].isdigit():
                    info = os.stat(name, dir_fd=reading, follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) != besides:
                        found.add(name)
        except FileNotFoundError:
            pass  # removed while we looked; the next request sees the rest
        finally:
            os.close(reading)
        # while a file is being packed both forms exist
        found = {n for n in found if not n.endswith(".tmp") and n.removesuffix(".gz") not in found - {n}}
        return sorted(found)[-MAX_ROTATED:]

    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the newest file, None while there is none."""
        try:
            folder = self._folder()
        except NotFound:
            return None
        try:
            info = os.stat(self._name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        finally:
            os.close(folder)
        return info.st_dev, info.st_ino

    def _folder(self) -> int:
        try:
            fd = os.open(self._root, _DIRECTORY)
            for part in self._folders:
                try:
                    deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                finally:
                    os.close(fd)
                fd = deeper
        except OSError as error:
            raise NotFound(f"cannot open the log: {error.strerror}") from error
        return fd


class Held:
    """The files that one reader has open; use it in a `with`, inside of a running loop.

    A reader waits for its client between two blocks.  What is removed for being beyond the quota takes its place on the disk as
    long as somebody has it open: so a file that was so at two looks is closed, and the reader goes on with the newest."""

    def __init__(self) -> None:
        self._files: set[IO[bytes]] = set()
        self._removed: set[IO[bytes]] = set()
        self._busy: IO[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Held:
        self._timer = asyncio.get_running_loop().call_later(LET_GO_S, self._look_again)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._timer is not None
        self._timer.cancel()

    def add(self, file: IO[bytes]) -> None:
        self._files.add(file)

    async def read(self, file: IO[bytes], through: IO[bytes]) -> bytes:
        """A block.   through: what reads it, if it is packed."""
        return await self.during(file, _read, through)

    async def during(self, file: IO[bytes], work: Callable[..., _T], *args: Any) -> _T:
        """What a thread does with a file; it is not closed meanwhile."""
        self._busy = file
        try:
            return await asyncio.to_thread(work, *args)
        finally:
            self._busy = None

    def look(self) -> None:
        """Close what was removed, and had been so at the look before."""
        self._files = {file for file in self._files if not file.closed}
        removed = {f for f in self._files if f is not self._busy and not os.fstat(f.fileno()).st_nlink}
        for file in removed & self._removed:
            file.close()
        self._removed = removed

    def _look_again(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LET_GO_S, self._look_again)


async def read_log(
    log: LogFile, current: IO[bytes], options: Options, still_running: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    """What `kubectl logs` prints, in blocks.  current: `log.open()`, closed here.

    Who takes the blocks more slowly than the container writes misses what is removed meanwhile.
    Follows until the container has ended and its file is read, or the byte limit is reached.  Raises Unavailable when the
    files cannot be read further."""
    printer = Printer(options)
    try:
        with Held() as held:
            held.add(current)
            # a file that is rotated from here on is the one we hold
            older, start = await held.during(current, _where_to_begin, log, current, options)
            for name, skip in older:
                async for block in _packed_or_plain(log, name, skip, held):
                    if text := printer.feed(block):
                        yield text
                    if printer.done:
                        return
                printer.next_file()
            if not current.closed:
                await held.during(current, current.seek, start)
            async for text in _to_the_end(current, printer, held):
                yield text
            asked = 0.0
            loop = asyncio.get_running_loop()
            while options.follow and not printer.done:
                # asked before reading: what was written before the end is then read after it
                ended = False
                if loop.time() - asked >= STILL_RUNNING_S:
                    asked = loop.time()
                    ended = not await still_running()
                replaced = current.closed or log.identity() not in (None, _identity(current))
                grew = False
                async for text in _to_the_end(current, printer, held):
                    grew = True
                    yield text
                if replaced:
                    try:
                        fresh = await asyncio.to_thread(log.open)
                    except NotFound:
                        if ended:
                            return
                        # rotated once more this very moment
                        await asyncio.sleep(POLL_S)
                        continue
                    current.close()
                    current = fresh
                    held.add(current)
                    printer.next_file()
                elif ended:
                    return
                elif not grew:
                    await asyncio.sleep(POLL_S)
    finally:
        current.close()


async def _to_the_end(file: IO[bytes], printer: Printer, held: Held) -> AsyncIterator[bytes]:
    if not file.closed and os.fstat(file.fileno()).st_size < os.lseek(file.fileno(), 0, os.SEEK_CUR):
        file.seek(0)  # emptied in place, as `truncate` and logrotate's copytruncate do
        printer.next_file()
    # it may be let go while a block is written
    while not printer.done and not file.closed:
        if os.fstat(file.fileno()).st_size == os.lseek(file.fileno(), 0, os.SEEK_CUR):
            return
        block = await held.read(file, file)
        if not block:
            return
        if text := printer.feed(block):
            yield text


def _where_to_begin(log: LogFile, current: IO[bytes], options: Options) -> tuple[list[tuple[str, int]], int]:
    """Rotated files to read, oldest first, each with the lines to skip; and the offset in the newest file."""
    names = log.rotated(_identity(current))
    if options.tail_lines is None:
        return [(name, 0) for name in names], 0
    size = os.fstat(current.fileno()).st_size
    start, missing = tail_start(lambda at, n: _pread(current, at, n), size, options.tail_lines)
    older: list[tuple[str, int]] = []
    while missing and names:
        name = names.pop()
        held = _count_lines(log, name)
        older.insert(0, (name, max(0, held - missing)))
        missing = max(0, missing - held)
    return older, start


async def _packed_or_plain(log: LogFile, name: str, skip: int, held: Held) -> AsyncIterator[bytes]:
    """A rotated file without its first `skip` lines.  One that was removed meanwhile ends, or is empty."""
    try:
        raw = await asyncio.to_thread(log.open, name)
    except NotFound:
        return
    with raw, _reader(raw, name) as file:
        held.add(raw)
        total, rest = 0, b""
        while not raw.closed and (block := await held.read(raw, file)):
            total += len(block)
            if total > MAX_UNPACKED:
                raise Unavailable(f"cannot read the rotated log {name}: it is too large")
            block, rest = rest + block, b""
            while skip and block:
                record, found, after = block.partition(b"\n")
                if not found:
                    block, rest = b"", block
                    break
                skip -= _ends_line(record)
                block = after
            if block:
                yield block


def _count_lines(log: LogFile, name: str) -> int:
    try:
        raw = log.open(name)
    except NotFound:
        return 0
    count = total = 0
    rest = b""
    with raw, _reader(raw, name) as file:
        while (block := _read(file)) and total <= MAX_UNPACKED:
            total += len(block)
            *lines, rest = (rest + block).split(b"\n")
            count += sum(map(_ends_line, lines))
    return count


def _ends_line(record: bytes) -> bool:
    tags = record.split(b" ", 3)[2:3]
    return not tags or tags[0][:1] == b"F"


def _reader(raw: IO[bytes], name: str) -> IO[bytes]:
    # a gzip reader of its own buffer; both are closed by their with
    return gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw  # type: ignore[return-value]


def _read(file: IO[bytes]) -> bytes:
    try:
        return file.read(BLOCK) or b""
    except (OSError, EOFError, zlib.error) as error:
        raise Unavailable(f"cannot read the log: {error}") from error


def _pread(file: IO[bytes], at: int, count: int) -> bytes:
    try:
        return os.pread(file.fileno(), count, at)
    except OSError as error:
        raise Unavailable(f"cannot read the log: {error}") from error


def _identity(file: IO[bytes]) -> tuple[int, int]:
    info = os.fstat(file.fileno())
    return info.st_dev, info.st_ino
