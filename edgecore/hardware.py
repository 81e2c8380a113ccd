"""What hardware is plugged in here: told by the process that watches it, passed on to the cloud, twins and pods.

`mapper supervise` asks every few seconds over the local socket: it says all that it sees, and is told which rules and which
drivers the node needs.  What announces itself over MQTT comes beside it (`announced.py`).  Nothing is stored: until one of the
two has spoken nothing is known of its things, and nothing is concluded."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from beehive.apis import hardware
from beehive.apis.hardware import REPORT, Report, Seen
from beehive.errors import ProtocolError
from beehive.message import Group, Message, Op, Source, new
from edgecore.edged.claims import HostDevice

log = logging.getLogger(__name__)


class Cloud(Protocol):
    """metamanager, as far as it is needed here."""

    @property
    def ours(self) -> bool:
        """Whether there is a link to a hub that knows of hardware."""

    async def known(self, kind: str, namespace: str = "") -> list[msgspec.Raw]: ...

    async def send(self, message: Message, *, coalesce: str) -> None: ...


class Twins(Protocol):
    """devicetwin, as far as it is needed here."""

    def needs(self) -> list[dict[str, Any]]: ...

    def undriven(self, faults: Mapping[str, str]) -> None:
        """Protocol → why nothing serves it: all that is known to be wrong with drivers now."""

    def found(self) -> Mapping[str, str]:
        """The devices that were made of found hardware: id -> name of the candidate."""

    def plugged(self, present: frozenset[str]) -> None:
        """The candidates whose hardware is there."""


class Hardware:
    """changed: told of each device (namespace, name) whose hardware came, went or is under another node; must not block."""

    def __init__(self, node: str, cloud: Cloud, twins: Twins) -> None:
        self._node = node
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
            self._plugged = self._by_name(seen)
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
