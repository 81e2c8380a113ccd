"""What hardware is plugged in here: told by the process that watches it, passed on to the cloud, twins and pods.

`mapper supervise` asks every few seconds over the local socket: it says all that it sees, and is told which rules and which
drivers the node needs.  What announces itself over MQTT comes beside it (`announced.py`).  What is there is not stored: until
one of the two has spoken nothing is known of its things, and nothing is concluded.

A Device that was made of a thing under an identity of an earlier version keeps it: which thing that is, is found out while both
are the same, and stored, since the earlier identity may be another thing's after a restart of the machine."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import structs

from beehive.apis import hardware
from beehive.apis.hardware import REPORT, Report, Seen
from beehive.errors import ProtocolError
from beehive.message import Group, Message, Op, Source, new
from edgecore.edged.claims import HostDevice

log = logging.getLogger(__name__)

KEPT = "identities"


class Cloud(Protocol):
    """metamanager, as far as it is needed here."""

    @property
    def ours(self) -> bool:
        """Whether there is a link to a hub that knows of hardware."""

    async def known(self, kind: str, namespace: str = "") -> list[msgspec.Raw]: ...

    async def send(self, message: Message, *, coalesce: str) -> None: ...


class Notes(Protocol):
    """Where to keep what must be found again.  Both raise Unavailable (the disk)."""

    async def load(self, key: str) -> bytes | None: ...

    async def save(self, key: str, value: bytes) -> None: ...


class Twins(Protocol):
    """devicetwin, as far as it is needed here."""

    loaded: asyncio.Event
    """Set when what is stored of the devices is known."""

    def needs(self) -> list[dict[str, Any]]: ...

    def undriven(self, faults: Mapping[str, str]) -> None:
        """Protocol → why nothing serves it: all that is known to be wrong with drivers now."""

    def found(self) -> Mapping[str, str]:
        """The devices that were made of found hardware: id -> name of the candidate."""

    def plugged(self, present: frozenset[str]) -> None:
        """The candidates whose hardware is there."""


class Hardware:
    """changed: told of each device (namespace, name) whose hardware came, went or is under another node; must not block."""

    def __init__(self, node: str, cloud: Cloud, twins: Twins, notes: Notes) -> None:
        self._node = node
        self._notes = notes
        self._kept: dict[str, str] | None = (
            None  # object name by its identity of today -> the identity that it goes on with
        )
        self._cloud = cloud
        self._twins = twins
        self.changed: list[Callable[[str, str], None]] = []
        self._seen: dict[str, Seen] | None = None  # by candidate, of both sources
        self._plugged: dict[str, Seen] | None = None
        self._announced: dict[str, Seen] | None = {}
        self._covers: list[str] = []

    async def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `hardware`.  present: all that is seen, or null while that is not known.   faults: protocol → why nothing
        serves it.   Raises: ProtocolError."""
        present = question.get("present")
        if present is not None:
            try:
                seen = msgspec.convert({"seen": present}, Report).seen
            except (msgspec.ValidationError, RecursionError) as error:
                raise ProtocolError(f"cannot use what is said to be plugged in: {error}") from error
            self._plugged = self._by_name(await self._as_accepted(seen))
            await self._take_both()
        if (faults := question.get("faults")) is not None:
            try:
                self._twins.undriven(msgspec.convert(faults, dict[str, str]))
            except msgspec.ValidationError as error:
                raise ProtocolError(f"cannot use what is said of drivers: {error}") from error
        return {
            "node": self._node,
            "rules": await self._cloud.known("hardwarerule"),
            "needs": self._twins.needs(),
        }

    async def _as_accepted(self, seen: list[Seen]) -> list[Seen]:
        """Things under the identities that their Devices know.  Raises: Unavailable."""
        await self._twins.loaded.wait()
        if self._kept is None:
            try:
                self._kept = msgspec.json.decode(await self._notes.load(KEPT) or b"{}", type=dict[str, str])
            except (msgspec.DecodeError, UnicodeError) as error:
                log.warning("Cannot use what was kept of identities, starting anew: %s", error)
                self._kept = {}
        accepted = frozenset(self._twins.found().values())
        known, kept = settle(self._node, seen, accepted, self._kept)
        if kept != self._kept:
            await self._notes.save(KEPT, msgspec.json.encode(kept))
            self._kept = kept
        return known

    async def announce(self, seen: list[Seen] | None) -> None:
        """What has announced itself over MQTT; None while that is not known."""
        self._announced = self._by_name(seen) if seen is not None else None
        await self._take_both()

    def _by_name(self, seen: list[Seen]) -> dict[str, Seen]:
        return {hardware.object_name(self._node, thing): thing for thing in seen}

    async def _take_both(self) -> None:
        covers = [hardware.PLUGGED] if self._plugged is not None else []
        covers += [hardware.MQTT] if self._announced is not None else []
        both = {**(self._plugged or {}), **(self._announced or {})}
        await self._take(dict(list(both.items())[: hardware.MAX_SEEN]), covers)

    async def _take(self, seen: dict[str, Seen], covers: list[str]) -> None:
        before, self._seen = self._seen, seen
        if before == seen and covers == self._covers:
            return
        self._covers = covers
        for name in sorted((before or {}).keys() ^ seen.keys()):
            log.info("Hardware %s %s", name, "is there" if name in seen else "is gone")
        if self._knows_all:
            self._twins.plugged(frozenset(seen))
        for id_, candidate in self._twins.found().items():
            if before is None or before.get(candidate) != seen.get(candidate):
                namespace, _, name = id_.partition("/")
                for tell in self.changed:
                    tell(namespace, name)
        if self._cloud.ours:
            await self._tell(seen)

    @property
    def _knows_all(self) -> bool:
        return len(self._covers) == 2

    async def greet(self) -> None:
        """A session began: say what is here."""
        if self._seen is not None and self._cloud.ours:
            await self._tell(self._seen)

    async def _tell(self, seen: Mapping[str, Seen]) -> None:
        message = new(
            source=Source.TWIN,
            group=Group.RESOURCE,
            operation=Op.UPDATE,
            resource=REPORT,
            content=msgspec.json.encode(Report(seen=list(seen.values()), covers=self._covers)),
        )
        await self._cloud.send(message, coalesce="hardware")

    # -- for pods

    def device(self, namespace: str, name: str) -> HostDevice | str:
        """The device node of a device, or why there is none."""
        candidate = self._twins.found().get(f"{namespace}/{name}")
        if candidate is None:
            return f"there is no device {namespace}/{name} here that was made of found hardware"
        if self._seen is None or self._plugged is None:
            return f"it is not known yet whether device {namespace}/{name} is plugged in"
        seen = self._seen.get(candidate)
        if seen is None:
            return f"device {namespace}/{name} is not plugged in"
        return _node(seen.dev_node) or f"device {namespace}/{name} has no device node"

    def plugged_in(self) -> dict[str, int]:
        """How many devices of each name (of any namespace) are plugged in; 0 for those that are away."""
        counts: dict[str, int] = {}
        for id_, candidate in self._twins.found().items():
            name = id_.partition("/")[2]
            counts[name] = counts.get(name, 0) + (self._seen is not None and candidate in self._seen)
        return counts


def settle(
    node: str, seen: Sequence[Seen], accepted: frozenset[str], kept: Mapping[str, str]
) -> tuple[list[Seen], dict[str, str]]:
    """What is seen, under earlier identities where Devices were made of those, and what is to be kept of that.  Pure.

    accepted: names of the candidates that Devices were made of.   kept: as this returned it last."""
    after: dict[str, str] = {}
    for today, key in kept.items():  # of what is away, too, as long as there is a Device of it
        namespace, rule, identity = (*key.split("\0", 2), "", "")[:3]
        was = Seen(rule_namespace=namespace, rule_name=rule, identity=identity)
        if hardware.object_name(node, was) in accepted:
            after[today] = key
    taken = set(after.values())
    known = []
    for thing in seen:
        own = structs.replace(thing, former="")
        today = hardware.object_name(node, own)
        earlier = structs.replace(own, identity=thing.former) if thing.former else None
        if today in after:
            own = structs.replace(own, identity=after[today].split("\0", 2)[2])
        elif today not in accepted and earlier is not None and len(after) < hardware.MAX_SEEN:
            key = "\0".join((earlier.rule_namespace, earlier.rule_name, earlier.identity))
            if hardware.object_name(node, earlier) in accepted and key not in taken:
                after[today] = key
                taken.add(key)
                own = earlier
        known.append(own)
    return known, after


def _node(path: str) -> HostDevice | None:
    """A device node below /dev, looked at: a link there could lead anywhere."""
    if not path.startswith("/dev/") or ".." in path.split("/"):
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    return HostDevice(path=path, major=os.major(found.st_rdev), minor=os.minor(found.st_rdev))
