"""The store on a file system of its own that is full: it opens, and what it holds can be read."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecore.metamanager import reserve
from edgecore.metamanager.records import Row
from edgecore.metamanager.store import Store

POD = Row(key="d/pod/a", type="pod", namespace="d", name="a", uid="u", version=1, value=b"{}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    path = disk / "fill"
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(os.urandom(4096))
            except OSError:
                return path


async def run_until_reserved(store: Store, path: Path) -> None:
    running = asyncio.create_task(store.run())
    async with asyncio.timeout(60):
        while not path.exists():  # noqa: ASYNC240 - a look at memory
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])


def test_a_store_that_was_closed_opens_on_a_full_disk(disk: Path) -> None:
    path, kept = disk / "edgecore.db", disk / "edgecore.db.reserve"
    store = Store.open(path)
    try:
        asyncio.run(store.write(lambda tx: tx.put(POD)))
        asyncio.run(run_until_reserved(store, kept))
    finally:
        store.close()
    assert not path.with_name("edgecore.db-wal").exists(), "closed in order"
    filled = fill(disk)

    store = Store.open(path)
    try:
        assert not kept.exists()
        assert asyncio.run(store.read(lambda view: view.all_of("pod"))) == [POD]
        # and something can be remembered: how the pod ended that fills the disk, say
        asyncio.run(store.write(lambda tx: tx.set_state("edged/pod/u", b"ended")))
        reserve.Reserve(path).keep()
        assert not kept.exists(), "it must not take the room that is short"
        filled.unlink()
        asyncio.run(run_until_reserved(store, kept))
    finally:
        store.close()
