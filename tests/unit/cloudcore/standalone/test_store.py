from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcore.standalone import store as module
from cloudcore.standalone.errors import NewerStore, StoreError
from cloudcore.standalone.store import Event, Expired, Record, Store, TooSlow

KEY = ("", "things")


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "Thing", "apiVersion": "v1", "metadata": {"name": name, "uid": f"uid-{name}"}, **more}


def using(path: Path, story: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(path, fields=lambda key, value: {"x": str(value.get("x", ""))})
        store.open()
        store.start()
        try:
            await story(store)
        finally:
            await store.stop()

    asyncio.run(main())


async def put(store: Store, name: str, **more: Any) -> Record:
    record, done = store.put(KEY, "ns", name, body(name, **more))
    await done
    return record


async def remove(store: Store, name: str) -> Record:
    head = store.head(KEY, "ns", name)
    assert head is not None
    record, done = store.remove(KEY, "ns", name, head.decode())
    await done
    return record


def test_what_landed_is_there_after_reopening(tmp_path: Path) -> None:
    async def write(store: Store) -> None:
        await put(store, "a", x=1)
        await put(store, "b")
        await remove(store, "b")

    async def read(store: Store) -> None:
        found = store.get(KEY, "ns", "a")
        assert found is not None
        assert found.decode()["x"] == 1
        assert store.get(KEY, "ns", "b") is None
        assert store.revision == 3
        assert (await put(store, "c")).revision == 4

    using(tmp_path / "db", write)
    using(tmp_path / "db", read)


def test_nobody_sees_what_has_not_landed(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        with store.subscribe(KEY, None) as watcher:
            _, done = store.put(KEY, "ns", "a", body("a"))
            assert store.get(KEY, "ns", "a") is None
            assert store.revision == 0
            head = store.head(KEY, "ns", "a")
            assert head is not None
            await done
            assert store.get(KEY, "ns", "a") == head
            assert [event.type for event in await watcher.next(1)] == ["ADDED"]
            _, done = store.remove(KEY, "ns", "a", body("a"))
            assert store.head(KEY, "ns", "a") is None
            assert store.get(KEY, "ns", "a") is not None
            await done

    using(tmp_path / "db", story)


def test_a_failed_write_fails_those_after_it_and_shows_nothing(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        with sqlite3.connect(tmp_path / "db") as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON objects WHEN NEW.name='bad' BEGIN SELECT RAISE(ABORT,'no'); END"
            )
        other.close()
        _, first = store.put(KEY, "ns", "bad", body("bad"))
        _, second = store.put(KEY, "ns", "good", body("good"))
        for done in (first, second):
            with pytest.raises(StoreError):
                await done
        assert store.head(KEY, "ns", "bad") is None
        assert store.select(KEY) == []
        await put(store, "later")
        assert [record.name for record in store.select(KEY)] == ["later"]

    using(tmp_path / "db", story)


def test_what_was_decided_on_top_of_a_write_that_failed_for_an_earlier_one_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, as the writing thread and the loop can take turns."""

    monkeypatch.setattr(Store, "_hand_over", lambda self: None)

    async def main() -> None:
        store = Store(tmp_path / "db", fields=lambda key, value: {})
        store.open()
        store._loop = asyncio.get_running_loop()
        connection = store._connect()
        try:

            def put(name: str) -> None:
                store.put(KEY, "ns", name, body(name))

            def commit() -> None:
                batch, store._outgoing = store._outgoing, []
                outcome.append(batch)
                store._commit(connection, batch)

            outcome: list[Any] = []
            connection.execute(
                "CREATE TEMP TRIGGER no BEFORE INSERT ON objects WHEN NEW.name='bad' "
                "BEGIN SELECT RAISE(ABORT,'no'); END"
            )
            put("bad")
            commit()
            put("before-it-is-known")
            await asyncio.sleep(0)  # now it is
            put("a")
            commit()  # fails with the one before it
            put("a")  # on top of that
            commit()
            put("b")
            await asyncio.sleep(0)
            put("c")
            commit()
            await asyncio.sleep(0)
            put("d")
            commit()
            await asyncio.sleep(0)
            done = {write.id[1]: write.done.exception() for batch in outcome for write in batch}
            assert [name for name, fault in done.items() if fault is None] == ["d"]
            assert [record.name for record in store.select(KEY)] == ["d"]
        finally:
            connection.close()

    asyncio.run(main())


def test_a_fault_in_the_writing_thread_is_an_answer_and_not_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: Store) -> None:
        _, done = store.put(KEY, "ns", "\udc80", body("a"))  # no text that SQLite could hold
        with pytest.raises(StoreError):
            await asyncio.wait_for(done, 30)
        await asyncio.wait_for(put(store, "later"), 30)

    using(tmp_path / "db", story)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    async def nothing(store: Store) -> None:
        return None

    using(tmp_path / "db", nothing)
    with sqlite3.connect(tmp_path / "db") as other:
        other.execute("UPDATE meta SET value=99 WHERE name='level'")
    other.close()
    with pytest.raises(NewerStore):
        using(tmp_path / "db", nothing)


def test_compaction_expires_only_those_behind_it(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        first = await put(store, "a")
        last = await put(store, "a", x=2)
        store.compact(KEY)
        with pytest.raises(Expired):
            store.subscribe(KEY, first.revision)
        with store.subscribe(KEY, last.revision) as watcher:
            await put(store, "b")
            assert [event.record.name for event in await watcher.next(1)] == ["b"]

    async def again(store: Store) -> None:
        with store.subscribe(KEY, store.revision) as watcher:
            assert await watcher.next(0) == []
        with pytest.raises(Expired):
            store.subscribe(KEY, 1)

    using(tmp_path / "db", story)
    using(tmp_path / "db", again)


def test_selector_transitions(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        with store.subscribe(KEY, None, lambda record: record.fields["x"] == "1") as watcher:
            await put(store, "a", x=2)
            await put(store, "a", x=1)
            await put(store, "a", x=1, y=1)
            gone = await put(store, "a", x=3)
            await remove(store, "a")
            events = await watcher.next(1)
        assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        last = events[-1].record.decode()
        assert last["x"] == 1
        assert last["metadata"]["resourceVersion"] == str(gone.revision)

    using(tmp_path / "db", story)


def test_a_watcher_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 2)

    async def story(store: Store) -> None:
        with store.subscribe(KEY, None) as watcher:
            for index in range(4):
                await put(store, f"n{index}")
            with pytest.raises(TooSlow):
                await watcher.next(1)

    using(tmp_path / "db", story)


def test_what_waits_for_a_watcher_is_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 10_000)

    async def story(store: Store) -> None:
        with store.subscribe(KEY, None) as watcher:
            for _ in range(3):  # what was read is not counted any more
                await put(store, "a", text="x" * 6000)
                assert len(await watcher.next(1)) == 1
            for _ in range(2):
                await put(store, "a", text="x" * 6000)
            with pytest.raises(TooSlow):
                await watcher.next(1)

    using(tmp_path / "db", story)


def test_an_earlier_state_is_there_as_long_as_what_changed_is_known(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        await put(store, "a", x=1)
        await put(store, "b")
        at = store.revision
        await put(store, "a", x=2)
        await remove(store, "b")
        await put(store, "c")
        then = store.select_at(KEY, at)
        assert [(record.name, record.decode().get("x")) for record in then] == [("a", 1), ("b", None)]
        assert [record.name for record in store.select_at(KEY, store.revision)] == ["a", "c"]
        store.compact(KEY)
        with pytest.raises(Expired):
            store.select_at(KEY, at)
        assert [record.name for record in store.select_at(KEY, store.revision)] == ["a", "c"]

    using(tmp_path / "db", story)


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=20)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_watches_cut_and_resumed_see_what_the_list_says(
    tmp_path_factory: Any, steps: list[tuple[str, int, bool]]
) -> None:
    seen: dict[str, Any] = {}

    def apply(events: list[Event]) -> None:
        for event in events:
            if event.type == "DELETED":
                seen.pop(event.record.name)
            else:
                seen[event.record.name] = event.record.decode()

    async def story(store: Store) -> None:
        since = 0
        for name, value, cut in steps:
            if value:
                await put(store, name, x=value)
            elif store.head(KEY, "ns", name) is not None:
                await remove(store, name)
            if cut:
                with store.subscribe(KEY, since) as watcher:
                    apply(await watcher.next(0))
                since = store.revision
        with store.subscribe(KEY, since) as watcher:
            apply(await watcher.next(0))
        assert seen == {record.name: record.decode() for record in store.select(KEY)}

    using(tmp_path_factory.mktemp("store") / "db", story)
