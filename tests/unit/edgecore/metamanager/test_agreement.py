"""What the hub is told of what is held, and when the store is whole."""

from __future__ import annotations

import asyncio

import pytest

from beehive.message import Digest, Op, digest
from edgecore.edgehub.session import Session
from edgecore.metamanager import agreement
from edgecore.metamanager.manager import MetaManager
from tests.unit.edgecore.metamanager.scene import Line, Memory, on, push, settle


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "DAMAGE_S", 0.01)
    monkeypatch.setattr(agreement, "DIGEST_S", 0.02)


async def digests(line: Line, count: int) -> Digest:
    """The newest, when there are so many."""
    async with asyncio.timeout(30):
        while len(line.of(Op.DIGEST)) < count:
            await asyncio.sleep(0.01)
    return line.of(Op.DIGEST)[-1].decode(Digest)


def test_the_inventory_is_what_is_held_and_the_session_before() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        inventory = await meta.inventory()
        assert {uid: (entry.resource, entry.version) for uid, entry in inventory.objects.items()} == {
            "u1": ("d/configmap/a", "12")
        }

    on(scene)


def test_rows_lost_at_the_start_are_made_good_by_the_hubs_word() -> None:
    async def play() -> None:
        store, line = Memory(), Line()
        store.complete = False
        store.counters.damaged_rows = 2  # found and dropped when the file was opened: no inventory names them
        meta = MetaManager(store, "edge-1")  # type: ignore[arg-type]
        meta.bind(line)
        meta.connected(Session("hub:1", True, 7), "inventory")
        assert not meta._agreement.is_confirmed()
        meta.acked(("inventory",))
        assert meta._agreement.is_confirmed()
        store.counters.damaged_rows += 1  # found since: the inventory named it, so the hub did not send it
        assert not meta._agreement.is_confirmed()

    asyncio.run(play())


@pytest.mark.usefixtures("often")
def test_a_hub_of_ours_is_told_in_short_what_is_held_and_in_full_when_it_asks() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        assert await digests(line, 1) == digest({})
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        held = len(line.of(Op.DIGEST))
        assert await digests(line, held + 2) == digest({"u1": 12})
        meta.telling("again")
        store.complete = False
        meta.acked(["again"])
        async with asyncio.timeout(30):
            while not store.complete:
                await asyncio.sleep(0.01)

    on(scene)


@pytest.mark.usefixtures("often")
def test_what_is_damaged_is_said_not_to_be_here() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        store.damaged.add("d/configmap/a")
        held = len(line.of(Op.DIGEST))
        assert await digests(line, held + 2) == digest({})
        assert (await meta.inventory()).objects == {}

    on(scene)


@pytest.mark.usefixtures("often")
def test_a_stock_hub_is_told_nothing_of_the_kind() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await asyncio.sleep(0.1)
        assert line.of(Op.DIGEST) == []

    on(scene, ours=False)
