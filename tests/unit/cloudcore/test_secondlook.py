"""Who says that he holds much keeps nobody waiting but himself: cloudcore.secondlook."""

from __future__ import annotations

import asyncio

import pytest

from beehive.errors import Unavailable
from beehive.message import Inventory, InventoryEntry
from beehive.session import HubSession
from cloudcore import secondlook
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.secondlook import MAX_DOUBTS, MAX_HELD, Differed, Looks, bounded


def linked(nodes: Nodes, name: str) -> Link:
    session = HubSession(node=name, ours=True, number=1, opened_at=0.0)
    session.opened(0.0)
    link = Link(session)
    nodes.open(link)
    return link


def made_up(count: int) -> dict[str, str]:
    return {f"u-{number}": f"ns/pod/p-{number}" for number in range(count)}


def test_a_node_of_three_doubts_is_done_while_twenty_have_thousands() -> None:
    async def main() -> None:
        nodes = Nodes()
        looks = Looks(nodes)
        order: list[str] = []

        async def take_back(link: Link, uid: str, path: str) -> bool:
            order.append(link.node)
            await asyncio.sleep(0)
            return True

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                link = linked(nodes, f"loud-{number}")
                group.create_task(looks.settle(link, Differed(set(), made_up(5000), take_back)))
            for _ in range(5):
                await asyncio.sleep(0)
            quiet = group.create_task(
                looks.settle(linked(nodes, "quiet"), Differed(set(), made_up(3), take_back))
            )
            assert await quiet == {"u-0", "u-1", "u-2"}
            # three turns of everybody, and what was on its way
            assert len(order) < 4 * 21
        assert order.count("loud-0") == MAX_DOUBTS

    asyncio.run(main())


def test_an_api_that_is_away_is_waited_for_as_long_as_the_link_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secondlook, "RETRY_S", 0.0)

    async def main() -> None:
        nodes = Nodes()
        looks = Looks(nodes)
        link = linked(nodes, "a")
        tries = 0

        async def take_back(link: Link, uid: str, path: str) -> bool:
            nonlocal tries
            tries += 1
            if tries == 3:
                return True
            if tries == 5:
                nodes.closed(link)
            raise Unavailable("away")

        assert await looks.settle(link, Differed(set(), made_up(9), take_back)) == {"u-0"}
        assert tries == 5

    asyncio.run(main())


def test_an_inventory_is_cut_where_no_node_ever_is() -> None:
    much = Inventory(
        objects={f"u-{n}": InventoryEntry("ns/pod/p", "1") for n in range(MAX_HELD + 7)}, session=3
    )
    assert (len(bounded("a", much).objects), bounded("a", much).session) == (MAX_HELD, 3)
    little = Inventory(objects={})
    assert bounded("a", little) is little
