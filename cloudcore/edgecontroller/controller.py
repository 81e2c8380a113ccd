"""Carries changes of the API's objects to the nodes that hold them, and makes a node that connects agree with the API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from beehive.delivery import Item
from beehive.errors import ProtocolError, Unavailable
from beehive.message import Digest, Inventory, InventoryEntry, digest
from beehive.resource import CLUSTER, Resource, parse
from beehive.session import CLOSE_RESTART, Difference
from cloudcore.cache import Cache
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.cloudhub.sessions import session_of
from cloudcore.edgecontroller.downstream import Placement, Push, tombstone
from cloudcore.edgecontroller.references import Ref
from cloudcore.errors import ApiError, ApiNotFound
from cloudcore.kube import Kube
from cloudcore.objects import (
    CONFIGMAP,
    DEVICE,
    NODE,
    POD,
    SECRET,
    SERVICE,
    SERVICEACCOUNT,
    Change,
    Kind,
    Object,
    number,
)
from cloudcore.secondlook import Differed, Looks, bounded

log = logging.getLogger(__name__)

SWEEP_S = 30.0
"""What no pod of a node refers to any more is taken back after one to two of these."""
DIFFER_AT_ONCE = 32
SERVICES_S = 5.0
"""How long nodes wait at the start for the list of Services: cloudcore may not be allowed to read it, and pods run without."""
WHOLE_EVERY = 20
"""After so many digests that agreed, a node is asked for everything: what only other controllers can miss shows then."""

Differ = Callable[[Link, Inventory], Awaitable[Differed]]
"""Another controller's part of a difference."""

_HELD: dict[str, Kind] = {
    "node": NODE,
    "pod": POD,
    "configmap": CONFIGMAP,
    "secret": SECRET,
    "service": SERVICE,
}


@dataclass(frozen=True, slots=True)
class _Job:
    link: Link
    inventory: Inventory | None
    """None: a stock edge, which cannot say."""
    message_id: str


class Caches:
    """The kinds that the edge controller follows, and what else looks at them."""

    def __init__(self, kube: Kube) -> None:
        self.nodes = Cache(kube, NODE)
        self.pods = Cache(kube, POD, query={"fieldSelector": "spec.nodeName!="})
        self.configmaps = Cache(kube, CONFIGMAP)
        self.secrets = Cache(kube, SECRET)
        self.accounts = Cache(kube, SERVICEACCOUNT)
        self.devices = Cache(kube, DEVICE)
        self.services = Cache(kube, SERVICE)

    @property
    def core(self) -> list[Cache]:
        """What must be known before a node is told anything."""
        return [self.nodes, self.configmaps, self.secrets, self.accounts, self.pods]

    def by_wire(self) -> dict[str, Cache]:
        return {"configmap": self.configmaps, "secret": self.secrets, "node": self.nodes}

    def unclear(self, node: str) -> bool:
        """Whether `node` may have pods, or pods accounts, that cannot be read."""
        return any(pod.node in (node, None) for pod in self.pods.unread) or bool(self.accounts.unread)

    @property
    def unread(self) -> int:
        """How many objects are there and cannot be read."""
        return sum(len(cache.unread) for cache in [*self.core, self.services, self.devices])

    def lookup(self, ref: Ref) -> Object | None:
        kind, namespace, name = ref
        match kind:
            case "configmap":
                return self.configmaps.get(namespace, name)
            case "secret":
                return self.secrets.get(namespace, name)
        return None


class EdgeController:
    """`run` is a supervised part."""

    name = "edgecontroller"

    def __init__(self, kube: Kube, caches: Caches, nodes: Nodes) -> None:
        self.placement = Placement(caches.lookup, caches.unclear)
        self.differs: list[Differ] = []
        self.claims: list[Callable[[str], set[str]]] = [self.placement.claims]
        """Each controller's uids that a node may hold."""
        self.drifts = 0
        """Comparisons that were made since what a node held was not what it should."""
        self.recorded: Callable[[str], Awaitable[Inventory]] | None = None
        """What a stock edge acknowledged before, by its node's name."""
        self._kube = kube
        self._caches = caches
        self._nodes = nodes
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()  # at most one a connection
        self._width = asyncio.Semaphore(DIFFER_AT_ONCE)
        self._looks = Looks(nodes)
        caches.nodes.subscribe(self._on_node)
        caches.pods.subscribe(lambda change: self._push(self.placement.pod_changed(change)))
        caches.configmaps.subscribe(lambda change: self._push(self.placement.config_changed(change)))
        caches.secrets.subscribe(lambda change: self._push(self.placement.config_changed(change)))
        caches.accounts.subscribe(lambda change: self._push(self.placement.account_changed(change)))
        caches.services.subscribe(lambda change: self._push(self.placement.service_changed(change)))
        nodes.on_open.append(self._on_open)

    @property
    def unread(self) -> int:
        """Objects that are there and cannot be read."""
        return self._caches.unread

    @property
    def went_back(self) -> int:
        """How often the API was found at an older state."""
        return max(cache.went_back for cache in self._caches.core)

    # -- events ----------------------------------------------------------------------------------------------------

    def _push(self, pushes: list[Push]) -> None:
        for push in pushes:
            link = self._nodes.get(push.node)
            if link is not None and link.ready and _takes(link, push):
                link.offer(push.delivery())

    def _on_node(self, change: Change) -> None:
        self._push(self.placement.node_changed(change))
        if change.new is not None:
            self._nodes.seen_number(change.new.name, session_of(change.new))

    def _on_open(self, link: Link) -> None:
        link.on_deleted = lambda item: self._on_deleted(link, item)
        if not link.ours:
            # a stock edge cannot say what it holds: where that is not written down it is told everything, and drops
            # what it has
            self._jobs.put_nowait(_Job(link, None, ""))

    def tell_all(self, link: Link) -> None:
        """A stock edge has started: perhaps with an empty store, so what it acknowledged before says nothing.

        KubeEdge's cloud sends nothing again then, and such an edge stays empty."""
        if not link.ours and link.ready:
            link.forget()
            self._jobs.put_nowait(_Job(link, Inventory(objects={}), ""))

    def on_digest(self, link: Link, said: Digest) -> None:
        """The edge said in short what it holds: if that is not what it acknowledged, or not what it should hold, compare."""
        if not link.settled:
            return  # something is on its way; the next one tells
        held = Inventory(
            objects={uid: InventoryEntry("", str(version)) for uid, version in link.held.items()}
        )
        pushes, _, ahead = self.placement.difference(link.node, held)
        doubtful = self._unclaimed(link) | frozenset(ahead)
        link.digests += 1
        if said != digest(link.held) or not doubtful <= link.tolerated:
            link.disagreed += 1
            # what one comparison does not mend is not worth one each time: after 1, 2, 4, 8 … digests
            if link.disagreed & (link.disagreed - 1) == 0 and link.ask_inventory():
                self.drifts += 1
                log.info("Node %s does not hold what it should; comparing in full", link.node)
            return
        link.disagreed = 0
        for push in pushes:
            # what was offered before is not news
            link.offer(push.delivery())
        if link.digests % WHOLE_EVERY == 0:
            link.ask_inventory()

    def _unclaimed(self, link: Link) -> frozenset[str]:
        return frozenset(link.held.keys() - set().union(*(claims(link.node) for claims in self.claims)))

    def on_difference(self, link: Link, difference: Difference, message_id: str) -> None:
        """The edge said what it holds."""
        inventory = bounded(link.node, difference.inventory)
        link.held = {uid: number(entry.version) for uid, entry in inventory.objects.items()}
        self._jobs.put_nowait(_Job(link, inventory, message_id))

    def _on_deleted(self, link: Link, item: Item) -> None:
        """What was taken back may be wanted again by now; until the delete was committed it could not be offered."""
        for wanted in self.placement.wanted(link.node):
            if wanted.uid == item.key:
                link.offer(Push(link.node, wanted, first=True).delivery())

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        for cache in self._caches.core:
            await cache.wait_synced()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVICES_S):
                await self._caches.services.wait_synced()
        log.info("Knows %d nodes and %d pods", len(self._caches.nodes), len(self._caches.pods))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep(), name="sweep")
            while True:
                job = await self._jobs.get()
                group.create_task(self._differ_for(job), name=f"difference {job.link.node}")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._push(self.placement.sweep())

    async def _differ_for(self, job: _Job) -> None:
        """One node's difference; a fault in it ends that node's connection, which comes back, and nobody else's."""
        try:
            async with self._width:
                found = await self._differ(job)
            # what takes requests holds up nobody else's comparison
            await self._settle(job, found)
        except Exception as error:  # the boundary of one node's work (P9)
            log.error("Cannot compare what node %s holds: %s", job.link.node, error, exc_info=error)
            job.link.close(CLOSE_RESTART, "cannot compare what the node holds; see the hub's log")

    async def _differ(self, job: _Job) -> list[Differed]:
        link = job.link
        inventory = job.inventory
        if inventory is None:
            inventory = await self.recorded(link.node) if self.recorded else Inventory(objects={})
            link.held = {uid: number(entry.version) for uid, entry in inventory.objects.items()}
        pushes, known, extra = self.placement.difference(link.node, inventory)
        for item in known:
            link.delivery.know(item.uid, item.number)
        pushes = [push for push in pushes if _takes(link, push)]
        for push in pushes:
            link.delivery.lost(push.item.uid, link.held_version(push.item.uid))
        keys = {push.item.uid for push in pushes if link.offer(push.delivery())}
        link.ready = True
        found = [Differed(keys, extra, self._take_back)]
        for differ in self.differs:
            found.append(await differ(link, inventory))
        log.info(
            "Node %s holds %d objects; %d to send, %d to look at again",
            link.node,
            len(inventory.objects),
            sum(len(part.keys) for part in found),
            sum(len(part.doubts) for part in found),
        )
        return found

    async def _settle(self, job: _Job, found: list[Differed]) -> None:
        link = job.link
        keys: set[str] = set()
        for part in found:
            keys |= part.keys | await self._looks.settle(link, part)
        # what this comparison left where it is, the next need not be made for
        link.tolerated = self._unclaimed(link) | {uid for part in found for uid in part.doubts}
        if job.message_id:
            link.await_committed(keys, job.message_id)
        if not link.ours:
            link.held = {}

    async def _take_back(self, link: Link, uid: str, path: str) -> bool:
        push = await self._second_look(link, uid, path)
        return push is not None and link.offer(push.delivery())

    async def _second_look(self, link: Link, uid: str, path: str) -> Push | None:
        """A delete for what is surely not that node's, and the older state of what the API went back with.

        Raises Unavailable."""
        found = await self._look(link, uid, path)
        if found is None:
            return None
        if found.uid == uid and found.version:
            return Push(link.node, found, back=True)
        return Push(link.node, found, deleted=True)

    async def _look(self, link: Link, uid: str, path: str) -> Object | None:
        try:
            target = parse(path)
        except ProtocolError:
            return None
        kind = _HELD[target.type]
        namespace = "" if target.namespace == CLUSTER else target.namespace
        try:
            found = await self._kube.get(kind, target.name, namespace)
        except ApiNotFound:
            return tombstone(kind, namespace, target.name, uid)
        except Unavailable:
            raise
        except (ApiError, ProtocolError) as error:
            log.warning("Cannot look again at %s of node %s: %s", path, link.node, error)
            return None
        if found.uid != uid:
            return tombstone(kind, namespace, target.name, uid)
        if kind is NODE or (kind is POD and found.node == link.node) or self._refers(link, target):
            # the cache is behind, unless the API itself is
            return found if found.number < link.held_version(uid) else None
        if kind is not POD and self.placement.holds_back(link.node):
            return None
        return tombstone(kind, namespace, target.name, uid)

    def _refers(self, link: Link, target: Resource) -> bool:
        namespace = "" if target.namespace == CLUSTER else target.namespace
        return self.placement.refers(link.node, target.type, namespace, target.name)


def _takes(link: Link, push: Push) -> bool:
    """A stock edge makes no variables of Services."""
    return link.ours or push.item.kind is not SERVICE


class View:
    """What the authorizer asks, answered from the caches."""

    def __init__(self, placement: Placement, caches: Caches) -> None:
        self._placement = placement
        self._caches = caches
        self.pod = placement.pod
        self.refers = placement.refers

    def node_object(self, node: str) -> bytes | None:
        found = self._caches.nodes.get("", node)
        return found.raw if found else None

    def device_node(self, namespace: str, name: str) -> str | None:
        found = self._caches.devices.get(namespace, name)
        return found.node if found else None
