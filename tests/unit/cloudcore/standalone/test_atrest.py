from __future__ import annotations

from pathlib import Path

from cloudcore.standalone import atrest
from cloudcore.standalone.store import Store
from tests.unit.cloudcore.standalone.test_store import KEY, put, using


def test_a_backup_opens_as_a_store(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        await put(store, "a")
        assert atrest.copy_database(tmp_path / "db", tmp_path / "copy") == 1
        await put(store, "b")

    async def read(store: Store) -> None:
        assert [record.name for record in store.select(KEY)] == ["a"]

    using(tmp_path / "db", story)
    using(tmp_path / "copy", read)
