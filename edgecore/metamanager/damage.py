"""A damaged store: how that is found at the start, and what is saved of it.

A damaged file is set aside under a dated name, and rows that are whole are carried over to a fresh one."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beehive import clock
from edgecore.errors import StoreError
from edgecore.metamanager.sealing import Sealer
from edgecore.metamanager.sqlitefile import DAMAGE_CODES, connect, level, mark
from edgecore.metamanager.tables import COMPLETE, META, OUTBOX, Transaction, View

log = logging.getLogger(__name__)

KEPT = 3
"""Set-aside files kept for whoever wants to look; older ones go, since the disk is small."""


def is_sound(path: Path) -> bool:
    """Whether SQLite can make sense of the whole file.  Raises SchemaTooNew: such a file is left as it is."""
    if mark(path).exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return False
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE_CODES:
            return False
        raise StoreError(f"cannot read {path}: {error}") from error
    found = level(path)
    return found < 1 or {"meta", "outbox", "state"} <= tables


def set_aside(path: Path) -> Path:
    """Put the file under a dated name, which is returned.  Raises: StoreError."""
    stamp = clock.wall().strftime("%Y%m%dT%H%M%S.%fZ")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        for suffix in ("", "-wal", "-shm"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
        mark(path).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot set aside the damaged {path}: {error.strerror}") from error
    kept = sorted(
        found
        for found in path.parent.glob(f"{path.name}.damaged-*")
        if not found.name.endswith(("-wal", "-shm"))
    )
    # a clock that was set back makes the newest the first by name, and its rows are still to be carried over
    for old in [found for found in kept if found != target][: -KEPT + 1]:
        remove(old)
    return target


def remove(set_aside: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        set_aside.with_name(set_aside.name + suffix).unlink(missing_ok=True)


def carry_over(source: Path, target: Path, sealer: Sealer) -> int:
    """Copy the rows that can be read and whose checksums hold.  Returns how many."""
    carried = 0
    with (
        contextlib.closing(sqlite3.connect(source, isolation_level=None)) as old,
        contextlib.closing(connect(target)) as new,
    ):
        reader, writer = View(old, sealer, lambda what: None), Transaction(new, sealer, lambda what: None)
        new.execute("BEGIN IMMEDIATE")
        for found in _readable(old, META, "meta"):
            if row := reader.sound_row(found):
                writer.put(row)
                carried += 1
        for found in _readable(old, OUTBOX, "outbox"):
            if pending := reader.pending(found):
                writer.put_pending(pending)
                carried += 1
        for found in _readable(old, "key, value, checksum", "state"):
            value = reader.sound_note(found[0], found[1:])
            if value is not None and found[0] != COMPLETE:
                writer.set_state(found[0], value)
                carried += 1
        new.execute("COMMIT")
    return carried


def _readable(db: sqlite3.Connection, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows from both ends of a table up to where it breaks."""
    for order in ("ASC", "DESC"):
        try:
            yield from db.execute(f"SELECT {columns} FROM {table} NOT INDEXED ORDER BY rowid {order}")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            log.info("Reading the damaged %s stopped: %s", table, error)
        else:
            return


def drop_rows(db: sqlite3.Connection, sealer: Sealer) -> int:
    """Check every row's checksum and forget the broken ones; the store is then not complete.  Returns how many."""
    broken: list[tuple[str, str, Any]] = []
    view = View(db, sealer, lambda what: None)
    for found in db.execute(f"SELECT {META} FROM meta"):
        if view.sound_row(found) is None:
            broken.append(("meta", "key", found[0]))
    for found in db.execute(f"SELECT {OUTBOX} FROM outbox"):
        if view.pending(found) is None:
            broken.append(("outbox", "seq", found[0]))
    for key, value, checksum in db.execute("SELECT key, value, checksum FROM state"):
        if view.sound_note(key, (value, checksum)) is None:
            broken.append(("state", "key", key))
    if broken:
        db.execute("BEGIN IMMEDIATE")
        for table, column, key in broken:
            log.error("Damaged in the store, dropped: %s %s", table, key)
            db.execute(f"DELETE FROM {table} WHERE {column} IS ?", (key,))
        db.execute("DELETE FROM state WHERE key = ?", (COMPLETE,))
        db.execute("COMMIT")
    return len(broken)
