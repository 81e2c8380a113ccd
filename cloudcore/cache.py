"""The newest known state of every object of one kind, as bytes.

List, then watch from that version, and again whenever the watch cannot go on: what was missed comes out of the difference
between two lists.  Subscribers are called in order, synchronously, with each real change; before the first list is complete
they hear of it as additions and `synced` is false."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator

from beehive import clock
from beehive.backoff import Backoff
from beehive.errors import Unavailable
from cloudcore.errors import ApiError, ApiGone
from cloudcore.kube import Kube, WatchEvent
from cloudcore.objects import Change, Kind, Object

log = logging.getLogger(__name__)

CONFIRM_S = 0.5
QUICK_S = 1.0
"""A watch that ends sooner than this is not opened again at once."""

Subscriber = Callable[[Change], None]


class Cache:
    """One kind.  `query` narrows it (labelSelector, fieldSelector)."""

    def __init__(
        self, kube: Kube, kind: Kind, *, namespace: str = "", query: dict[str, str] | None = None
    ) -> None:
        self.kind = kind
        self.name = f"cache {kind.plural}"
        self._kube = kube
        self._namespace = namespace
        self._query = query
        self._objects: dict[tuple[str, str], Object] = {}
        self._subscribers: list[Subscriber] = []
        self._synced = asyncio.Event()
        self._rng = random.Random()
        self.version = ""

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def synced(self) -> bool:
        """Whether at least one whole list was taken in."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Before `run`: call `subscriber` with each change.  It must not block; what it raises ends the daemon."""
        self._subscribers.append(subscriber)

    # -- keeping -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        backoff = Backoff()
        away = False
        while True:
            try:
                if not self.version:
                    await self._relist()
                    if away:
                        log.info("The API answers again for %s", self.kind.plural)
                    away = False
                    backoff.reset()
                await self._follow(backoff)
                continue
            except ApiGone:
                log.info("Listing %s again: the last version seen is too old", self.kind.plural)
                self.version = ""
                wait_s = backoff.next_s(self._rng) if backoff.attempts else 0.0
                backoff.attempts = max(backoff.attempts, 1)
            except Unavailable as error:
                if not away:
                    log.warning("%s; trying again until it works", error)
                away = True
                wait_s = max(error.retry_after_s or 0.0, backoff.next_s(self._rng))
            except ApiError as error:
                # forbidden, or a kind that is not installed (yet): say so once and keep asking, slowly
                if not away:
                    log.warning("%s; trying again until it works", error)
                away = True
                self.version = ""
                wait_s = min(2.0, backoff.next_s(self._rng))
            await asyncio.sleep(wait_s)

    async def _relist(self) -> None:
        page = await self._kube.list_all(self.kind, self._namespace, query=self._query)
        if not self._objects.keys() <= {item.key for item in page.objects}:
            # absence is believed only when it is read twice: what is missing here will be destroyed somewhere
            await asyncio.sleep(CONFIRM_S)
            page = await self._kube.list_all(self.kind, self._namespace, query=self._query)
        self.take_list(page.objects)
        self.version = page.version
        self._synced.set()

    def take_list(self, objects: list[Object]) -> None:
        """Make `objects` the state; tell the difference."""
        gone = dict(self._objects)
        for item in objects:
            gone.pop(item.key, None)
        for old in gone.values():
            self._set(old.key, None)
        for item in objects:
            self._set(item.key, item)

    async def _follow(self, backoff: Backoff) -> None:
        began = clock.monotonic()
        async for batch in self._kube.watch(self.kind, self.version, self._namespace, query=self._query):
            for event in batch:
                self.take_event(event)
            backoff.reset()
        if clock.monotonic() - began < QUICK_S:
            await asyncio.sleep(QUICK_S)

    def take_event(self, event: WatchEvent) -> None:
        if event.version:
            self.version = event.version
        if event.object is None:
            return
        if event.type == "DELETED":
            self._set(event.object.key, None, last=event.object)
        else:
            self._set(event.object.key, event.object)

    def _set(self, key: tuple[str, str], new: Object | None, *, last: Object | None = None) -> None:
        old = self._objects.get(key)
        if new is None:
            if old is None:
                return
            del self._objects[key]
            # the delete event carries the last state, and a version after everything that was seen
            self._tell(Change(last if last is not None and last.uid == old.uid else old, None))
            return
        if old is not None and old.uid == new.uid and old.version == new.version:
            return
        self._objects[key] = new
        if old is not None and old.uid != new.uid:
            # replaced under the same name while nobody looked
            self._tell(Change(old, None))
            old = None
        self._tell(Change(old, new))

    def _tell(self, change: Change) -> None:
        for subscriber in self._subscribers:
            subscriber(change)
