"""Tells edges which hardware is wanted, and keeps DeviceCandidates and their Devices as edges see it.

Down: every HardwareRule goes to every edge of ours, as an object of its own, so that an edge knows them also without a link.
Up: an edge says all that it sees at each connect and when it changes.  What follows is worked out from the whole each time
(`candidates.plan`) and written; what fails is worked out again a little later."""

from __future__ import annotations

import asyncio
import json
import logging
import random

import msgspec

from beehive.apis import hardware
from beehive.apis.decode import ObjectError, decode
from beehive.apis.devices import decode_model
from beehive.apis.hardware import Report, Rule, Seen
from beehive.backoff import Backoff
from beehive.delivery import Item
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import Inventory, InventoryEntry, Message
from beehive.resource import parse
from cloudcore.cache import Cache
from cloudcore.cloudhub.dispatch import FINISHED, Outcome
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.devicecontroller import candidates
from cloudcore.devicecontroller.candidates import Action, Candidate, Create, Patch, TakeBack
from cloudcore.devicecontroller.placement import Push
from cloudcore.edgecontroller.downstream import tombstone
from cloudcore.errors import ApiExists, ApiNotFound, ApiRefused
from cloudcore.kube import Kube
from cloudcore.objects import DEVICE, DEVICECANDIDATE, HARDWARERULE, Change, number
from cloudcore.secondlook import Differed

log = logging.getLogger(__name__)

SETTLE_S = 0.1
"""A change in the API comes as several events: they are looked at together."""


class HardwareController:
    """`run` is a supervised part; `handle` takes an edge's report; `differ` is told of each edge that connects."""

    name = "hardwarecontroller"

    def __init__(self, kube: Kube, nodes: Nodes, devices: Cache, models: Cache) -> None:
        self.rules = Cache(kube, HARDWARERULE)
        self.candidates = Cache(kube, DEVICECANDIDATE)
        self._kube = kube
        self._nodes = nodes
        self._devices = devices
        self._models = models
        self._seen: dict[str, list[Seen]] = {}
        self._covers: dict[
            str, frozenset[str]
        ] = {}  # by node: of which sources it knows; none stands for all
        self._links: dict[str, tuple[Link, Inventory]] = {}  # by node: its newest connection
        self._told: dict[str, set[str]] = {}  # uid of a rule -> what is wrong with it
        self._dirty = asyncio.Event()
        self.rules.subscribe(self._on_rule)
        for cache in (self.candidates, devices, models):
            cache.subscribe(lambda _: self._dirty.set())

    @property
    def caches(self) -> list[Cache]:
        """To be run beside this."""
        return [self.rules, self.candidates]

    async def run(self) -> None:
        for cache in (self.rules, self.candidates, self._devices, self._models):
            await cache.wait_synced()
        for link, inventory in list(self._links.values()):
            self._difference(link, inventory)
        backoff, rng = Backoff(base_s=1.0, cap_s=30.0), random.Random()
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE_S)
            self._dirty.clear()
            try:
                for action in self._plan():
                    await self._perform(action)
                backoff.reset()
            except SkerryError as error:
                log.warning("Cannot write about found hardware, trying again: %s", error)
                await asyncio.sleep(backoff.next_s(rng))
                self._dirty.set()

    # -- down ------------------------------------------------------------------------------------------------------

    def _on_rule(self, change: Change) -> None:
        self._dirty.set()
        if not self.rules.synced:
            return  # they are part of each edge's difference
        item = change.newest
        for link, _ in list(self._links.values()):
            if self._nodes.get(link.node) is link:
                push = Push(
                    link.node, item, deleted=change.new is None, first=change.old is None, back=change.back
                )
                link.offer(push.delivery())

    async def differ(self, link: Link, inventory: Inventory) -> Differed:
        """Bring an edge's rules up to date.  A stock edge has no use for them."""
        if not link.ours:
            return Differed(set())
        self._links[link.node] = (link, Inventory(objects=_rules_of(inventory)))
        for node in [node for node, (old, _) in self._links.items() if self._nodes.get(node) is not old]:
            if node != link.node:
                del self._links[node]
        if not self.rules.synced:
            return Differed(set())
        held = _rules_of(inventory)
        ahead = {
            item.uid: item.path
            for item in self.rules
            if item.uid in held and number(held[item.uid].version) > item.number
        }
        return Differed(self._difference(link, inventory), ahead, self._go_back)

    def claims(self, node: str) -> set[str]:
        """The uids of what `node` may hold."""
        return {item.uid for item in self.rules}

    async def _go_back(self, link: Link, uid: str, path: str) -> bool:
        """A node holds a newer version than is known here: push what the API went back to, if it did."""
        where = parse(path)
        try:
            found = await self._kube.get(HARDWARERULE, where.name, where.namespace)
        except Unavailable:
            raise
        except SkerryError as error:
            log.info("Cannot look again at %s of node %s: %s", path, link.node, error)
            return False
        if found.uid != uid or found.number >= link.held_version(uid):
            return False
        return link.offer(Push(link.node, found, back=True).delivery())

    def _difference(self, link: Link, inventory: Inventory) -> set[str]:
        keys = set()
        extra = _rules_of(inventory)
        for item in self.rules:
            held = extra.pop(item.uid, None)
            if held is not None and number(held.version) >= item.number:
                link.delivery.know(item.uid, item.number)
                continue
            link.delivery.lost(item.uid, link.held_version(item.uid))
            if link.offer(Push(link.node, item, first=held is None).delivery()):
                keys.add(item.uid)
        for uid, entry in extra.items():
            where = parse(entry.resource)
            if not self.rules.is_gone(where.namespace, where.name):
                continue  # replaced by another of its name, which takes its place, or one that cannot be read
            gone = tombstone(HARDWARERULE, where.namespace, where.name, uid)
            delivery: Item = Push(link.node, gone, deleted=True).delivery()
            if link.offer(delivery):
                keys.add(uid)
        return keys

    # -- up ----------------------------------------------------------------------------------------------------------

    async def handle(self, link: Link, message: Message) -> Outcome:
        """An edge's report.  Raises ProtocolError."""
        report = decode(message.text(), Report)
        self._seen[link.node] = report.seen
        self._covers[link.node] = frozenset(report.covers)
        self._dirty.set()
        return FINISHED

    def _plan(self) -> list[Action]:
        found = {
            candidate.key: candidate
            for item in self.candidates
            if (candidate := candidates.read(item)) is not None
        }
        return candidates.plan(
            found,
            self._seen,
            self._rules(),
            lambda key: self._devices.get(*key),
            self._properties,
            self._covered,
        )

    def _covered(self, candidate: Candidate) -> bool:
        covers = self._covers.get(candidate.node)
        return not covers or hardware.source(candidate.seen) in covers

    def _rules(self) -> dict[tuple[str, str], Rule]:
        rules: dict[tuple[str, str], Rule] = {}
        for item in self.rules:
            parsed, faults = hardware.parse_each([json.loads(item.raw)])
            for rule in parsed:
                rules[rule.namespace, rule.name] = rule
            if set(faults) != self._told.get(item.uid, set()):
                self._told[item.uid] = set(faults)
                for fault in faults:
                    log.warning("HardwareRule %s/%s is not used: %s", item.namespace, item.name, fault)
        return rules

    def _properties(self, key: tuple[str, str]) -> list[str]:
        item = self._models.get(*key)
        if item is None:
            return []
        try:
            return [row.name for row in decode_model(item.raw).spec.properties]
        except ObjectError:
            return []

    async def _perform(self, action: Action) -> None:
        """Raises SkerryError when the API is away; what it refuses is said and left."""
        try:
            match action:
                case Create(kind, namespace, body):
                    await self._kube.create(kind, msgspec.json.encode(body), namespace)
                    log.info("Made %s %s/%s", kind.kind, namespace, body["metadata"]["name"])
                case Patch(kind, key, body, subresource):
                    await self._kube.patch(
                        kind, key[1], msgspec.json.encode(body), key[0], subresource=subresource
                    )
                case TakeBack(key, device):
                    await self._take_back(key, device)
        except ApiExists:
            log.debug("= it is there already: %s", action)
        except ApiNotFound as error:
            log.info("It is gone meanwhile: %s", error)
        except (ApiRefused, ProtocolError) as error:
            log.warning("Cannot write about found hardware: %s", error)

    async def _take_back(self, key: tuple[str, str], device: str) -> None:
        """A cache may lag behind: a Device is gone when the API says so."""
        try:
            await self._kube.get(DEVICE, device, key[0])
        except ApiNotFound:
            log.info("Device %s/%s was deleted: its hardware is not accepted any more", key[0], device)
            body = msgspec.json.encode({"spec": {"accepted": False}})
            await self._kube.patch(DEVICECANDIDATE, key[1], body, key[0])


def _rules_of(inventory: Inventory) -> dict[str, InventoryEntry]:
    """What an edge holds of rules, by uid."""
    found = {}
    for uid, entry in inventory.objects.items():
        parts = entry.resource.split("/")
        if len(parts) == 3 and parts[1] == HARDWARERULE.wire:
            found[uid] = entry
    return found
