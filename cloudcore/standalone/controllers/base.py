"""The loop every controller runs in: what may have changed, look at it, try again later if that failed.

Level-triggered: events only name what to look at.  One object is handled at a time per controller; an object that fails
waits longer each time, up to a minute, and delays nobody else."""

from __future__ import annotations

import abc
import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from cloudcore.standalone.ids import Key
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import EVERYTHING, Event, Record, TooSlow
from cloudcore.standalone.verbs import Resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
Item = tuple[str, ...]
"""What a controller looks at: usually (namespace, name)."""
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 60.0


class Controller(abc.ABC):
    """`name` is the field manager of its writes; `watches` are the resources whose events concern it."""

    name = ""
    watches: tuple[Key, ...] = ()
    resync_s = 60.0
    """How often everything is looked at although nothing was heard."""

    def __init__(self, resources: Resources, *, clock: Callable[[], float]) -> None:
        self.resources = resources
        self.store = resources.store
        self._clock = clock
        self._dirty: dict[Item, None] = {}
        self._wake = asyncio.Event()
        self._later: list[tuple[float, int, Item]] = []
        self._count = itertools.count()
        self._failures: dict[Item, int] = {}
        self.options = WriteOptions(field_manager=self.name, field_validation="Ignore")

    @abc.abstractmethod
    def everything(self) -> Iterable[Item]:
        """All there is to look at."""

    @abc.abstractmethod
    def concerns(self, event: Event) -> Iterable[Item]:
        """What to look at because of this event."""

    @abc.abstractmethod
    async def reconcile(self, item: Item) -> float | None:
        """Look at one item and act.  Returns seconds until it wants to be looked at again, if it does."""

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            for key in self.watches:
                group.create_task(self._listen(key), name=f"{self.name} {key[1]}")
            group.create_task(self._resync(), name=f"{self.name} resync")
            group.create_task(self._work(), name=f"{self.name} work")

    def touch(self, items: Iterable[Item]) -> None:
        for item in items:
            self._dirty[item] = None
        if self._dirty:
            self._wake.set()

    def touch_after(self, seconds: float, item: Item) -> None:
        heapq.heappush(self._later, (self._clock() + seconds, next(self._count), item))
        self._wake.set()

    async def _listen(self, key: Key) -> None:
        while True:
            with self.store.subscribe(key, None) as subscription:
                self.touch(self.everything())
                try:
                    while True:
                        for event in await subscription.next():
                            self.touch(self.concerns(event))
                except TooSlow:
                    log.warning("%s fell behind on %s and starts over", self.name, key[1])

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.resync_s)
            self.touch(self.everything())

    async def _work(self) -> None:
        while True:
            now = self._clock()
            while self._later and self._later[0][0] <= now:
                self._dirty[heapq.heappop(self._later)[2]] = None
            if not self._dirty:
                self._wake.clear()
                wait = self._later[0][0] - now if self._later else None
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            item = next(iter(self._dirty))
            del self._dirty[item]
            await self._one(item)

    async def _one(self, item: Item) -> None:
        try:
            again = await self.reconcile(item)
        except ApiError as error:
            if error.code not in (404, 409):
                log.warning("%s cannot handle %s: %s", self.name, "/".join(item), error)
            self._retry(item)
        except Exception as error:
            # the boundary of one object: a fault in it must not stop the controller for all others
            log.error("%s failed on %s: %r", self.name, "/".join(item), error, exc_info=error)
            self._retry(item)
        else:
            self._failures.pop(item, None)
            if again is not None:
                self.touch_after(again, item)

    def _retry(self, item: Item) -> None:
        failures = self._failures.get(item, 0) + 1
        self._failures[item] = failures
        self.touch_after(min(FIRST_RETRY_S * 2 ** min(failures - 1, 10), LONGEST_RETRY_S), item)

    # shared reading and writing ----------------------------------------------------------------------

    def kind(self, key: Key) -> Kind:
        found = self.resources.registry.stored(key)
        if found is None:
            raise ApiError(404, "NotFound", f"{key[1]} are not served")
        return found

    def get(self, key: Key, namespace: str, name: str) -> Json | None:
        record = self.store.get(key, namespace, name)
        return None if record is None else record.decode()

    def ids(self, key: Key) -> list[Item]:
        return [(record.namespace, record.name) for record in self.store.select(key)]

    async def set_status(self, key: Key, body: Json, status: Json) -> None:
        """Write `status` if it differs.  Raises ApiError (Conflict)."""
        if body.get("status") == status:
            return
        changed = {**body, "status": status}
        await self.resources.update(
            self.kind(key),
            body["metadata"].get("namespace", ""),
            body["metadata"]["name"],
            changed,
            self.options,
            subresource="status",
        )

    async def event(self, regarding: Json, reason: str, message: str, *, warning: bool = False) -> None:
        """Record a v1 Event about an object; the same event again raises its count."""
        metadata = regarding["metadata"]
        namespace = metadata.get("namespace") or "default"
        now = self.resources.timestamp()
        kind = self.kind(("", "events"))
        name = f"{metadata['name'][:200]}.{_digest(metadata.get('uid', ''), reason, message)}"
        old = self.store.head(("", "events"), namespace, name)
        if old is not None:
            seen = old.decode()
            seen["count"] = seen.get("count", 1) + 1
            seen["lastTimestamp"] = now
            await self.resources.update(kind, namespace, name, seen, self.options)
            return
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "kind": regarding["kind"],
                "apiVersion": regarding["apiVersion"],
                "name": metadata["name"],
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
                **({"namespace": metadata["namespace"]} if metadata.get("namespace") else {}),
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": self.name},
            "reportingComponent": self.name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            # nobody acts on an event, so nobody waits until it is on the disk
            self.resources.create_soon(kind, namespace, body, self.options)
        except ApiError as error:
            # an event is a courtesy: in a namespace that is going away it is not wanted
            log.debug("Cannot record %s of %s: %s", reason, metadata["name"], error)


def _digest(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def owner_of(record: Record | Json) -> Json | None:
    """The reference to the controller that owns an object."""
    body = record.decode() if isinstance(record, Record) else record
    return next((ref for ref in body["metadata"].get("ownerReferences") or () if ref.get("controller")), None)


def reference_to(owner: Json) -> Json:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_ready(pod: Json) -> bool:
    return any(
        item.get("type") == "Ready" and item.get("status") == "True"
        for item in (pod.get("status") or {}).get("conditions") or ()
    )


def is_active(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and (pod.get("status") or {}).get("phase") not in (
        "Succeeded",
        "Failed",
    )


def set_condition(conditions: list[Json], new: Json, now: str) -> list[Json]:
    """`conditions` with `new` in place of the one of its type; its transition time is kept when its status is."""
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    moved = now if old is None or old.get("status") != new["status"] else old.get("lastTransitionTime", now)
    fresh = {**new, "lastTransitionTime": moved}
    if old is None:
        return [*conditions, fresh]
    return [fresh if item["type"] == new["type"] else item for item in conditions]


__all__ = [
    "EVERYTHING",
    "Controller",
    "Event",
    "Item",
    "is_active",
    "is_ready",
    "owner_of",
    "reference_to",
    "set_condition",
]
