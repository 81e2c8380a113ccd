"""A fault in what is done for one node stays with that node: cloudcore.edgecontroller.controller."""

from __future__ import annotations

import asyncio
from typing import Any

from beehive.message import Inventory
from beehive.session import CLOSE_RESTART, HubSession
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.edgecontroller.controller import Caches, EdgeController, _Job
from cloudcore.secondlook import Differed


def test_a_fault_in_one_nodes_difference_ends_only_its_connection() -> None:
    async def main() -> None:
        api: Any = None
        controller = EdgeController(api, Caches(api), Nodes())

        async def broken(link: Link, inventory: Inventory) -> Differed:
            if link.node == "a":
                raise RuntimeError("a fault nobody thought of")
            return Differed(set())

        controller.differs.append(broken)
        links = {}
        for name in ("a", "b"):
            session = HubSession(node=name, ours=True, number=1, opened_at=0.0)
            session.opened(0.0)
            links[name] = Link(session)
            await controller._differ_for(_Job(links[name], Inventory(objects={}), ""))
        assert links["a"].closing is not None
        assert links["a"].closing.code == CLOSE_RESTART
        assert links["b"].closing is None

    asyncio.run(main())
