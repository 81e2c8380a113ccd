from __future__ import annotations

import asyncio
import io
import stat
import tarfile
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cloudcore.standalone.backup import DATABASE, MAX_KEYS, UNSEEN, locked, restore, save
from cloudcore.standalone.errors import StandaloneError, StartError, StoreError
from cloudcore.standalone.store import Expired, Store

KEY = ("", "things")


def using(folder: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(folder / DATABASE, fields=lambda key, value: {})
        store.open()
        store.start()
        try:
            await story(store)
        finally:
            await store.stop()

    folder.mkdir(exist_ok=True)
    asyncio.run(main())


async def put(store: Store, name: str) -> None:
    body: dict[str, Any] = {"kind": "Thing", "apiVersion": "v1", "metadata": {"name": name, "uid": name}}
    _, done = store.put(KEY, "", name, body)
    await done


def test_saved_while_in_use_and_restored_above_all_versions(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "file"
    (home / "pki").mkdir(parents=True)
    (home / "pki" / "api-ca.key").write_text("secret")
    (home / "pki" / "note.txt").write_text("not ours")

    async def write(store: Store) -> None:
        await put(store, "a")
        await put(store, "b")
        assert save(home, file) == 2
        await put(store, "c")
        await put(store, "a")

    async def read(store: Store) -> None:
        assert [record.name for record in store.select(KEY)] == ["a", "b"]
        assert all(record.revision > 4 + UNSEEN for record in store.select(KEY))
        assert all(
            record.decode()["metadata"]["resourceVersion"] == str(record.revision)
            for record in store.select(KEY)
        )
        with pytest.raises(Expired):
            store.subscribe(KEY, 4)
        before = store.revision
        await put(store, "d")
        assert store.revision == before + 1

    using(home, write)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (home / "pki" / "api-ca.key").write_text("another")
    assert restore(home, file) == 2
    assert (home / "pki" / "api-ca.key").read_text() == "secret"
    assert (home / f"{DATABASE}.before-restore").exists()
    using(home, read)
    assert restore(tmp_path / "elsewhere", file) == 2
    assert not (tmp_path / "elsewhere" / "pki" / "note.txt").exists()


def test_not_restored_under_a_running_one(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        await put(store, "a")
        save(tmp_path / "home", tmp_path / "file")

    using(tmp_path / "home", story)
    with locked(tmp_path / "home"), pytest.raises(StartError, match="a control plane runs there"):
        restore(tmp_path / "home", tmp_path / "file")


@pytest.mark.parametrize("name", ["../evil", "pki/../../evil.key", "/etc/evil", "pki/x.sh", "other.db"])
def test_an_archive_with_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "file", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StandaloneError, match="not part of a backup"):
        restore(tmp_path / "home", tmp_path / "file")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    """Also under a name that would be right: what follows would be written through it."""
    with tarfile.open(tmp_path / "file", "w") as tar:
        member = tarfile.TarInfo(DATABASE)
        member.type, member.linkname = kind, str(tmp_path / "elsewhere")
        tar.addfile(member)
        member = tarfile.TarInfo(DATABASE)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StandaloneError, match="not one of our backups"):
        restore(tmp_path / "home", tmp_path / "file")
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "home" / DATABASE).exists()


class Zeros(io.RawIOBase):
    """So many bytes, without having them."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_small_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, kind: bytes
) -> None:
    """Before it is written, and before memory is taken for it."""
    size = 48 * 1024 * 1024
    with tarfile.open(tmp_path / "file", "w:gz") as tar:
        member = tarfile.TarInfo(DATABASE)
        member.type, member.size = kind, size
        tar.addfile(member, Zeros(size))
    assert (tmp_path / "file").stat().st_size * 500 < size
    tracemalloc.start()
    try:
        with pytest.raises((StandaloneError, StoreError)):
            restore(tmp_path / "home", tmp_path / "file")
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "home" / DATABASE).exists()


def test_more_keys_than_there_are_is_no_backup(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "file", "w:gz") as tar:
        for number in range(MAX_KEYS + 1):
            member = tarfile.TarInfo(f"pki/{chr(97 + number % 26)}{'a' * (number // 26)}.key")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StandaloneError, match="not part of a backup"):
        restore(tmp_path / "home", tmp_path / "file")


def test_what_is_no_backup_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        await put(store, "a")

    home = tmp_path / "home"
    using(home, story)
    (tmp_path / "file").write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match=r"^cannot restore \S+: it is not one of our backups$"):
        restore(home, tmp_path / "file")
    with tarfile.open(tmp_path / "file", "w") as tar:
        member = tarfile.TarInfo(DATABASE)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StoreError):
        restore(home, tmp_path / "file")
    assert save(home, tmp_path / "again") == 1
    with pytest.raises(StoreError, match="no control plane"):
        save(tmp_path / "empty", tmp_path / "again")
