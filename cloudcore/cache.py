"""The newest known state of every object of one kind, as bytes.

List, then watch from that version, and again whenever the watch cannot go on: what was missed comes out of the difference
between two lists.  Subscribers are called in order, synchronously, with each real change; before the first list is complete
they hear of it as additions and `synced` is false.

An API that was restored from a backup has older versions.  They are looked at before each watch, since a watch from a version
that is still to come is silent; then everything is listed again, and what is older now is told as a change back.

An object that cannot be read is unknown, and still there: what was known of it stays, and its absence is never told.  While one
is there of which not even the name can be read, no absence is believed at all."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence

from beehive import clock
from beehive.backoff import Backoff
from beehive.errors import Unavailable
from cloudcore.errors import ApiError, ApiGone, ApiNotFound
from cloudcore.kube import Kube, WatchEvent
from cloudcore.objects import Change, Kind, Object, Unread, number

log = logging.getLogger(__name__)

CONFIRM_S = 0.5
QUICK_S = 1.0
"""A watch that ends sooner than this is not opened again at once."""
BLIND_S = 60.0
"""How soon it is listed again when something was missing and its absence could not be believed."""

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
        self._unread: dict[tuple[str, str] | None, Unread] = {}
        self._doubted = False
        self._listed = False
        self._went_back = False
        self.went_back = 0
        """How often the API turned out to have gone back to an older state."""
        self._synced = asyncio.Event()
        self.on_unread: Callable[[Unread], None] | None = None
        """Told of each object that cannot be read, once as long as it stays so."""
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

    @property
    def unread(self) -> list[Unread]:
        """What is there and cannot be read."""
        return list(self._unread.values())

    def is_gone(self, namespace: str, name: str) -> bool:
        """Whether there is surely no such object."""
        key = (namespace, name)
        return self.synced and key not in self._objects and not {key, None} & self._unread.keys()

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
                if not away and isinstance(error, ApiNotFound) and self.kind.group:
                    log.warning(
                        "%s.%s are not defined at the API: apply deploy/crds; trying again until it works",
                        self.kind.plural,
                        self.kind.group,
                    )
                elif not away:
                    log.warning("%s; trying again until it works", error)
                away = True
                self.version = ""
                wait_s = min(2.0, backoff.next_s(self._rng))
            await asyncio.sleep(wait_s)

    async def _relist(self) -> None:
        page = await self._kube.list_all(self.kind, self._namespace, query=self._query)
        if self._objects.keys() - {item.key for item in page.objects} - {item.key for item in page.unread}:
            # absence is believed only when it is read twice: what is missing here will be destroyed somewhere
            await asyncio.sleep(CONFIRM_S)
            page = await self._kube.list_all(self.kind, self._namespace, query=self._query)
        self.take_list(page.objects, page.unread)
        self.version = page.version
        self._listed = True
        self._synced.set()

    def take_list(self, objects: list[Object], unread: Sequence[Unread] = ()) -> None:
        """Make `objects` the state; tell the difference.   unread: what is there beside them and cannot be read."""
        gone = dict(self._objects)
        for item in objects:
            gone.pop(item.key, None)
        before, self._unread = self._unread, {}
        for doubtful in unread:
            self._note(doubtful, before.get(doubtful.key))
            if doubtful.key is not None:
                gone.pop(doubtful.key, None)
        self._doubted = bool(gone) and None in self._unread
        for old in gone.values() if not self._doubted else ():
            self._set(old.key, None)
        for item in objects:
            self._set(item.key, item)
        self._went_back = False

    def _note(self, doubtful: Unread, before: Unread | None) -> None:
        self._unread[doubtful.key] = doubtful
        if before is not None and before.why == doubtful.why:
            return
        log.warning(
            "%s cannot be read and stays as it was known: %s", str(doubtful)[:300], doubtful.why[:256]
        )
        if self.on_unread is not None:
            self.on_unread(doubtful)

    async def _follow(self, backoff: Backoff) -> None:
        if not self._listed:
            await self._check_back()
        self._listed = False
        if not self.version:
            return
        began = clock.monotonic()
        try:
            async with asyncio.timeout(BLIND_S if self._doubted else None):
                async for batch in self._kube.watch(
                    self.kind, self.version, self._namespace, query=self._query
                ):
                    for event in batch:
                        if 0 < number(event.version) < number(self.version):
                            self._back(event.version)
                            return
                        self.take_event(event)
                    backoff.reset()
        except TimeoutError:
            self.version = ""
            return
        if clock.monotonic() - began < QUICK_S:
            await asyncio.sleep(QUICK_S)

    async def _check_back(self) -> None:
        current = await self._kube.current_version(self.kind, self._namespace, query=self._query)
        if number(current) < number(self.version):
            self._back(current)

    def _back(self, current: str) -> None:
        log.error(
            "The API went back to an older state (was it restored?): %s were at %s and are at %s; listing again",
            self.kind.plural,
            self.version,
            current,
        )
        self.version = ""
        self._went_back = True
        self.went_back += 1

    def take_event(self, event: WatchEvent) -> None:
        if event.version:
            self.version = event.version
        if event.unread is not None:
            self._note(event.unread, self._unread.get(event.unread.key))
        if event.object is None:
            return
        self._unread.pop(event.object.key, None)
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
        same = old is not None and old.uid == new.uid and old.version == new.version
        # a version may have been given twice, if the API went back between
        if old is not None and same and (not self._went_back or old.raw == new.raw):
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
