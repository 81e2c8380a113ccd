"""The store's file: who holds it, how it is opened, which level its tables have.

The file is in WAL mode with synchronous=FULL: a commit is one fsync and survives a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from edgecore.errors import AlreadyRunning, SchemaTooNew, StoreError
from edgecore.metamanager import migrations

DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_CACHE_KIB = 1024
_WAL_LIMIT_BYTES = 4 * 1024 * 1024


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA secure_delete = FAST")  # what is deleted does not stay where that costs no write
    return db


def hold(path: Path) -> int:
    """Hold the folder for this process.  The descriptor is the lock: it goes with the process, however that ends.

    Raises: AlreadyRunning, StoreError."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"cannot use {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise AlreadyRunning(f"another edgecore (process {owner}) uses {path.parent}") from error
    with contextlib.suppress(
        OSError
    ):  # only for the other one's message; a full disk must not stop the start
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def mark(path: Path) -> Path:
    """The file beside the store that says that it was found damaged while it ran."""
    return path.with_name(path.name + ".damaged")


def level(path: Path) -> int:
    """The file's level.  Raises: SchemaTooNew, StoreError."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if found > migrations.LATEST:
        raise SchemaTooNew(
            f"{path} has schema {found} and this edgecore knows {migrations.LATEST}: install the newer edgecore again"
        )
    return found


def header_level(path: Path) -> int:
    """The level that a file's header claims; 0 if it has none.   Source: SQLite's file format, 1.3, offset 60."""
    try:
        with path.open("rb") as file:
            header = file.read(64)
    except OSError:
        return 0
    return int.from_bytes(header[60:64], "big") if header.startswith(b"SQLite format 3\0") else 0
