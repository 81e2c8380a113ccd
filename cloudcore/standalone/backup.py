"""Keep a copy of a whole control plane in one file, and make one again from it.

The file is a tar archive of the database and the keys, readable by its owner only: whoever has it can be anybody.  Saving
works while the control plane runs; restoring does not, and is refused then.

A restored database gets versions that nobody has seen: every object is stamped anew above all that were ever given
out, so a client or edge that knew later states takes the restored ones as newer, and every watch begins again."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudcore.standalone import atrest
from cloudcore.standalone.credentials import write_private
from cloudcore.standalone.errors import StandaloneError, StartError, StoreError

DATABASE = "objects.db"
KEYS = "pki"
LOCK = "lock"
UNSEEN = 10_000_000
"""How far above the versions of the backup the restored ones begin: what may have been written since it was made."""
MAX_KEY_BYTES = 64 * 1024
MAX_DATABASE_BYTES = 8 * 1024**3
MAX_KEYS = 64
MAX_RATIO, FREE_BYTES = 200, 16 * 1024 * 1024
"""So many times the size of the archive a database may have, beyond the first bytes that are free: pages of ours shrink to a
tenth, and what shrinks to a thousandth is made to fill a disk."""
_MAX_PIECE_BYTES = 2 * 1024 * 1024
_KEY_FILE = re.compile(rf"{KEYS}/[a-z][a-z-]{{0,40}}\.(crt|key)")


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Be the only one to write in this folder.  Raises StartError when somebody else is."""
    path = state_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot use {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"cannot use {state_dir}: a control plane runs there") from error
        yield
    finally:
        os.close(descriptor)


def save(state_dir: Path, target: Path) -> int:
    """Write the backup; `target` is replaced whole or not at all.  The number of objects in it.  Blocking.

    Raises StoreError."""
    database = state_dir / DATABASE
    if not database.is_file():
        raise StoreError(f"cannot back up {state_dir}: there is no control plane in it")
    try:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".backup-") as scratch:
            copy, archive = Path(scratch) / DATABASE, Path(scratch) / "archive"
            count = atrest.copy_database(database, copy)
            descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
                    tar.add(copy, DATABASE)
                    for key in sorted((state_dir / KEYS).glob("*.*")):
                        if _KEY_FILE.fullmatch(f"{KEYS}/{key.name}"):
                            tar.add(key, f"{KEYS}/{key.name}")
                file.flush()
                os.fsync(file.fileno())
            archive.replace(target)
    except OSError as error:
        raise StoreError(f"cannot back up to {target}: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise StoreError(f"cannot back up to {target}: {error}") from error
    return count


def restore(state_dir: Path, source: Path) -> int:
    """Put a backup in the place of what is there, which stays beside it as `objects.db.before-restore`.  Blocking.

    The number of objects.  Raises StandaloneError."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"cannot restore to {state_dir}: {error.strerror}") from error
    with locked(state_dir):
        try:
            with tempfile.TemporaryDirectory(dir=state_dir, prefix=".restore-") as scratch:
                fresh = Path(scratch) / DATABASE
                keys = _unpack(source, fresh)
                database = state_dir / DATABASE
                known = atrest.last_revision(database) if database.is_file() else 0
                count = atrest.stamp_anew(fresh, known, ahead=UNSEEN)
                _exchange(database, fresh)
            folder = state_dir / KEYS
            folder.mkdir(exist_ok=True, mode=0o700)
            for name, data in keys.items():
                write_private(folder / Path(name).name, data)
        except tarfile.ReadError as error:
            # its text has a line for each kind of archive that it is not
            raise StoreError(f"cannot restore {source}: it is not one of our backups") from error
        except (OSError, EOFError, tarfile.TarError) as error:
            raise StoreError(f"cannot restore {source}: {error}") from error
    return count


def _exchange(database: Path, fresh: Path) -> None:
    for suffix in ("-wal", "-shm"):
        # checkpointed when its revision was read; a leftover would be played into the new database
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    if database.exists():
        database.replace(database.with_name(f"{DATABASE}.before-restore"))
    fresh.replace(database)


class _Bounded(io.RawIOBase):
    """Unpacked, and never read in pieces that fill the memory: a name or note in a tar archive may say that it has gigabytes,
    and `tarfile` takes them at once."""

    def __init__(self, stream: gzip.GzipFile | io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_PIECE_BYTES:
            raise tarfile.ReadError("something in it is too large")
        return self._stream.read(size)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    with source.open("rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream = gzip.GzipFile(fileobj=file) if packed else file
        with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
            yield tar


def _unpack(source: Path, database: Path) -> dict[str, bytes]:
    """Write the database of the archive to `database`; its keys.  Nothing else in it is looked at."""
    keys: dict[str, bytes] = {}
    found = False
    most = min(MAX_DATABASE_BYTES, FREE_BYTES + MAX_RATIO * source.stat().st_size)
    with _opened(source) as tar:
        for member in tar:
            if not member.isfile():
                raise StandaloneError(f"cannot restore {source}: it is not one of our backups")
            stream = tar.extractfile(member) or io.BytesIO()
            if member.name == DATABASE and member.size <= most and not found:
                found = True
                descriptor = os.open(database, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    while chunk := stream.read(1 << 20):
                        file.write(chunk)
            elif _KEY_FILE.fullmatch(member.name) and member.size <= MAX_KEY_BYTES and len(keys) < MAX_KEYS:
                keys[member.name] = stream.read()
            else:
                raise StandaloneError(
                    f"cannot restore {source}: {member.name[:80]!r} is not part of a backup"
                )
    if not found:
        raise StandaloneError(f"cannot restore {source}: there is no database in it")
    return keys
