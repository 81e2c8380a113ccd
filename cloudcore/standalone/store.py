"""Keep every object, in SQLite for ever and in memory for reading, under one growing revision.

Theory of operation.  The event loop is the only one to decide: `put` and `remove` give out the next revision at once, in
order, and lay the new state over the old in `_pending`, where `head` sees it, so that two writers of one object
cannot both win.  One thread writes: whatever is waiting shares a transaction and one fsync (WAL, synchronous=FULL).
Only when that has landed do `get`, `select` and the watchers see it, so nobody ever sees what a power cut could take back.
A failed commit fails every write that came after it too, because those may have been decided on top of it.

Objects are kept as their JSON bytes, beginning with kind and apiVersion; a list or watch copies bytes.
Recent events are kept per resource; a watcher that asks for older ones gets Expired and lists again.  The
revision of the last event of each resource is stored, so a watcher that missed nothing goes on after a restart.

It does not know what an object means: names, kinds, defaults and rules are its callers'."""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from beehive.watchdog import Vital
from cloudcore.standalone.errors import NewerStore, StoreError
from cloudcore.standalone.ids import Key, ObjectId

log = logging.getLogger(__name__)

EVERYTHING: Key = ("*", "*")
"""Subscribe to this for the events of all resources, from now."""
LEVEL = 1
"""Of the schema.  A newer one is refused; an older one is migrated step by step."""
HISTORY = 1000
"""Events kept per resource: minutes of work at the rate one machine sees."""
HISTORY_BYTES = 4 * 1024 * 1024
"""Bound of the object bytes that one resource's events hold."""
BATCH = 512
"""Writes that may share one transaction."""
STANDS_S = 300.0
"""How long the writing thread may be at one batch before the process is ended."""
QUEUE = 4096
"""Events one watcher may be behind before it is dropped: it lists again, at its own cost."""
QUEUE_BYTES = 32 * 1024 * 1024
"""The same in bytes of objects, each of which may have 3 MiB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (grp TEXT, plural TEXT, revision INTEGER NOT NULL,
    PRIMARY KEY (grp, plural)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (grp TEXT, plural TEXT, namespace TEXT, name TEXT, revision INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (grp, plural, namespace, name)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one object.  `fields` holds what field selectors may ask beside name and namespace."""

    key: Key
    namespace: str
    name: str
    uid: str
    revision: int
    body: bytes
    labels: dict[str, str]
    fields: dict[str, str]
    owners: tuple[str, ...] = ()
    """uids of the objects that own this one."""

    def decode(self) -> dict[str, Any]:
        """A fresh object that the caller may change."""
        value: dict[str, Any] = msgspec.json.decode(self.body)
        return value


@dataclass(frozen=True, slots=True)
class Event:
    """One change.  `type` is ADDED, MODIFIED or DELETED; of a deletion `record` is the last state with the
    revision of the deletion.  `before` is the state the change replaced."""

    type: str
    record: Record
    before: Record | None


class Match(Protocol):
    """Whether a watcher wants an object in this state."""

    def __call__(self, record: Record) -> bool: ...


class Expired(Exception):
    """The wanted revision is older than what is kept.  `oldest` is the first one that can be resumed from."""

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {wanted} ({oldest})")
        self.oldest = oldest


class TooSlow(Exception):
    """This watcher did not read and was dropped."""


class Subscription:
    """One watcher's queue.  Use as `async with`; `next` waits for what has happened since.

    Selector transitions are translated: an object that begins to match is ADDED, one that ceases is DELETED."""

    def __init__(self, store: Store, key: Key, matches: Match | None) -> None:
        self._store = store
        self._key = key
        self._matches = matches
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self._overrun = False

    def offer(self, event: Event) -> None:
        wanted = self.translate(event)
        if wanted is None or self._overrun:
            return
        size = len(wanted.record.body)
        # one alone may be larger
        if len(self._events) >= QUEUE or (self._events and self._bytes + size > QUEUE_BYTES):
            self._overrun = True
            self._events.clear()
        else:
            self._events.append(wanted)
            self._bytes += size
        self._ready.set()

    def translate(self, event: Event) -> Event | None:
        if self._matches is None:
            return event
        now = event.type != "DELETED" and self._matches(event.record)
        was = event.before is not None and self._matches(event.before)
        if now and was:
            return event
        if now:
            return event if event.type == "ADDED" else Event("ADDED", event.record, event.before)
        if was and event.before is not None:
            if event.type == "DELETED":
                return event
            return Event("DELETED", at_revision(event.before, event.record.revision), event.before)
        return None

    async def next(self, timeout_s: float | None = None) -> list[Event]:
        """All waiting events, at least one; empty when `timeout_s` passed.  Raises TooSlow."""
        if not self._events and not self._overrun:
            self._ready.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()
            except TimeoutError:
                return []
        if self._overrun:
            raise TooSlow("the watcher did not read fast enough")
        events = list(self._events)
        self._events.clear()
        self._bytes = 0
        return events

    def close(self) -> None:
        self._store.unsubscribe(self._key, self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _Write:
    key: Key
    id: ObjectId
    record: Record
    gone: bool
    done: asyncio.Future[None]
    epoch: int


@dataclass(slots=True)
class _History:
    events: deque[Event] = field(default_factory=deque)
    size: int = 0
    oldest: int = 0
    """Watching from this revision or later can be served."""
    last: int = 0


class Store:
    """See the module.  Open with `open`, then only use from the event loop that runs `run`."""

    def __init__(self, path: Path, *, fields: Callable[[Key, dict[str, Any]], dict[str, str]]) -> None:
        self._path = path
        self._fields = fields
        self._revision = 0
        self._objects: dict[Key, dict[ObjectId, Record]] = {}
        self._pending: dict[tuple[Key, ObjectId], Record | None] = {}
        self._newest: asyncio.Future[None] | None = None
        self._history: dict[Key, _History] = {}
        self._watchers: dict[Key, set[Subscription]] = {}
        self._by_uid: dict[str, Record] = {}
        self._dependents: dict[str, set[str]] = {}
        self._queue: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._outgoing: list[_Write] = []
        self._epoch = 0
        self._failed_epoch = -1
        self._landed_revision = 0
        self._thread: threading.Thread | None = None
        self._commits = 0
        self._writing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Read everything.  Blocking: call it before serving.  Raises StoreError."""
        try:
            connection = self._connect()
            try:
                self._load(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _load(self, connection: sqlite3.Connection) -> None:
        self._path.chmod(0o600)
        connection.executescript(_SCHEMA)
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        level = meta.get("level", LEVEL)
        if level > LEVEL:
            raise NewerStore(f"cannot open {self._path}: it was written by a newer version (schema {level})")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('level', ?)", (LEVEL,))
        self._revision = self._landed_revision = meta.get("revision", 0)
        for group, plural, last in connection.execute("SELECT grp, plural, revision FROM heads"):
            self._history[group, plural] = _History(oldest=last, last=last)
        rows = connection.execute("SELECT grp, plural, namespace, name, revision, body FROM objects")
        for group, plural, namespace, name, revision, body in rows:
            key = (group, plural)
            record = self._record(key, namespace, name, revision, body, msgspec.json.decode(body))
            self._objects.setdefault(key, {})[namespace, name] = record
            self._index(None, record)

    def _index(self, before: Record | None, after: Record | None) -> None:
        if before is not None:
            self._by_uid.pop(before.uid, None)
            for owner in before.owners:
                below = self._dependents.get(owner, set())
                below.discard(before.uid)
                if not below:
                    self._dependents.pop(owner, None)
        if after is not None:
            self._by_uid[after.uid] = after
            for owner in after.owners:
                self._dependents.setdefault(owner, set()).add(after.uid)

    def _record(
        self, key: Key, namespace: str, name: str, revision: int, body: bytes, value: dict[str, Any]
    ) -> Record:
        metadata = value["metadata"]
        return Record(
            key,
            namespace,
            name,
            metadata.get("uid", ""),
            revision,
            body,
            metadata.get("labels") or {},
            self._fields(key, value),
            tuple(owner.get("uid", "") for owner in metadata.get("ownerReferences") or ()),
        )

    def start(self) -> None:
        """Start the writing thread.  Call from the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_loop, name="store", daemon=True)
        self._thread.start()

    def vital(self) -> Vital:
        """That what is accepted is written, for the watchdog."""

        def pulse() -> int | None:
            return self._commits if self._writing or not self._queue.empty() else None

        return Vital(name="store's writer", pulse=pulse, limit_s=STANDS_S)

    async def stop(self) -> None:
        """Land what was accepted, then end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    # reading -----------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The newest revision that everybody may see."""
        return self._landed_revision

    def get(self, key: Key, namespace: str, name: str) -> Record | None:
        return self._objects.get(key, {}).get((namespace, name))

    def select(self, key: Key, namespace: str = "", matches: Match | None = None) -> list[Record]:
        """In the order of namespace, then name.  An empty namespace means all."""
        found: Iterable[Record] = self._objects.get(key, {}).values()
        if namespace:
            found = (record for record in found if record.namespace == namespace)
        if matches is not None:
            found = (record for record in found if matches(record))
        return sorted(found, key=lambda record: (record.namespace, record.name))

    def newest(self, key: Key, namespace: str) -> list[Record]:
        """As `select`, but with what has been accepted and has not landed: what a writer must count."""
        found = {
            place: record for place, record in self._objects.get(key, {}).items() if place[0] == namespace
        }
        for (kind, place), pending in self._pending.items():
            if kind == key and place[0] == namespace:
                if pending is None:
                    found.pop(place, None)
                else:
                    found[place] = pending
        return list(found.values())

    def select_at(
        self, key: Key, revision: int, namespace: str = "", matches: Match | None = None
    ) -> list[Record]:
        """As `select`, but as it was at `revision`: what happened since is taken back.  Raises Expired."""
        history = self._history.get(key)
        objects = dict(self._objects.get(key, {}))
        if history is not None and revision < history.last:
            if revision < history.oldest:
                raise Expired(revision, history.oldest)
            for event in reversed(history.events):
                if event.record.revision <= revision:
                    break
                place = (event.record.namespace, event.record.name)
                if event.before is None:
                    objects.pop(place, None)
                else:
                    objects[place] = event.before
        found = (
            record
            for record in objects.values()
            if (not namespace or record.namespace == namespace) and (matches is None or matches(record))
        )
        return sorted(found, key=lambda record: (record.namespace, record.name))

    def by_uid(self, uid: str) -> Record | None:
        return self._by_uid.get(uid)

    def dependents(self, uid: str) -> list[Record]:
        """The objects that name `uid` as an owner."""
        return [self._by_uid[below] for below in self._dependents.get(uid, ())]

    def count(self, key: Key) -> int:
        return len(self._objects.get(key, {}))

    def resources(self) -> list[Key]:
        return [key for key, objects in self._objects.items() if objects]

    def head(self, key: Key, namespace: str, name: str) -> Record | None:
        """The newest state, landed or not: what a writer must base its decision on."""
        place = (key, (namespace, name))
        if place in self._pending:
            return self._pending[place]
        return self.get(key, namespace, name)

    async def settled(self) -> None:
        """Wait until what was accepted before has landed or failed.

        Whoever is refused because of a write that has not landed yet must be able to read that write afterwards."""
        if self._newest is not None and not self._newest.done():
            await asyncio.wait([self._newest])

    # writing -----------------------------------------------------------------------------------------

    def put(
        self, key: Key, namespace: str, name: str, body: dict[str, Any]
    ) -> tuple[Record, asyncio.Future[None]]:
        """Accept a new state; it gets its revision now and is durable when the future is done.

        `body` gets its resourceVersion here.  The future raises StoreError if it could not be written."""
        self._revision += 1
        body["metadata"]["resourceVersion"] = str(self._revision)
        record = self._record(key, namespace, name, self._revision, msgspec.json.encode(body), body)
        return record, self._submit(key, (namespace, name), record, gone=False)

    def remove(
        self, key: Key, namespace: str, name: str, body: dict[str, Any]
    ) -> tuple[Record, asyncio.Future[None]]:
        """Accept the deletion of an object whose last state is `body`."""
        self._revision += 1
        body["metadata"]["resourceVersion"] = str(self._revision)
        record = self._record(key, namespace, name, self._revision, msgspec.json.encode(body), body)
        return record, self._submit(key, (namespace, name), record, gone=True)

    def _submit(self, key: Key, where: ObjectId, record: Record, *, gone: bool) -> asyncio.Future[None]:
        if self._loop is None:
            raise StoreError("cannot write: the store is not started")
        done: asyncio.Future[None] = self._loop.create_future()
        self._newest = done
        self._pending[key, where] = None if gone else record
        if not self._outgoing:
            # with what else this turn of the loop accepts: waking the other thread once costs less than each time
            self._loop.call_soon(self._hand_over)
        self._outgoing.append(_Write(key, where, record, gone, done, self._epoch))
        return done

    def _hand_over(self) -> None:
        writes, self._outgoing = self._outgoing, []
        if writes:
            self._queue.put(writes)

    def _write_loop(self) -> None:
        connection = self._connect()
        try:
            more = True
            while more and (batch := self._queue.get()) is not None:
                while len(batch) < BATCH:
                    try:
                        item = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if item is None:
                        more = False
                        break
                    batch.extend(item)
                self._commits += 1
                self._writing = True
                self._commit(connection, batch)
                self._writing = False
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[_Write]) -> None:
        if not batch or self._loop is None:
            return
        fault: StoreError | None = None
        if batch[0].epoch <= self._failed_epoch:
            # all of it, and what is decided on top of it before the loop has heard
            self._failed_epoch = batch[-1].epoch
            fault = StoreError("cannot write: an earlier write failed")
        else:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for gone, writes in itertools.groupby(batch, key=lambda write: write.gone):
                    if gone:
                        connection.executemany(
                            "DELETE FROM objects WHERE grp=? AND plural=? AND namespace=? AND name=?",
                            [(*write.key, *write.id) for write in writes],
                        )
                    else:
                        connection.executemany(
                            "INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?)",
                            [
                                (*write.key, *write.id, write.record.revision, write.record.body)
                                for write in writes
                            ],
                        )
                heads = {write.key: write.record.revision for write in batch}
                connection.executemany(
                    "INSERT OR REPLACE INTO heads VALUES (?,?,?)",
                    [(*key, last) for key, last in heads.items()],
                )
                connection.execute(
                    "INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (batch[-1].record.revision,)
                )
                connection.execute("COMMIT")
            except Exception as error:
                # whatever it is: without this thread no later write would ever be answered
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._failed_epoch = batch[-1].epoch
                fault = StoreError(f"cannot write {self._path}: {error}")
        self._loop.call_soon_threadsafe(self._landed, batch, fault)

    def _landed(self, batch: list[_Write], fault: StoreError | None) -> None:
        if fault is not None:
            log.error("Cannot store %d changes: %s", len(batch), fault)
            if batch[-1].epoch == self._epoch:
                self._epoch += 1
                self._pending.clear()
            for write in batch:
                _settle(write.done, fault)
            return
        for write in batch:
            self._show(write)
        for write in batch:
            _settle(write.done, None)

    def _show(self, write: _Write) -> None:
        objects = self._objects.setdefault(write.key, {})
        before = objects.get(write.id)
        record = write.record
        if write.gone:
            objects.pop(write.id, None)
            self._index(before, None)
            event = Event("DELETED", record, before)
        else:
            objects[write.id] = record
            self._index(before, record)
            event = Event("MODIFIED" if before is not None else "ADDED", record, before)
        place = (write.key, write.id)
        pending = self._pending.get(place, record)
        if (pending is None and write.gone) or pending is record:
            self._pending.pop(place, None)
        self._landed_revision = record.revision
        history = self._history.setdefault(write.key, _History())
        history.events.append(event)
        history.size += len(record.body)
        history.last = record.revision
        while len(history.events) > HISTORY or history.size > HISTORY_BYTES:
            dropped = history.events.popleft()
            history.size -= len(dropped.record.body)
            history.oldest = dropped.record.revision
        for watcher in (*self._watchers.get(write.key, ()), *self._watchers.get(EVERYTHING, ())):
            watcher.offer(event)

    # watching ----------------------------------------------------------------------------------------

    def subscribe(self, key: Key, since: int | None, matches: Match | None = None) -> Subscription:
        """Events of `key` after revision `since`; None means from now.  Raises Expired."""
        subscription = Subscription(self, key, matches)
        if since is not None:
            history = self._history.get(key)
            if history is not None:
                if since < history.oldest:
                    raise Expired(since, history.oldest)
                for event in history.events:
                    if event.record.revision > since:
                        subscription.offer(event)
        self._watchers.setdefault(key, set()).add(subscription)
        return subscription

    def unsubscribe(self, key: Key, subscription: Subscription) -> None:
        self._watchers.get(key, set()).discard(subscription)

    def compact(self, key: Key) -> None:
        """Forget the events kept for `key`; watchers that are not behind go on."""
        history = self._history.get(key)
        if history is not None:
            history.events.clear()
            history.size = 0
            history.oldest = history.last


def at_revision(record: Record, revision: int) -> Record:
    """The same state as it is shown in the event that ends it."""
    body = record.decode()
    body["metadata"]["resourceVersion"] = str(revision)
    return Record(
        record.key,
        record.namespace,
        record.name,
        record.uid,
        revision,
        msgspec.json.encode(body),
        record.labels,
        record.fields,
        record.owners,
    )


def _settle(done: asyncio.Future[None], fault: Exception | None) -> None:
    if done.done():
        return
    if fault is None:
        done.set_result(None)
    else:
        done.set_exception(fault)
