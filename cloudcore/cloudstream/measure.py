"""Reads what nodes use through their tunnels, while somebody wants to know it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from beehive import clock, tunnel
from beehive.errors import SkerryError, Unavailable
from cloudcore.cloudstream import usage
from cloudcore.cloudstream.tunnels import Tunnels

log = logging.getLogger(__name__)

INTERVAL_S = 15.0
KEEP_S = 300.0
"""So long after the last question nodes are read on; then their lines rest."""
FIRST_GAP_S = 2.0
"""Between the first two readings: who asks first waits for them."""
FIRST_WAIT_S = 8.0
NODE_S = 5.0
"""How long one node may take to answer."""
AT_ONCE = 32
MAX_PAGE = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Pair:
    before: usage.Scrape | None
    last: usage.Scrape


class Measurer:
    """The part that reads, and the answer to who asks.  Nothing is read while nobody asks."""

    name = "usage"

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._asked = asyncio.Event()
        self._ready = asyncio.Event()
        self._last_asked = 0.0
        self._pairs: dict[str, _Pair] = {}

    async def usage(self) -> Mapping[str, usage.NodeUsage]:
        """What each connected node used lately; the first question takes a few seconds.

        A node is not in it before it was read twice."""
        self._last_asked = clock.monotonic()
        self._asked.set()
        try:
            async with asyncio.timeout(FIRST_WAIT_S):
                await self._ready.wait()
        except TimeoutError:
            log.info("Nodes take long to tell what they use; answering with what is there")
        return {
            node: usage.between(pair.before, pair.last)
            for node, pair in self._pairs.items()
            if pair.before is not None
        }

    async def run(self) -> None:
        """Read in rounds while somebody asks.  Never returns."""
        while True:
            await self._asked.wait()
            await self._round()
            await asyncio.sleep(FIRST_GAP_S)
            await self._round()
            self._ready.set()
            while clock.monotonic() - self._last_asked < KEEP_S:
                await asyncio.sleep(INTERVAL_S)
                await self._round()
            self._asked.clear()
            self._ready.clear()
            self._pairs.clear()

    async def _round(self) -> None:
        nodes = self._tunnels.nodes()
        for gone in self._pairs.keys() - set(nodes):
            del self._pairs[gone]
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self._read(node, slots), name=f"usage of {node}")

    async def _read(self, node: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                async with asyncio.timeout(NODE_S):
                    page = await self._page(node)
            except (SkerryError, TimeoutError) as error:
                # what it used is not known now; an old number would say that it is
                self._pairs.pop(node, None)
                log.debug("Node %s does not tell what it uses: %s", node, error or "no answer in time")
                return
        last = usage.parse(page, clock.wall().timestamp())
        old = self._pairs.get(node)
        self._pairs[node] = _Pair(old.last if old is not None else None, last)

    async def _page(self, node: str) -> str:
        stream, answer = await self._tunnels.open(
            node, tunnel.Head(kind="http", method="GET", path="/metrics/resource")
        )
        page = bytearray()
        try:
            if answer.status != 200:
                raise Unavailable(f"the node answered with status {answer.status}")
            while data := await stream.read():
                page += data
                if len(page) > MAX_PAGE:
                    raise Unavailable(f"the node's page is longer than {MAX_PAGE} bytes")
        finally:
            if not stream.over:
                stream.reset("read")
        return page.decode("utf-8", "replace")
