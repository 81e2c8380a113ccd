"""Damage is found, set aside and never believed."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beehive import clock
from beehive.errors import Unavailable
from edgecore.errors import StoreDamaged
from edgecore.metamanager import damage, sqlitefile
from edgecore.metamanager.store import Store
from tests.unit.edgecore.metamanager.stores import (
    SECRET,
    everything,
    filled,
    harm,
    plain_store,
    put,
    row,
)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["flipped bit", "truncated", "zeroed page", "not a database", "empty"])
def test_damage_never_stops_the_start_nor_brings_wrong_rows(path: Path, kind: str, seed: int) -> None:
    filled(path)
    harm(kind, path, random.Random(seed))
    found = Store.open(path)
    try:
        rows = asyncio.run(found.read(lambda view: view.all_of("pod")))
        assert all(r.value == b"x" * 700 + r.name[1:].encode() and r.uid == "u" + r.name[1:] for r in rows)
        # either nothing that matters was hit, or the store knows that it may lack something
        assert len(rows) == 300 or not found.complete
        asyncio.run(found.write(put(row("after"))))
    finally:
        found.close()
    if kind == "not a database":
        assert found.set_aside is not None
        assert found.set_aside.exists()


def test_sound_rows_of_a_damaged_file_are_carried_over(path: Path) -> None:
    filled(path, 2000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    found = Store.open(path)
    rows = asyncio.run(found.read(lambda view: view.all_of("pod")))
    found.close()
    assert 1500 < len(rows) < 2000
    assert not found.complete


def test_rows_are_carried_over_also_when_the_clock_was_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without a clock starts in 1970: what it sets aside then must not count as the oldest and go at once."""
    for _ in range(damage.KEPT):
        sqlitefile.mark(path).touch()
        Store.open(path).close()
    found = Store.open(path)
    asyncio.run(found.write(put(row())))
    found.close()
    sqlitefile.mark(path).touch()
    monkeypatch.setattr(clock, "wall", lambda: datetime(1970, 1, 1, tzinfo=UTC))
    found = Store.open(path)
    try:
        assert asyncio.run(found.read(lambda view: view.get("default/pod/web"))) == row()
        assert found.set_aside is not None
        assert found.set_aside.exists()
        assert len([f for f in path.parent.iterdir() if ".damaged-" in f.name]) == damage.KEPT
    finally:
        found.close()


def test_old_set_aside_files_go(path: Path) -> None:
    for _ in range(damage.KEPT + 2):
        path.write_bytes(b"garbage" * 1000)
        Store.open(path).close()
    kept = [f for f in path.parent.iterdir() if ".damaged-" in f.name]
    assert len(kept) == damage.KEPT


def test_a_lost_log_is_only_older_data(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(found.write(put(row("a"))))
    found.close()
    path.with_name(path.name + "-wal").write_bytes(b"")
    found = Store.open(path)
    assert len(asyncio.run(found.read(lambda view: view.all_of("pod")))) == 1
    found.close()


def test_damage_met_while_running_ends_the_part_and_is_repaired_at_the_next_start(path: Path) -> None:
    filled(path, 2000)
    found = Store.open(path)

    async def meet() -> None:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            for page in range(4, size // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 4096)
        with pytest.raises(Unavailable):
            await found.read(lambda view: view.all_of("pod"))
        with pytest.raises(StoreDamaged):
            await asyncio.wait_for(found.run(), 30)

    asyncio.run(meet())
    found.close()
    found = Store.open(path)
    assert found.set_aside is not None
    assert not found.complete
    found.close()


def test_what_is_found_damaged_while_running_is_dropped_and_the_store_is_whole_only_when_told_so(
    opened: Store,
) -> None:
    async def story() -> None:
        await opened.write(put(row(), row("other", uid="u2")))
        await opened.confirm_complete()
        with sqlite3.connect(opened.path) as db:
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (b"{ }", row().key))
        db.close()
        assert await opened.read(lambda view: view.get(row().key)) is None
        assert opened.damaged == {row().key}
        assert not opened.complete
        assert len(await opened.read(lambda view: view.held())) == 2
        await opened.drop_damaged()
        assert [uid for uid, _, _ in await opened.read(lambda view: view.held())] == ["u2"]
        assert opened.damaged == set()
        assert not opened.complete
        # one that was sent again meanwhile stays
        await opened.write(put(row()))
        opened.damaged.add(row().key)
        await opened.drop_damaged()
        assert len(await opened.read(lambda view: view.held())) == 2

    asyncio.run(story())


def test_an_older_store_that_is_damaged_leaves_no_secret_behind(path: Path) -> None:
    path.unlink()
    plain_store(path)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() - 4096)
    found = Store.open(path)
    assert found.set_aside is not None
    assert not found.complete
    found.close()
    assert SECRET not in everything(path.parent)
