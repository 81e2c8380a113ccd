"""What is shown, and what watches are told."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from beehive.errors import Unavailable
from edgecore.metaserver import mirror as module
from edgecore.metaserver.mirror import Mirror, TooOld
from edgecore.metaserver.objects import Filter, Gvr
from tests.unit.edgecore.metaserver.fakes import MAPS, PODS, FakeStore, body, config, lines

EVERY = Filter.parse(MAPS, "", "", "")
WEB = Filter.parse(MAPS, "web", "", "")
RED = Filter.parse(MAPS, "", "color=red", "")


def run(test: Callable[[Mirror, FakeStore], Awaitable[None]], store: FakeStore | None = None) -> None:
    async def main() -> None:
        kept = store or FakeStore()
        mirror = Mirror(kept)
        await mirror.load()
        task = asyncio.get_running_loop().create_task(mirror.run())
        try:
            await test(mirror, kept)
        finally:
            task.cancel()

    asyncio.run(main())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_newer_of_held_and_asked_is_shown() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        store.hold("configmap", body(name="a", version=5))
        await mirror.learn(MAPS, [config("a", 4), config("b", 3)])
        assert [(o.name, o.version) for o in (await mirror.select(EVERY))[0]] == [("a", 5), ("b", 3)]
        await mirror.learn(MAPS, [config("a", 9)])
        found = await mirror.get(MAPS, "web", "a")
        assert found is not None
        assert found.version == 9

    run(test)


def test_what_was_asked_survives_a_restart() -> None:
    store = FakeStore()

    async def first(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("a", 4), config("b", 3, "other")])

    async def second(mirror: Mirror, store: FakeStore) -> None:
        found, version = await mirror.select(WEB)
        assert [o.name for o in found] == ["a"]
        assert version == 4
        await mirror.learn(MAPS, [config("a", 4)])
        assert store.commits == 1  # nothing new, nothing written

    run(first, store)
    run(second, store)


def test_another_version_of_the_group_is_another_resource() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        store.hold("device", body("Device", "d", version=2, api_version="devices.kubeedge.io/v1beta1"))
        for version, names in (("v1beta1", ["d"]), ("v1alpha2", [])):
            wanted = Filter.parse(Gvr("devices.kubeedge.io", version, "devices"), "", "", "")
            assert [o.name for o in (await mirror.select(wanted))[0]] == names

    run(test)


def test_a_watch_from_a_list_misses_nothing() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("a", 4), config("gone", 5)])
        _, version = await mirror.select(EVERY)
        await mirror.learn(MAPS, [config("a", 7), config("b", 6)])
        await mirror.forget(MAPS, "web", "gone")
        watch = await mirror.watch(EVERY, version)
        assert lines(watch.queue) == [("MODIFIED", "a", "7"), ("ADDED", "b", "6"), ("DELETED", "gone", "5")]
        await mirror.learn(MAPS, [config("b", 8), config("c", 9)])
        assert lines(watch.queue) == [("MODIFIED", "b", "8"), ("ADDED", "c", "9")]
        # resumed from the version of an event
        again = await mirror.watch(EVERY, 8)
        assert lines(again.queue) == [("ADDED", "c", "9")]

    run(test)


def test_a_watch_without_a_version_begins_with_everything() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        store.hold("configmap", body(name="a", version=5))
        watch = await mirror.watch(WEB, None, initial=True)
        assert lines(watch.queue) == [("ADDED", "a", "5"), ("BOOKMARK", "", "1")]
        store.hold("configmap", body(name="a", version=6))
        store.hold("configmap", body(name="b", version=7))
        store.hold("configmap", body(name="x", version=8, namespace="other"))
        await settle()
        assert lines(watch.queue) == [("MODIFIED", "a", "6"), ("ADDED", "b", "7")]
        store.drop("configmap", "web", "a")
        await settle()
        assert [item[:2] for item in lines(watch.queue)] == [("DELETED", "a")]

    run(test)


def test_selectors_make_additions_and_deletions() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("a", 1), config("b", 2, color="red")])
        watch = await mirror.watch(RED, None)
        assert lines(watch.queue) == [("ADDED", "b", "2")]
        await mirror.learn(MAPS, [config("a", 3, color="red"), config("b", 4), config("c", 5)])
        assert lines(watch.queue) == [("ADDED", "a", "3"), ("DELETED", "b", "4")]
        await mirror.forget(MAPS, "web", "c")
        assert lines(watch.queue) == []

    run(test)


def test_a_replay_takes_away_what_matched_before() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("b", 2, color="red")])
        _, version = await mirror.select(RED)
        await mirror.learn(MAPS, [config("b", 4)])
        watch = await mirror.watch(RED, version)
        assert lines(watch.queue) == [("DELETED", "b", "4")]

    run(test)


def test_an_older_state_is_no_news() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("a", 7)])
        watch = await mirror.watch(EVERY, None)
        lines(watch.queue)
        await mirror.learn(MAPS, [config("a", 6)])
        store.hold("configmap", body(name="a", version=5))
        await settle()
        assert lines(watch.queue) == []

    run(test)


def test_a_whole_list_takes_away_what_it_has_not() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        await mirror.learn(MAPS, [config("a", 1), config("b", 2), config("c", 3, "other")])
        watch = await mirror.watch(EVERY, None)
        lines(watch.queue)
        await mirror.learn(MAPS, [config("a", 1)], within=WEB)
        assert lines(watch.queue) == [("DELETED", "b", "2")]
        assert [o.name for o in (await mirror.select(EVERY))[0]] == ["c", "a"]

    run(test)


def test_what_the_node_holds_is_not_taken_away_by_a_list() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        store.hold("pod", body("Pod", "p", version=3))
        await mirror.learn(PODS, [], within=Filter.parse(PODS, "", "", ""))
        assert await mirror.get(PODS, "web", "p") is not None

    run(test)


def test_a_pod_that_left_the_node_leaves_what_was_asked_too() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        store.hold("pod", body("Pod", "p", version=3))
        await settle()
        await mirror.learn(PODS, [_pod("p", 9)])
        assert store.commits == 1
        store.drop("pod", "web", "p")
        await settle()
        assert await mirror.get(PODS, "web", "p") is None

    run(test)


def _pod(name: str, version: int):
    import json

    from edgecore.metaserver.objects import read

    found = read(json.dumps(body("Pod", name, version=version)).encode(), PODS)
    assert found is not None
    return found


def test_a_version_of_another_life_is_too_old() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        with pytest.raises(TooOld):
            await mirror.watch(EVERY, 12345)

    run(test)


def test_a_slow_reader_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 3)

    async def test(mirror: Mirror, store: FakeStore) -> None:
        watch = await mirror.watch(EVERY, None)
        await mirror.learn(MAPS, [config(str(n), n) for n in range(1, 6)])
        assert watch.closed
        assert lines(watch.queue)[-1][0] == "END"

    run(test)


def test_room_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", 2)

    async def test(mirror: Mirror, store: FakeStore) -> None:
        watch = await mirror.watch(EVERY, None)
        await mirror.learn(MAPS, [config(str(n), n) for n in range(1, 5)])
        assert len(store.kept) == 2
        assert mirror.refused == 2
        assert len(lines(watch.queue)) == 4  # shown all the same
        await mirror.learn(MAPS, [config("1", 9)])
        assert (await mirror.get(MAPS, "web", "1")) == config("1", 9)

    run(test)


def test_nothing_is_shown_that_could_not_be_kept() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        watch = await mirror.watch(EVERY, None)
        store.broken = True
        with pytest.raises(Unavailable):
            await mirror.learn(MAPS, [config("a", 1)])
        assert lines(watch.queue) == []
        store.broken = False
        await mirror.learn(MAPS, [config("a", 1)])
        assert lines(watch.queue) == [("ADDED", "a", "1")]

    run(test)


def told(watch: module.Watch) -> list[tuple[str, str]]:
    return [(kind, name) for kind, name, _ in lines(watch.queue)]


def test_pods_here_are_as_the_node_knows_them_while_the_cloud_is_away() -> None:
    async def test(mirror: Mirror, store: FakeStore) -> None:
        there = body(kind="Pod", name="p", version=5) | {"status": {"phase": "Pending"}}
        store.hold("pod", there)
        store.hold("pod", body(kind="Pod", name="other", version=6) | {"status": {"phase": "Pending"}})
        everything = Filter.parse(PODS, "", "", "")
        running = await mirror.watch(Filter.parse(PODS, "", "", "status.phase=Running"), None)
        every = await mirror.watch(everything, None)
        assert told(every) == [("ADDED", "other"), ("ADDED", "p")]
        await settle()
        told(every)
        # with the cloud there, it tells
        await mirror.reported("web", "p", "u-p")
        assert told(every) == []
        away = {"u-p": b'{"phase":"Running"}'}
        mirror.live = away.get
        await mirror.reported("web", "p", "u-p")
        assert told(every) == [("MODIFIED", "p")]
        assert told(running) == [("ADDED", "p")]
        found, version = await mirror.select(everything)
        shown = {item.name: json.loads(item.value) for item in found}
        assert shown["p"]["status"] == {"phase": "Running"}
        assert int(shown["p"]["metadata"]["resourceVersion"]) > 5
        assert shown["other"]["status"] == {"phase": "Pending"}
        # who lists then watches misses nothing and hears nothing twice
        later = await mirror.watch(everything, version)
        assert told(later) == []
        # the cloud is back, and has heard of it
        mirror.live = lambda uid: None
        store.hold(
            "pod",
            there
            | {"metadata": there["metadata"] | {"resourceVersion": "9"}, "status": {"phase": "Running"}},
        )
        await settle()
        assert told(later) == [("MODIFIED", "p")]
        mirror.over("u-p")

    run(test)
