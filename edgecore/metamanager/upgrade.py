"""Bringing the store of an earlier edgecore to what this one writes.

`python -m edgecore.metamanager.upgrade <file>` does the steps of `migrations`: in a process of its own, since sqlite-utils
would stay in the daemon's memory for ever."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

from edgecore.errors import StoreError
from edgecore.metamanager import migrations, sealing
from edgecore.metamanager.sealing import Sealer
from edgecore.metamanager.sqlitefile import connect
from edgecore.metamanager.tables import COMPLETE, META, Transaction

log = logging.getLogger(__name__)


def seal_in_place(path: Path, sealer: Sealer) -> None:
    """Seal what an earlier edgecore wrote plainly, and leave no copy of it in free pages or the log.

    Killed anywhere, it is done again: the level is raised only afterwards.   Raises: StoreError."""
    try:
        with contextlib.closing(connect(path)) as db:
            db.execute("PRAGMA secure_delete = ON")
            tx = Transaction(db, sealer, lambda what: None)
            db.execute("BEGIN IMMEDIATE")
            for kind in sealing.SEALED_TYPES:
                for found in db.execute(f"SELECT {META} FROM meta WHERE type = ?", (kind,)).fetchall():
                    row = tx.sound_row(found)
                    if row is not None:
                        tx.put(row)
                    else:
                        log.error("Damaged in the store, dropped: meta %s", found[0])
                        db.execute("DELETE FROM meta WHERE key IS ?", (found[0],))
                        tx.drop_state(COMPLETE)
            for prefix in sealing.SEALED_NOTES:
                for key, value in tx.states(prefix).items():
                    tx.set_state(key, value)
            db.execute("COMMIT")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"cannot seal the secrets in {path}: {error}") from error
    log.info("Secrets in %s are sealed from now on", path)


def migrate_in_child(path: Path) -> None:
    """Raises: StoreError."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        text = done.stderr.strip().splitlines()
        raise StoreError(f"cannot upgrade {path}: {text[-1] if text else f'exit code {done.returncode}'}")


def migrate(path: Path, steps: tuple[migrations.Step, ...] = migrations.STEPS) -> None:
    """Bring the file to the latest level, each step and its number in one transaction."""
    import sqlite_utils  # 4 MB: only in the child and in the command line

    with contextlib.closing(connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        current = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for number in range(current, len(steps)):
            connection.execute("BEGIN IMMEDIATE")
            steps[number](db)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")


if __name__ == "__main__":
    migrate(Path(sys.argv[1]))
