"""The second look at what a node holds and the caches do not give it, before it is taken back.

What a node says that it holds costs the hub a request for each thing that it does not know.  So one node's doubts are looked at
one after the other and no more than MAX_DOUBTS of them at a time, and all nodes share a few places in turn: a node that makes
up thousands keeps nobody waiting but itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

from beehive.errors import Unavailable
from beehive.message import Inventory
from cloudcore.cloudhub.nodes import Link, Nodes

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Half of the API client's threads."""
MAX_DOUBTS = 1000
"""Of one node in one comparison.  The rest is for the next one."""
MAX_HELD = 10_000
"""Objects in one inventory that are looked at.  A node of 500 pods holds a few thousand."""
RETRY_S = 5.0

TakeBack = Callable[[Link, str, str], Awaitable[bool]]
"""Look again at a thing (uid, path) and, if it is surely not that node's, tell the node.  Returns whether it was told.

Raises Unavailable: nobody can say now."""


@dataclass(frozen=True, slots=True)
class Differed:
    """One controller's part of a comparison.   keys: what was pushed.   doubts: uid → path of what needs a second look."""

    keys: set[str]
    doubts: dict[str, str] = field(default_factory=dict)
    take_back: TakeBack | None = None


class Looks:
    """Shared by all nodes."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._places = asyncio.Semaphore(AT_ONCE)

    async def settle(self, link: Link, found: Differed) -> set[str]:
        """Look at the doubts; the keys of what was taken back."""
        gone: set[str] = set()
        if found.take_back is None:
            return gone
        if len(found.doubts) > MAX_DOUBTS:
            log.warning(
                "Node %s holds %d objects that nobody knows here; %d are looked at now",
                link.node,
                len(found.doubts),
                MAX_DOUBTS,
            )
        for uid, path in islice(found.doubts.items(), MAX_DOUBTS):
            while self._nodes.get(link.node) is link:
                try:
                    async with self._places:
                        if await found.take_back(link, uid, path):
                            gone.add(uid)
                    break
                except Unavailable as error:
                    log.info("Cannot look again at %s of node %s: %s", path, link.node, error)
                await asyncio.sleep(RETRY_S)
        return gone


def bounded(node: str, inventory: Inventory) -> Inventory:
    """`inventory` with no more in it than is looked at."""
    if len(inventory.objects) <= MAX_HELD:
        return inventory
    log.warning("Node %s says that it holds %d objects; %d count", node, len(inventory.objects), MAX_HELD)
    return Inventory(objects=dict(islice(inventory.objects.items(), MAX_HELD)), session=inventory.session)
