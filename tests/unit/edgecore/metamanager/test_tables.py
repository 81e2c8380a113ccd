"""Rows: what is sealed, and what replaces what."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from edgecore.metamanager.records import Pending
from edgecore.metamanager.store import Store
from tests.unit.edgecore.metamanager.stores import (
    SECRET,
    everything,
    fill_with_secrets,
    put,
    row,
    secret,
)


def test_secrets_and_tokens_are_nowhere_in_the_files(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(fill_with_secrets(found))
    assert SECRET not in everything(path.parent)  # with its log
    asyncio.run(found.write(lambda tx: (tx.delete(secret().key), tx.drop_state("token/u1/default/app/x"))))
    assert SECRET not in everything(path.parent)
    found.close()
    assert SECRET not in everything(path.parent)


def test_secrets_are_read_back_after_a_restart(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(fill_with_secrets(found))
    found.close()
    found = Store.open(path)
    assert asyncio.run(found.read(lambda view: view.get(secret().key))) == secret()
    assert asyncio.run(found.read(lambda view: view.all_of("secret"))) == [secret()]
    assert asyncio.run(found.read(lambda view: view.states("token/"))) == {"token/u1/default/app/x": SECRET}
    assert len(asyncio.run(found.read(lambda view: view.held()))) == 3
    assert found.counters.locked == found.counters.damaged_rows == 0
    found.close()


def test_a_lost_key_loses_the_secrets_and_nothing_else(path: Path) -> None:
    found = Store.open(path)
    asyncio.run(fill_with_secrets(found))
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
    assert asyncio.run(found.read(lambda view: view.get(secret().key))) is None
    assert asyncio.run(found.read(lambda view: view.states("token/"))) == {}
    # the hub hears of those that can be opened, and so sends the others again
    assert [uid for uid, _, _ in asyncio.run(found.read(lambda view: view.held()))] == ["c1", "u1"]
    asyncio.run(found.write(put(secret())))
    assert asyncio.run(found.read(lambda view: view.get(secret().key))) == secret()
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
    asyncio.run(found.write(put(secret("a"), secret("b"))))
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
