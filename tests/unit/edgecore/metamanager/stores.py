"""Stores on the disk for the tests of their modules: rows, secrets, damage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from edgecore.metamanager import migrations, sqlitefile, tables, upgrade
from edgecore.metamanager.records import Row, note_checksum
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction


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


def put(*rows: Row) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        for each in rows:
            tx.put(each)

    return work


SECRET = b"hunter2-is-not-a-password"


def secret(name: str = "db") -> Row:
    return row(name, kind="secret", uid=f"s-{name}", value=b'{"data":"%s"}' % SECRET)


def everything(folder: Path) -> bytes:
    return b"".join(f.read_bytes() for f in sorted(folder.iterdir()) if f.is_file())


def filled(path: Path, count: int = 300) -> None:
    async def fill() -> None:
        rows = [row(f"p{n}", uid=f"u{n}", value=b"x" * 700 + b"%d" % n) for n in range(count)]
        await found.write(put(*rows))
        await found.confirm_complete()

    found = Store.open(path)
    asyncio.run(fill())
    found.close()


def harm(kind: str, path: Path, rng: random.Random) -> None:
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


def plain_store(path: Path) -> None:
    """As an edgecore before sealing left it, with a secret that was deleted and one in the log."""
    upgrade.migrate(path, migrations.STEPS[:1])
    db = sqlitefile.connect(path)
    db.execute("PRAGMA secure_delete = OFF")
    gone = secret("gone")
    for one in (row("web"), secret(), gone):
        values = (one.key, one.type, one.namespace, one.name, one.uid, one.version, one.value, one.checksum)
        db.execute(f"INSERT INTO meta ({tables.META}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    db.execute("DELETE FROM meta WHERE key = ?", (gone.key,))
    for key in ("token/u1/default/app/x", tables.COMPLETE):
        db.execute("INSERT INTO state VALUES (?, ?, ?)", (key, SECRET, note_checksum(key, SECRET)))
    db.close()


async def fill_with_secrets(found: Store) -> None:
    await found.write(put(row("web"), secret(), row("cm", kind="configmap", uid="c1")))
    for key in ("token/u1/default/app/x", "metaserver/objects/core/v1/secrets/default/y"):
        await found.write(lambda tx, key=key: tx.set_state(key, SECRET))
    await found.write(lambda tx: tx.set_state("edged/pod/u1", b"{}"))
    await found.confirm_complete()
