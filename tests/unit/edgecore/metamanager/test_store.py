"""The store on a real file in a temporary folder."""

import asyncio
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from beehive import clock
from beehive.errors import Unavailable
from edgecore.errors import AlreadyRunning, SchemaTooNew, StoreDamaged, StoreError
from edgecore.metamanager import migrations, store
from edgecore.metamanager.records import Pending, Row, note_checksum
from edgecore.metamanager.store import Store, Transaction


def row(
    name: str = "web", *, kind: str = "pod", version: int = 1, uid: str = "u1", value: bytes = b"{}"
) -> Row:
    return Row(
        key=f"default/{kind}/{name}",
        type=kind,
        namespace="default",
        name=name,
        uid=uid,
        version=version,
        value=value,
    )


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fresh file's bytes: making one takes a child process."""
    path = tmp_path_factory.mktemp("empty") / "edgecore.db"
    Store.open(path).close()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, empty: bytes) -> Path:
    path = tmp_path / "edgecore.db"
    path.write_bytes(empty)
    path.chmod(0o600)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    found = Store.open(path)
    yield found
    found.close()


def put(*rows: Row) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        for each in rows:
            tx.put(each)

    return work


def test_what_is_written_is_read_back_after_a_restart(path: Path) -> None:
    async def first() -> None:
        await found.write(put(row("a"), row("b", kind="configmap", uid="u2")))
        await found.write(lambda tx: tx.set_state("edged/x", b"\x00\xff"))
        await found.write(
            lambda tx: tx.put_pending(Pending(seq=7, key="k", kind="event", at_ms=5, message=b"{}"))
        )

    found = Store.open(path)
    asyncio.run(first())
    found.close()

    async def second() -> None:
        assert await found.read(lambda view: view.get("default/pod/a")) == row("a")
        assert await found.read(lambda view: view.all_of("configmap")) == [
            row("b", kind="configmap", uid="u2")
        ]
        assert await found.read(lambda view: view.all_of("configmap", "other")) == []
        assert await found.read(lambda view: view.held()) == [
            ("u2", "default/configmap/b", 1),
            ("u1", "default/pod/a", 1),
        ]
        assert await found.read(lambda view: view.states("edged/")) == {"edged/x": b"\x00\xff"}
        assert [p.seq for p in await found.read(lambda view: view.outbox())] == [7]

    found = Store.open(path)
    asyncio.run(second())
    found.close()


def test_the_files_are_for_their_owner_only(path: Path, opened: Store) -> None:
    asyncio.run(opened.write(put(row())))
    modes = {f.name: f.stat().st_mode & 0o777 for f in path.parent.rglob("*") if f.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert (path.parent / "keys").stat().st_mode & 0o777 == 0o700


def test_works_that_arrive_together_share_a_commit(opened: Store) -> None:
    async def burst() -> None:
        before = opened.counters.commits
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(opened.write(put(row(f"p{number}", uid=f"u{number}"))))
        assert opened.counters.works >= 200
        assert opened.counters.commits - before <= 50  # DESIGN section 6: 0.25 fsyncs an object

    asyncio.run(burst())


def test_a_work_that_raises_leaves_nothing_and_disturbs_nobody(opened: Store) -> None:
    def bad(tx: Transaction) -> None:
        tx.put(row("bad"))
        raise ValueError("no")

    async def together() -> None:
        gate = threading.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(
                opened.write(lambda tx: gate.wait(5))
            )  # holds the writer: the next two share a group
            failing = asyncio.ensure_future(opened.write(bad))
            group.create_task(opened.write(put(row("good"))))
            await asyncio.sleep(0)
            gate.set()
        with pytest.raises(ValueError, match="no"):
            await failing
        assert await opened.read(lambda view: view.get("default/pod/bad")) is None
        assert await opened.read(lambda view: view.get("default/pod/good")) is not None

    asyncio.run(together())


def test_reading_does_not_wait_for_the_writer(opened: Store) -> None:
    async def during_a_write() -> None:
        gate = threading.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(opened.write(lambda tx: gate.wait(5)))
            assert await asyncio.wait_for(opened.read(lambda view: view.all_of("pod")), 30) == []
            gate.set()

    asyncio.run(during_a_write())


def test_a_newer_frame_of_a_key_replaces_the_older(opened: Store) -> None:
    async def twice() -> None:
        for seq in (1, 2):
            pending = Pending(seq=seq, key="podpatch/u", kind="podpatch", at_ms=seq, message=b"%d" % seq)
            await opened.write(lambda tx, p=pending: tx.put_pending(p))
        assert [p.message for p in await opened.read(lambda view: view.outbox())] == [b"2"]
        await opened.write(lambda tx: tx.drop_pending([1]))
        assert len(await opened.read(lambda view: view.outbox())) == 1
        await opened.write(lambda tx: tx.drop_pending([2]))
        assert await opened.read(lambda view: view.outbox()) == []

    asyncio.run(twice())


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


def test_a_step_that_fails_halfway_changes_nothing(tmp_path: Path) -> None:
    def breaks(db: Any) -> None:
        db["more"].create({"key": str}, pk="key")
        raise RuntimeError("power cut")

    path = tmp_path / "edgecore.db"
    store.migrate(path)
    with pytest.raises(RuntimeError):
        store.migrate(path, (*migrations.STEPS, breaks))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == migrations.LATEST
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone()[0] == 0
    db.close()


def test_a_fresh_store_is_incomplete_until_confirmed(path: Path) -> None:
    found = Store.open(path)
    assert not found.complete
    asyncio.run(found.confirm_complete())
    found.close()
    found = Store.open(path)
    assert found.complete
    found.close()


def _filled(path: Path, count: int = 300) -> None:
    async def fill() -> None:
        rows = [row(f"p{n}", uid=f"u{n}", value=b"x" * 700 + b"%d" % n) for n in range(count)]
        await found.write(put(*rows))
        await found.confirm_complete()

    found = Store.open(path)
    asyncio.run(fill())
    found.close()


def _damage(kind: str, path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    match kind:
        case "flipped bit":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "truncated":
            del data[rng.randrange(100, len(data)) :]
        case "zeroed page":
            start = rng.randrange(len(data) // 4096) * 4096
            data[start : start + 4096] = bytes(4096)
        case "not a database":
            data[:] = b"\x00garbage" * 1000
        case "empty":
            data.clear()
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["flipped bit", "truncated", "zeroed page", "not a database", "empty"])
def test_damage_never_stops_the_start_nor_brings_wrong_rows(path: Path, kind: str, seed: int) -> None:
    _filled(path)
    _damage(kind, path, random.Random(seed))
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
    _filled(path, 2000)
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
    for _ in range(store.KEPT_DAMAGED):
        store._mark(path).touch()
        Store.open(path).close()
    found = Store.open(path)
    asyncio.run(found.write(put(row())))
    found.close()
    store._mark(path).touch()
    monkeypatch.setattr(clock, "wall", lambda: datetime(1970, 1, 1, tzinfo=UTC))
    found = Store.open(path)
    try:
        assert asyncio.run(found.read(lambda view: view.get("default/pod/web"))) == row()
        assert found.set_aside is not None
        assert found.set_aside.exists()
        assert len([f for f in path.parent.iterdir() if ".damaged-" in f.name]) == store.KEPT_DAMAGED
    finally:
        found.close()


def test_old_set_aside_files_go(path: Path) -> None:
    for _ in range(store.KEPT_DAMAGED + 2):
        path.write_bytes(b"garbage" * 1000)
        Store.open(path).close()
    kept = [f for f in path.parent.iterdir() if ".damaged-" in f.name]
    assert len(kept) == store.KEPT_DAMAGED


def test_a_lost_log_is_only_older_data(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(found.write(put(row("a"))))
    found.close()
    path.with_name(path.name + "-wal").write_bytes(b"")
    found = Store.open(path)
    assert len(asyncio.run(found.read(lambda view: view.all_of("pod")))) == 1
    found.close()


def test_damage_met_while_running_ends_the_part_and_is_repaired_at_the_next_start(path: Path) -> None:
    _filled(path, 2000)
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


def test_a_full_disk_is_unavailable_and_heals_by_itself(opened: Store) -> None:
    async def fill() -> None:
        pages = opened._writer.execute("PRAGMA page_count").fetchone()[0]
        opened._writer.execute(f"PRAGMA max_page_count = {pages}")
        big = row("big", value=b"x" * 100_000)
        with pytest.raises(Unavailable, match="full"):
            await opened.write(put(big))
        assert await opened.read(lambda view: view.get(big.key)) is None
        opened._writer.execute("PRAGMA max_page_count = 100000")
        await opened.write(put(big))
        assert await opened.read(lambda view: view.get(big.key)) == big

    asyncio.run(fill())


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use"):
        Store.open(tmp_path / "file" / "edgecore.db")


def test_the_command_line_reads_without_the_daemon(path: Path) -> None:
    _filled(path, 3)
    assert len(store.read_offline(path, "pod")) == 3
    with pytest.raises(StoreError, match="no store"):
        store.read_offline(path.with_name("none"), "pod")


SECRET = b"hunter2-is-not-a-password"


def _secret(name: str = "db") -> Row:
    return row(name, kind="secret", uid=f"s-{name}", value=b'{"data":"%s"}' % SECRET)


def _everything(folder: Path) -> bytes:
    return b"".join(f.read_bytes() for f in sorted(folder.iterdir()) if f.is_file())


async def _fill_with_secrets(found: Store) -> None:
    await found.write(put(row("web"), _secret(), row("cm", kind="configmap", uid="c1")))
    for key in ("token/u1/default/app/x", "metaserver/objects/core/v1/secrets/default/y"):
        await found.write(lambda tx, key=key: tx.set_state(key, SECRET))
    await found.write(lambda tx: tx.set_state("edged/pod/u1", b"{}"))
    await found.confirm_complete()


def test_secrets_and_tokens_are_nowhere_in_the_files(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(_fill_with_secrets(found))
    assert SECRET not in _everything(path.parent)  # with its log
    asyncio.run(found.write(lambda tx: (tx.delete(_secret().key), tx.drop_state("token/u1/default/app/x"))))
    assert SECRET not in _everything(path.parent)
    found.close()
    assert SECRET not in _everything(path.parent)


def test_secrets_are_read_back_after_a_restart(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(_fill_with_secrets(found))
    found.close()
    found = Store.open(path)
    assert asyncio.run(found.read(lambda view: view.get(_secret().key))) == _secret()
    assert asyncio.run(found.read(lambda view: view.all_of("secret"))) == [_secret()]
    assert asyncio.run(found.read(lambda view: view.states("token/"))) == {"token/u1/default/app/x": SECRET}
    assert len(asyncio.run(found.read(lambda view: view.held()))) == 3
    assert found.counters.locked == found.counters.damaged_rows == 0
    found.close()


def test_a_lost_key_loses_the_secrets_and_nothing_else(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(_fill_with_secrets(found))
    found.close()
    key = path.parent / "keys" / "store.key"
    kept = key.read_bytes()
    key.unlink()
    found = Store.open(path)
    assert found.counters.locked == 3
    # which pods are wanted here is known as before: none may be judged by this
    assert found.complete
    assert found.counters.damaged_rows == 0
    assert asyncio.run(found.read(lambda view: view.get("default/pod/web"))) == row("web")
    assert asyncio.run(found.read(lambda view: view.get(_secret().key))) is None
    assert asyncio.run(found.read(lambda view: view.states("token/"))) == {}
    # the hub hears of those that can be opened, and so sends the others again
    assert [uid for uid, _, _ in asyncio.run(found.read(lambda view: view.held()))] == ["c1", "u1"]
    asyncio.run(found.write(put(_secret())))
    assert asyncio.run(found.read(lambda view: view.get(_secret().key))) == _secret()
    found.close()
    # the old key comes back: what it sealed is there, and what the other one sealed is asked for again
    other = key.read_bytes()
    key.write_bytes(kept)
    found = Store.open(path)
    assert found.counters.locked == 1
    assert asyncio.run(found.read(lambda view: view.states("token/"))) == {"token/u1/default/app/x": SECRET}
    asyncio.run(found.drop_locked())
    assert found.counters.locked == 0
    found.close()
    key.write_bytes(other)
    found = Store.open(path)
    assert found.counters.locked == 2
    found.close()


def test_a_sealed_value_moved_to_another_row_is_damage(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(found.write(put(_secret("a"), _secret("b"))))
    found.close()
    with sqlite3.connect(path) as db:
        (value,) = db.execute("SELECT value FROM meta WHERE name = 'a'").fetchone()
        forged = row("b", kind="secret", uid="s-b", value=value)
        db.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = 'b'", (value, forged.checksum))
    db.close()
    found = Store.open(path)
    assert [r.name for r in asyncio.run(found.read(lambda view: view.all_of("secret")))] == ["a"]
    assert found.counters.damaged_rows == 1
    found.close()


def _plain_store(path: Path) -> None:
    """As an edgecore before sealing left it, with a secret that was deleted and one in the log."""
    store.migrate(path, migrations.STEPS[:1])
    db = store._connect(path)
    db.execute("PRAGMA secure_delete = OFF")
    gone = _secret("gone")
    for one in (row("web"), _secret(), gone):
        values = (one.key, one.type, one.namespace, one.name, one.uid, one.version, one.value, one.checksum)
        db.execute(f"INSERT INTO meta ({store._META}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    db.execute("DELETE FROM meta WHERE key = ?", (gone.key,))
    for key in ("token/u1/default/app/x", store._COMPLETE):
        db.execute("INSERT INTO state VALUES (?, ?, ?)", (key, SECRET, note_checksum(key, SECRET)))
    db.close()


def test_an_older_store_is_sealed_and_keeps_all(path: Path) -> None:
    path.unlink()
    _plain_store(path)
    assert SECRET in _everything(path.parent)
    found = Store.open(path)
    plain = _everything(path.parent).replace(b"store.complete" + SECRET, b"")  # the note that is no secret
    assert SECRET not in plain
    assert found.complete
    assert found.set_aside is None
    assert asyncio.run(found.read(lambda view: view.get(_secret().key))) == _secret()
    assert asyncio.run(found.read(lambda view: view.state("token/u1/default/app/x"))) == SECRET
    found.close()
    assert store.level(path) == migrations.LATEST


def test_an_older_store_that_is_damaged_leaves_no_secret_behind(path: Path) -> None:
    path.unlink()
    _plain_store(path)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() - 4096)
    found = Store.open(path)
    assert found.set_aside is not None
    assert not found.complete
    found.close()
    assert SECRET not in _everything(path.parent)


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


def test_the_watchdog_sees_that_the_writer_stands_and_goes_on(opened: Store) -> None:
    vital = opened.vital()
    assert vital.pulse() is None
    begun, go_on = threading.Event(), threading.Event()

    def stand(tx: Transaction) -> None:
        begun.set()
        go_on.wait(60)

    async def story() -> None:
        first = asyncio.create_task(opened.write(stand))
        await asyncio.to_thread(begun.wait, 60)
        seen = vital.pulse()
        assert seen is not None
        assert vital.pulse() == seen
        # a thread that waits for a lock, and not for the kernel, is not excused
        assert not vital.excused()
        go_on.set()
        await first
        begun.clear()
        go_on.clear()
        second = asyncio.create_task(opened.write(stand))
        await asyncio.to_thread(begun.wait, 60)
        assert vital.pulse() not in (None, seen)
        go_on.set()
        await second

    asyncio.run(story())
