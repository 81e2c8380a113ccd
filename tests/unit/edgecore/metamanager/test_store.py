"""The store on a real file in a temporary folder."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from beehive.errors import Unavailable
from edgecore.metamanager.records import Pending
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction
from tests.unit.edgecore.metamanager.stores import (
    put,
    row,
)


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


def test_a_fresh_store_is_incomplete_until_confirmed(path: Path) -> None:
    found = Store.open(path)
    assert not found.complete
    asyncio.run(found.confirm_complete())
    found.close()
    found = Store.open(path)
    assert found.complete
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
