"""What a store says while no daemon runs, for the command line.  It is opened for reading only."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from edgecore.errors import StoreError
from edgecore.metamanager.tables import COMPLETE, LAST


def objects(path: Path, kind: str) -> list[bytes]:
    """The stored objects of a type.  Raises: StoreError."""
    import sqlite_utils

    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = sqlite_utils.Database(connection)["meta"].rows_where("type = ?", [kind], order_by="key")
            return [bytes(row["value"]) for row in rows]
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def notes(path: Path, prefix: str) -> dict[str, bytes]:
    """The notes whose key begins with `prefix`.  Raises: StoreError."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT key, value FROM state WHERE key >= ? AND key < ?", (prefix, prefix + LAST)
            )
            return {str(key): bytes(value) for key, value in found}
    except (sqlite3.Error, TypeError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


class AtRest(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says while no daemon runs.   waiting, bytes: reports to go up.   complete: nothing is missing."""

    objects: int
    pods: int
    waiting: int
    bytes: int
    complete: bool


def look(path: Path) -> AtRest:
    """Raises: StoreError."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            one = "SELECT (SELECT count(*) FROM meta WHERE uid != ''), (SELECT count(*) FROM meta WHERE type = 'pod'), "
            one += "count(*), coalesce(sum(length(message)), 0) FROM outbox"
            found, pods, waiting, size = db.execute(one).fetchone()
            complete = db.execute("SELECT 1 FROM state WHERE key = ?", (COMPLETE,)).fetchone() is not None
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    return AtRest(objects=found, pods=pods, waiting=waiting, bytes=size, complete=complete)
