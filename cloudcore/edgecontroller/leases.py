"""Keeps the Lease of every connected node of ours fresh, so that the edge need not send one.

A Lease says that the node is alive.  The link says the same, and better: it is pinged.  So the hub renews the Lease while
the link lives, and stops when the link falls silent.  A stock edge renews its own."""

from __future__ import annotations

import asyncio
import logging
import zlib

import msgspec

from beehive import clock
from beehive.errors import SkerryError, Unavailable
from beehive.session import State
from cloudcore.cloudhub.nodes import Link, Nodes, now
from cloudcore.edgecontroller.downstream import Placement
from cloudcore.errors import ApiExists, ApiNotFound
from cloudcore.kube import Kube
from cloudcore.objects import LEASE, Object

log = logging.getLogger(__name__)

NAMESPACE = "kube-node-lease"
RENEW_S = 10
DURATION_S = 40
AT_ONCE = 8


class Leases:
    """`run` is a supervised part."""

    name = "leases"

    def __init__(self, kube: Kube, nodes: Nodes, placement: Placement) -> None:
        self._kube = kube
        self._nodes = nodes
        self._placement = placement
        self._width = asyncio.Semaphore(AT_ONCE)
        self._due: dict[str, float] = {}
        self._failing = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for link in self._dueing():
                    group.create_task(self._renew(link), name=f"lease {link.node}")
                await asyncio.sleep(1.0)

    def _dueing(self) -> list[Link]:
        current = now()
        due: list[Link] = []
        connected: set[str] = set()
        for link in self._nodes:
            if not link.ours or link.session.state is State.CLOSED:
                continue
            connected.add(link.node)
            if self._placement.node(link.node) is None or current < self._due.get(link.node, 0.0):
                continue
            # the first at once, then spread over the period by name, so that a fleet does not come in step
            phase = zlib.crc32(link.node.encode()) % 1000 / 1000
            first = link.node not in self._due
            self._due[link.node] = current + RENEW_S - (phase * 2 if first else 0)
            due.append(link)
        for node in set(self._due) - connected:
            del self._due[node]
        return due

    async def _renew(self, link: Link) -> None:
        spec = {
            "holderIdentity": link.node,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": clock.rfc3339_micro(),
        }
        try:
            async with self._width:
                try:
                    await self._kube.patch(LEASE, link.node, msgspec.json.encode({"spec": spec}), NAMESPACE)
                except ApiNotFound:
                    await self._create(link, spec)
        except SkerryError as error:
            if not self._failing:
                log.warning("Cannot renew the lease of node %s: %s", link.node, error)
            self._failing = True
            # soon again: five missed renewals make a node NotReady
            self._due[link.node] = now() + (2.0 if isinstance(error, Unavailable) else RENEW_S)
        else:
            if self._failing:
                log.info("Leases are renewed again")
            self._failing = False

    async def _create(self, link: Link, spec: dict[str, object]) -> None:
        node: Object | None = self._placement.node(link.node)
        if node is None:
            return  # not registered yet, or deleted
        owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
        body = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": link.node, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "spec": spec,
        }
        try:
            await self._kube.create(LEASE, msgspec.json.encode(body), NAMESPACE)
        except ApiExists:
            return  # another hub, or the one before this one, did
