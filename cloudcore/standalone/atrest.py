"""A store's database as a file: copied while it is in use, read, and stamped anew while nobody has it open.

What the running store does with it is `store`'s."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from cloudcore.standalone.errors import NewerStore, StoreError
from cloudcore.standalone.ids import Key
from cloudcore.standalone.store import LEVEL


def copy_database(path: Path, target: Path) -> int:
    """A consistent copy of a database that may be in use.  The number of its objects.  Blocking.  Raises StoreError."""
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            # one file that needs no journal beside it
            copy.execute("PRAGMA journal_mode=DELETE")
            (count,) = copy.execute("SELECT count(*) FROM objects").fetchone()
        target.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot copy {path}: {error}") from error
    return int(count)


def last_revision(path: Path) -> int:
    """The newest revision in a database that nobody uses.  Blocking.  Raises StoreError."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE name='revision'").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    return int(row[0]) if row else 0


def stamp_anew(path: Path, known: int, *, ahead: int) -> int:
    """Give every object a revision above `known` and `ahead` above its own, so that no reader has seen it before.

    The number of objects.  Blocking.  Raises StoreError."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            if meta.get("level", LEVEL) > LEVEL:
                raise NewerStore(f"cannot use {path}: it was written by a newer version")
            revision = max(known, meta.get("revision", 0)) + ahead
            rows = connection.execute(
                "SELECT grp, plural, namespace, name, body FROM objects ORDER BY revision"
            ).fetchall()
            connection.execute("BEGIN IMMEDIATE")
            for *place, body in rows:
                revision += 1
                value = msgspec.json.decode(body)
                value["metadata"]["resourceVersion"] = str(revision)
                connection.execute(
                    "UPDATE objects SET revision=?, body=? WHERE grp=? AND plural=? AND namespace=? AND name=?",
                    (revision, msgspec.json.encode(value), *place),
                )
            connection.execute(
                "INSERT OR REPLACE INTO heads SELECT DISTINCT grp, plural, ? FROM "
                "(SELECT grp, plural FROM objects UNION SELECT grp, plural FROM heads)",
                (revision,),
            )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
            connection.execute("COMMIT")
    except (sqlite3.Error, msgspec.DecodeError, KeyError, TypeError) as error:
        raise StoreError(f"cannot use {path}: {error}") from error
    return len(rows)


def read_all(path: Path) -> list[tuple[Key, dict[str, Any]]]:
    """Every object of a database that may be in use, at one moment.  Blocking.  Raises StoreError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT grp, plural, body FROM objects ORDER BY grp, plural, namespace, name"
            ).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    return [((group, plural), msgspec.json.decode(body)) for group, plural, body in rows]
