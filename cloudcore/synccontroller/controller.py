"""Keeps ObjectSync and ClusterObjectSync for stock edges, and says from them what such an edge holds when it connects.

A write is made after the acknowledgement, newest first per object, few at a time; until it is made it counts as made.  So an
edge that comes back at once is judged by what it acknowledged last.  A write that is lost costs one frame sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from beehive.delivery import Item
from beehive.errors import ProtocolError, Unavailable
from beehive.message import Inventory
from cloudcore.cache import Cache
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.errors import ApiError, ApiExists, ApiNotFound
from cloudcore.kube import Kube
from cloudcore.objects import Change
from cloudcore.synccontroller import plan
from cloudcore.synccontroller.plan import CLUSTEROBJECTSYNC, OBJECTSYNC, Record

log = logging.getLogger(__name__)

WRITERS = 4
WAIT_S = 5.0
"""How long the records are waited for; where their kinds are not installed, a stock edge is told everything."""
RETRY_S = 2.0
TRIES = 5
"""For one write, as KubeEdge does."""

Key = tuple[str, str]


class SyncController:
    """`run` is a supervised part, and so are `caches`.   node_cache: to know which nodes are no more."""

    name = "synccontroller"

    def __init__(self, kube: Kube, nodes: Nodes, node_cache: Cache) -> None:
        self._kube = kube
        self._node_cache = node_cache
        self._records: dict[str, dict[str, Record]] = {}  # node → uid → what the API says
        self._pending: dict[Key, Record | None] = {}  # what it will say; None: nothing
        self._queue: asyncio.Queue[Key] = asyncio.Queue()  # at most one entry per key of `_pending`
        self.caches = [Cache(kube, OBJECTSYNC), Cache(kube, CLUSTEROBJECTSYNC)]
        for cache in self.caches:
            cache.subscribe(self._on_sync)
        node_cache.subscribe(self._on_node)
        nodes.on_open.append(self._on_open)

    # -- what is held ----------------------------------------------------------------------------------------------

    async def inventory(self, node: str) -> Inventory:
        """What `node` is known to hold."""
        try:
            async with asyncio.timeout(WAIT_S):
                for cache in self.caches:
                    await cache.wait_synced()
        except TimeoutError:
            log.info("Node %s is told everything: what it acknowledged before is not known", node)
            return Inventory(objects={})
        return plan.inventory(self._held(node).values())

    def _held(self, node: str) -> dict[str, Record]:
        held = dict(self._records.get(node, {}))
        for (pending_node, uid), record in self._pending.items():
            if pending_node != node:
                continue
            if record is None:
                held.pop(uid, None)
            else:
                held[uid] = record
        return held

    # -- events ----------------------------------------------------------------------------------------------------

    def _on_open(self, link: Link) -> None:
        if not link.ours:
            link.on_acked = lambda item: self._acknowledged(link.node, item)

    def _acknowledged(self, node: str, item: Item) -> None:
        record = plan.acknowledged(node, item)
        if record is None:
            return
        held = self._pending.get(record.key, self._records.get(node, {}).get(record.uid))
        if item.delete:
            if held is not None or record.key in self._pending:
                self._write(record.key, None)
        elif item.back or plan.newer(held, record):
            self._write(record.key, record)

    def _write(self, key: Key, record: Record | None) -> None:
        waiting = key in self._pending
        self._pending[key] = record
        if not waiting:
            self._queue.put_nowait(key)

    def _on_sync(self, change: Change) -> None:
        try:
            record = plan.read(change.newest)
        except ProtocolError as error:
            log.warning("Cannot use %s %s: %s", change.newest.kind.kind, change.newest.name, error)
            return
        if record is None:
            return
        held = self._records.setdefault(record.node, {})
        if change.new is None:
            held.pop(record.uid, None)
            if not held:
                del self._records[record.node]
            return
        held[record.uid] = record
        if self._node_cache.is_gone("", record.node):
            self._write(record.key, None)

    def _on_node(self, change: Change) -> None:
        if change.new is None:
            for uid in self._held(change.newest.name):
                self._write((change.newest.name, uid), None)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._node_cache.wait_synced()
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._writer(), name=f"sync writer {number}")
            for cache in self.caches:
                await cache.wait_synced()
            held = [record for records in self._records.values() for record in records.values()]
            gone = [record for record in held if self._node_cache.is_gone("", record.node)]
            for record in gone:
                self._write(record.key, None)
            if gone:
                log.info("%d sync records are of nodes that are no more", len(gone))

    async def _writer(self) -> None:
        while True:
            key = await self._queue.get()
            await self._write_one(key)

    async def _write_one(self, key: Key) -> None:
        for _ in range(TRIES):
            record = self._pending[key]
            held = self._records.get(key[0], {}).get(key[1])
            try:
                if record is None:
                    await self._drop(held)
                else:
                    await self._keep(record, known=held is not None)
            except Unavailable as error:
                log.debug("Cannot write what node %s holds: %s", key[0], error)
                await asyncio.sleep(RETRY_S)
                continue
            except ApiError as error:
                log.warning("Cannot write what node %s holds: %s", key[0], error)
                break
            self._settle(key, record)
            if self._pending.get(key) is record:
                break
            # something newer came meanwhile
        del self._pending[key]

    def _settle(self, key: Key, record: Record | None) -> None:
        """Do not wait for the watch to say what was written."""
        if record is not None:
            self._records.setdefault(key[0], {})[key[1]] = record
        elif key[0] in self._records:
            self._records[key[0]].pop(key[1], None)
            if not self._records[key[0]]:
                del self._records[key[0]]

    async def _keep(self, record: Record, *, known: bool) -> None:
        if not known:
            # one that exists is another hub's, or the cache has not shown it yet
            with contextlib.suppress(ApiExists):
                await self._kube.create(record.sync_kind, record.body(), record.namespace)
        try:
            await self._kube.patch(
                record.sync_kind, record.sync_name, record.status(), record.namespace, subresource="status"
            )
        except ApiNotFound:
            if known:  # somebody deleted it: it is made anew
                await self._keep(record, known=False)
                return
            raise

    async def _drop(self, held: Record | None) -> None:
        if held is None:
            return
        try:
            await self._kube.delete(held.sync_kind, held.sync_name, held.namespace)
        except ApiNotFound:
            return
