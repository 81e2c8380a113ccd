"""The file: who may hold it, and which one is refused."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from edgecore.errors import AlreadyRunning, SchemaTooNew, StoreError
from edgecore.metamanager import migrations
from edgecore.metamanager.store import Store
from tests.unit.edgecore.metamanager.stores import (
    put,
    row,
)


def test_the_files_are_for_their_owner_only(path: Path, opened: Store) -> None:
    asyncio.run(opened.write(put(row())))
    modes = {f.name: f.stat().st_mode & 0o777 for f in path.parent.rglob("*") if f.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert (path.parent / "keys").stat().st_mode & 0o777 == 0o700


def test_a_second_agent_is_refused_and_the_first_goes_on(path: Path, opened: Store) -> None:
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        Store.open(path)
    asyncio.run(opened.write(put(row())))


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match="newer edgecore"):
        Store.open(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use"):
        Store.open(tmp_path / "file" / "edgecore.db")
