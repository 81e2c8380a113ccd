"""Stores of earlier edgecores."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgecore.metamanager import migrations, sqlitefile, upgrade
from edgecore.metamanager.store import Store
from tests.unit.edgecore.metamanager.stores import (
    SECRET,
    everything,
    plain_store,
    secret,
)


def test_a_step_that_fails_halfway_changes_nothing(tmp_path: Path) -> None:
    def breaks(db: Any) -> None:
        db["more"].create({"key": str}, pk="key")
        raise RuntimeError("power cut")

    path = tmp_path / "edgecore.db"
    upgrade.migrate(path)
    with pytest.raises(RuntimeError):
        upgrade.migrate(path, (*migrations.STEPS, breaks))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == migrations.LATEST
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone()[0] == 0
    db.close()


def test_an_older_store_is_sealed_and_keeps_all(path: Path) -> None:
    path.unlink()
    plain_store(path)
    assert SECRET in everything(path.parent)
    found = Store.open(path)
    plain = everything(path.parent).replace(b"store.complete" + SECRET, b"")  # the note that is no secret
    assert SECRET not in plain
    assert found.complete
    assert found.set_aside is None
    assert asyncio.run(found.read(lambda view: view.get(secret().key))) == secret()
    assert asyncio.run(found.read(lambda view: view.state("token/u1/default/app/x"))) == SECRET
    found.close()
    assert sqlitefile.level(path) == migrations.LATEST
