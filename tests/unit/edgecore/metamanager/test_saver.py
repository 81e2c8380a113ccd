"""The outbox's copy on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beehive.errors import Unavailable
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from tests.unit.edgecore.metamanager.scene import Line, Memory, on


def test_a_report_is_on_disk_before_its_sender_goes_on_and_leaves_when_acknowledged() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(store.queue) == 1
        (message,) = meta.take(0.0)
        meta.acked([message.id])
        assert len(meta.outbox) == 0

    on(scene)


def test_a_report_that_the_disk_refuses_is_still_sent() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.broken = True
        with pytest.raises(Unavailable):
            await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(meta.take(0.0)) == 1

    on(scene)


async def _both(meta: MetaManager, pod: int) -> None:
    """What a pod's worker stores of a status: its own record, and the report."""
    async with asyncio.TaskGroup() as group:
        group.create_task(meta.corner("edged").save(f"pod/u{pod}", b"record"))
        group.create_task(meta.pod_status("d", f"p{pod}", f"u{pod}", b'{"phase":"Running"}'))


@pytest.mark.parametrize("pods", [1, 20])
def test_a_status_and_the_record_of_its_pod_are_one_commit_however_many_pods_have_one(pods: int) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        before = store.counters.commits
        async with asyncio.TaskGroup() as group:
            for pod in range(pods):
                group.create_task(_both(meta, pod))
        assert store.counters.commits == before + 1
        assert len(store.queue) == pods
        assert len(store.states("edged/pod/")) == pods

    on(scene)


def test_a_status_and_its_record_are_one_commit_of_a_real_store(path: Path) -> None:
    store = Store.open(path)
    try:

        async def main() -> None:
            meta = MetaManager(store, "edge-1")
            await meta.load()
            await _both(meta, 0)  # the first tells the session's number, too
            before = store.counters.commits
            await _both(meta, 1)
            assert store.counters.commits == before + 1

        asyncio.run(main())
    finally:
        store.close()
    store = Store.open(path)
    try:
        kept = asyncio.run(store.read(lambda view: (view.state("edged/pod/u1"), len(view.outbox()))))
    finally:
        store.close()
    assert kept == (b"record", 2)


def test_a_note_that_the_disk_refused_is_not_written_later_over_a_newer_one() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        state = meta.corner("edged")
        store.broken = True
        with pytest.raises(Unavailable):
            await state.save("pod/u1", b"old")
        store.broken = False
        await store.write(lambda tx: tx.set_state("edged/pod/u1", b"new"))
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert store.notes["edged/pod/u1"] == b"new"

    on(scene)


def test_of_a_note_that_is_saved_again_meanwhile_the_newest_counts() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        state = meta.corner("edged")
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(state.save("pod/u1", b"%d" % number))
                await asyncio.sleep(0)
        assert store.notes["edged/pod/u1"] == b"4"
        async with asyncio.TaskGroup() as group:
            group.create_task(state.save("pod/u1", b"5"))
            group.create_task(state.drop("pod/u1"))
        assert await state.load("pod/u1") is None

    on(scene)


def test_whoever_gives_up_waiting_takes_his_note_with_him() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        state = meta.corner("edged")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(state.save("pod/u1", b"1"))
            await asyncio.sleep(0)
            second = group.create_task(state.save("pod/u2", b"2"))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([second])
        assert store.notes["edged/pod/u2"] == b"2"
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert "edged/pod/u1" not in store.notes

    on(scene)
