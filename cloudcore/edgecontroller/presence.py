"""Says on each Node whether its link is up: conditions CloudConnected and Autonomous.

While there is a link the node itself reports them, with the time since when.  What it cannot report is that the link is gone:
that is said here, by the hub that had it, and, when that hub is gone as well, by any hub once the node counts as silent.  A
node that came back just then may have been the first of the two to write; so whoever holds a link that the API calls lost says
that it is there.  They are for people and their alerts; no controller of ours acts upon them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from beehive import clock
from beehive.errors import SkerryError
from beehive.session import State
from cloudcore.cache import Cache
from cloudcore.cloudhub.nodes import Nodes, now
from cloudcore.cloudhub.sessions import session_of
from cloudcore.edgecontroller.downstream import is_edge
from cloudcore.kube import STRATEGIC, Kube
from cloudcore.objects import NODE, Object

log = logging.getLogger(__name__)

LOOK_S = 2.0
AWAY_S = 10.0
"""A link that is back within this was not worth a word: hubs restart, addresses change."""
SILENT_EVERY = 15
"""Every so many looks all nodes are looked through for those whose hub is gone."""
CONNECTED, AUTONOMOUS = "CloudConnected", "Autonomous"


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    conditions: list[_Condition] | None = None


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    status: _Status = _Status()


def away(at: str, since: str) -> list[dict[str, Any]]:
    """The conditions of a node without a link.   at: now; since: when it was lost, both as Kubernetes writes times."""
    text = f"no link since {since}"
    common = {"reason": "LinkLost", "lastHeartbeatTime": at, "lastTransitionTime": since}
    return [
        {"type": CONNECTED, "status": "False", "message": text, **common},
        {
            "type": AUTONOMOUS,
            "status": "True",
            "message": f"{text}: the node goes on by what it stored",
            **common,
        },
    ]


def back(at: str) -> list[dict[str, Any]]:
    """The conditions of a node whose link is there after all, until it says so itself.   at: now."""
    text = f"linked since {at} at the latest"
    common = {"reason": "LinkUp", "lastHeartbeatTime": at, "lastTransitionTime": at}
    return [
        {"type": CONNECTED, "status": "True", "message": text, **common},
        {"type": AUTONOMOUS, "status": "False", "message": "the cloud says what runs here", **common},
    ]


def says(node: Object, kind: str) -> str:
    """The status of a condition, or an empty text.  Raises ProtocolError."""
    conditions = node.decode(_Node).status.conditions or ()
    return next((one.status for one in conditions if one.type == kind), "")


class Presence:
    """`run` is a supervised part."""

    name = "presence"

    def __init__(self, kube: Kube, nodes: Nodes, cache: Cache) -> None:
        self._kube = kube
        self._nodes = nodes
        self._cache = cache
        self._mine: dict[str, int] = {}
        self._lost: dict[str, tuple[float, str]] = {}
        self._doubted: set[str] = set()
        """Linked nodes that the API called away at the last look: their own word may be on its way."""

    async def run(self) -> None:
        """Never returns."""
        await self._cache.wait_synced()
        looks = 0
        while True:
            await asyncio.sleep(LOOK_S)
            looks += 1
            try:
                await self.look(silent=looks % SILENT_EVERY == 0)
            except SkerryError as error:
                log.debug("! cannot say which nodes are away: %s", error)

    async def look(self, *, silent: bool) -> None:
        """Compare links with what was.   silent: look at the nodes of other hubs, too.  Raises SkerryError (the API)."""
        # a stock edge reports neither, so nobody would take back what is said here
        linked = {
            link.node: link.session.number
            for link in self._nodes
            if link.ours and link.session.state is not State.CLOSED
        }
        self._mine |= linked
        for name in linked:
            self._lost.pop(name, None)
        for name in self._mine.keys() - linked.keys():
            at, since = self._lost.setdefault(name, (now(), clock.rfc3339()))
            if now() - at < AWAY_S:
                continue
            node = self._cache.get("", name)
            # a newer session is another hub's, and so is what there is to say
            if node is not None and session_of(node) <= self._mine[name]:
                await self._tell(node, since)
            del self._mine[name], self._lost[name]
        await self._correct(linked)
        if silent:
            for node in list(self._cache):
                if (
                    node.name not in linked
                    and node.name not in self._mine
                    and is_edge(node)
                    and _is_forgotten(node)
                ):
                    await self._tell(node, clock.rfc3339())

    async def _correct(self, linked: dict[str, int]) -> None:
        """Say of nodes that are linked, and are not said to be at two looks, that they are."""
        doubted = set()
        for name, number in linked.items():
            node = self._cache.get("", name)
            # a newer session is another hub's
            if node is None or session_of(node) > number or not _is_said_away(node):
                continue
            doubted.add(name)
            if name in self._doubted:
                log.info("Node %s is linked, though it was said to be on its own", name)
                await self._patch(node, back(clock.rfc3339()))
        self._doubted = doubted

    async def _tell(self, node: Object, since: str) -> None:
        log.info("Node %s is on its own", node.name)
        await self._patch(node, away(clock.rfc3339(), since))

    async def _patch(self, node: Object, conditions: list[dict[str, Any]]) -> None:
        body = msgspec.json.encode({"status": {"conditions": conditions}})
        await self._kube.patch(NODE, node.name, body, form=STRATEGIC, subresource="status")


def _is_said_away(node: Object) -> bool:
    # most nodes are not: their conditions need not be read for that
    if b"LinkLost" not in node.raw:
        return False
    try:
        return says(node, CONNECTED) == "False"
    except SkerryError:
        return False


def _is_forgotten(node: Object) -> bool:
    try:
        return says(node, "Ready") == "Unknown" and says(node, CONNECTED) == "True"
    except SkerryError:
        return False
