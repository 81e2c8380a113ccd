"""Everything of the Kubernetes API that this edge can show, and who watches it.

Two sources are shown as one: what the node *holds*, because the cloud gave it (metamanager's rows: pods, configmaps, the node,
devices), and what was *asked* for through this API, kept here as notes in the same store.  Of an object that is in both the
newer state counts.  The two are kept apart on purpose: a pod of another node that some application watches must never look
like a pod to run, nor be counted among what the hub gave.  Over both lies what was written here and waits for the cloud: it is
what clients see until the cloud has answered, whatever comes from there meanwhile.  While the cloud is away the node knows
better how the pods are that run here: then their status is the node's own.

Theory of operation.  All that arrives goes through `look` or `learn`, one at a time; a change that is news goes into the
history, then to the watches.  A watch hears of what it selects only, knows what it told its client, and derives from that
whether an object is added, modified or deleted.  No object is kept in memory: replays and first events read the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from beehive import kinds
from beehive.errors import ProtocolError, Unavailable
from edgecore.metaserver import objects
from edgecore.metaserver.history import History, Key
from edgecore.metaserver.objects import Filter, Gvr, Object
from edgecore.metaserver.ports import Held, HeldChange, Store

log = logging.getLogger(__name__)

PREFIX = "objects/"
PODS = Gvr("", "v1", "pods")
MAX_OBJECTS = 8192
"""Asked objects kept for offline use.  Each costs about 200 bytes of memory."""
MAX_BYTES = 32 * 1024 * 1024
"""... and that much of the disk."""
MAX_QUEUED = 512
"""Events waiting for one watch; a client that reads slower lists again."""
MAX_SIGNALS = 4096


class TooOld(Exception):
    """The version to watch from is forgotten or was never told; `oldest` is what can be said instead."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"oldest is {oldest}")
        self.oldest = oldest


@dataclass(slots=True, eq=False)
class Watch:
    """One client's watch.  Read `queue` until it gives None: the client was too slow, or the watch is over.

    known: the names that the client was told of; None when it knows everything there was and nothing narrows what it sees,
    so that nobody needs to remember them."""

    filter: Filter
    known: set[tuple[str, str]] | None
    queue: asyncio.Queue[bytes | None]
    closed: bool = False

    def show(self, found: Object, *, fresh: bool = False) -> None:
        """The object changed; `fresh`: it was not there before."""
        name = (found.namespace, found.name)
        if self.known is None:
            if self.filter.matches(found):
                self._put("ADDED" if fresh else "MODIFIED", found.value)
        elif self.filter.matches(found):
            self._put("MODIFIED" if name in self.known else "ADDED", found.value)
            self.known.add(name)
        elif name in self.known:
            self.known.discard(name)
            self._put("DELETED", found.value)

    def hide(self, key: Key, last: bytes) -> None:
        """The object is gone."""
        if self.known is None:
            if self.filter.namespace in ("", key.namespace):
                self._put("DELETED", last)
            return
        name = (key.namespace, key.name)
        if name in self.known:
            self.known.discard(name)
            self._put("DELETED", last)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            while self.queue.full():
                self.queue.get_nowait()
            self.queue.put_nowait(None)

    def _put(self, kind: str, value: bytes) -> None:
        if self.closed:
            return
        if self.queue.full():
            log.info("A watch of %s reads too slowly and is ended", self.filter.gvr)
            self.close()
            return
        self.queue.put_nowait(objects.event(kind, value))


class Mirror:
    """See the module.  `load` once, then `run` beside it."""

    def __init__(self, store: Store) -> None:
        self.history = History()
        self.refused = 0
        """Objects not kept since there is no room."""
        self._store = store
        self._lock = asyncio.Lock()
        self._asked: dict[str, tuple[int, int]] = {}  # note key → (version, bytes)
        self._bytes = 0
        self._held: dict[
            str, set[tuple[str, str]]
        ] = {}  # wire kind → names, once somebody asked for the kind
        self._overlay: dict[Key, Object | None] = {}  # None: deleted here
        self.live: Callable[[str], bytes | None] = lambda uid: None
        """The status (JSON) of the pod of that UID, by the node itself; None while the cloud's is to be shown."""
        self._reported: dict[str, int] = {}  # UID of a pod → the version of what was shown of it last
        self._watches: set[Watch] = set()
        self._signals: asyncio.Queue[HeldChange] = asyncio.Queue(MAX_SIGNALS)

    async def load(self) -> None:
        """Take over what an earlier process kept.  Raises Unavailable (the disk)."""
        for key, value in (await self._store.notes(PREFIX)).items():
            gvr = _gvr_of(key)
            try:
                found = objects.read(value, gvr)
            except ProtocolError as error:
                log.warning("Cannot use what is kept as %s: %s", key, error)
                continue
            if found is not None:
                self._count(key, found.version, len(value))
                self.history.version = max(self.history.version, found.version)
        self._store.subscribe(self._on_held)

    def _on_held(self, change: HeldChange) -> None:
        try:
            self._signals.put_nowait(change)
        except asyncio.QueueFull:
            # whoever watches has to list again: something was missed
            log.warning("Too many changes at once: all watches are ended")
            for watch in list(self._watches):
                watch.close()

    async def run(self) -> None:
        """Tell watches of what the node holds.  Never returns."""
        while True:
            change = await self._signals.get()
            row = kinds.by_wire(change.kind)
            if row is None or not change.name:
                continue
            gvr = Gvr(row.group, row.version, row.plural)
            try:
                async with self._lock:
                    await self._look(gvr, change)
            except Unavailable as error:
                log.warning("Cannot look at %s %s: %s", change.kind, change.name, error)

    async def _look(self, gvr: Gvr, change: HeldChange) -> None:
        key = Key(str(gvr), change.namespace, change.name)
        note = _note_key(gvr, change.namespace, change.name)
        if change.gone and note in self._asked:
            asked = await self._asked_one(gvr, note)
            if asked is not None and change.uid and asked.uid == change.uid:
                await self._write({note: None})
        found = await self._get(gvr, change.namespace, change.name)
        names = self._held.get(change.kind)
        name = (change.namespace, change.name)
        if found is not None:
            fresh = names is not None and name not in names and note not in self._asked
            if names is not None:
                names.add(name)
            self._show(key, found, fresh=fresh)
        else:
            if names is not None:
                names.discard(name)
            last = objects.tombstone(gvr, change.namespace, change.name, change.uid, self.history.version)
            self._hide(key, change.uid, last)

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, gvr: Gvr, namespace: str, name: str) -> Object | None:
        """Raises Unavailable (the disk)."""
        async with self._lock:
            return await self._get(gvr, namespace, name)

    async def select(self, wanted: Filter) -> tuple[list[Object], int]:
        """What matches, by name, and the version to watch from.  Raises Unavailable (the disk)."""
        async with self._lock:
            found = await self._list(wanted)
            return found, self._told(max((item.version for item in found), default=0))

    def told(self, version: int) -> None:
        """A client was told this version now, by a list that came from the cloud and was learned."""
        self.history.mark(version)

    def _told(self, version: int) -> int:
        version = max(1, version, self.history.version)  # 0 means "any" to a client
        self.history.mark(version)
        return version

    @property
    def watches(self) -> int:
        return len(self._watches)

    async def watch(self, wanted: Filter, version: int | None, *, initial: bool = False) -> Watch:
        """Begin a watch: with everything that there is (`version` None), or with what happened after `version`.

        initial: end what there is by a bookmark that says so.  Raises TooOld, Unavailable (the disk)."""
        async with self._lock:
            seq = None
            if version is not None:
                seq = self.history.since(version)
                if seq is None:
                    raise TooOld(max(1, self.history.version))
            watch = Watch(wanted, set(), asyncio.Queue())
            if seq is None:
                for item in await self._list(wanted):
                    watch.show(item)
                if initial:
                    watch.queue.put_nowait(objects.bookmark(wanted.gvr, self._told(0), initial_end=True))
            elif wanted.narrow:
                watch.known = {(item.namespace, item.name) for item in await self._list(wanted)}
                await self._replay(watch, seq)
            else:
                watch.known = None
                for wire in wanted.gvr.wires - self._held.keys():
                    self._know_held(wire, await self._store.held(wire), whole=True)
                await self._replay(watch, seq)
            # the first events are as many as there are objects; only what comes later is bounded
            bounded: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED + watch.queue.qsize())
            while not watch.queue.empty():
                bounded.put_nowait(watch.queue.get_nowait())
            watch.queue = bounded
            self._watches.add(watch)
            return watch

    def unwatch(self, watch: Watch) -> None:
        self._watches.discard(watch)
        watch.closed = True

    async def _replay(self, watch: Watch, seq: int) -> None:
        wanted = watch.filter
        for change in self.history.touched(str(wanted.gvr), wanted.namespace, seq):
            name = (change.key.namespace, change.key.name)
            found = None if change.gone else await self._get(wanted.gvr, *name)
            if found is not None:
                if watch.known is not None and change.fresh:
                    watch.known.discard(name)
                elif watch.known is not None and not wanted.matches(found):
                    watch.known.add(name)  # it may have matched before: then it has to be taken away
                watch.show(found, fresh=change.fresh)
            else:
                if watch.known is not None:
                    watch.known.add(name)
                last = change.tombstone or objects.tombstone(wanted.gvr, *name, change.uid, change.version)
                watch.hide(change.key, last)

    def bookmark(self, gvr: Gvr) -> bytes:
        """How far all watches have come."""
        return objects.bookmark(gvr, self._told(0))

    async def _get(self, gvr: Gvr, namespace: str, name: str) -> Object | None:
        key = Key(str(gvr), namespace, name)
        if key in self._overlay:
            return self._overlay[key]
        best: Object | None = None
        for wire in gvr.wires:
            held = await self._store.held_one(wire, namespace, name)
            found = _read_held(held, gvr) if held is not None else None
            if found is not None and found.newer_than(best):
                best = found
        asked = await self._asked_one(gvr, _note_key(gvr, namespace, name))
        if asked is not None and asked.newer_than(best):
            best = asked
        return self._lively(gvr, best) if best is not None else None

    def _lively(self, gvr: Gvr, found: Object) -> Object:
        """A pod with the status that the node itself knows, where that counts."""
        status = self.live(found.uid) if gvr == PODS else None
        if status is None:
            return found
        try:
            return objects.with_status(found, status, self._reported.get(found.uid, 0))
        except ProtocolError as error:
            log.warning("Cannot show how a pod is: %s", error)
            return found

    async def _asked_one(self, gvr: Gvr, note: str) -> Object | None:
        if note not in self._asked:
            return None
        value = await self._store.note(note)
        return objects.read(value, gvr) if value is not None else None

    async def _list(self, wanted: Filter) -> list[Object]:
        gvr = wanted.gvr
        found: dict[tuple[str, str], Object] = {}
        for wire in gvr.wires:
            every = await self._store.held(wire, wanted.namespace)
            self._know_held(wire, every, whole=not wanted.namespace)
            for held in every:
                item = _read_held(held, gvr)
                if item is not None and item.newer_than(found.get((item.namespace, item.name))):
                    found[item.namespace, item.name] = item
        for value in (await self._store.notes(_scope_prefix(gvr, wanted.namespace))).values():
            item = objects.read(value, gvr)
            if item is not None and item.newer_than(found.get((item.namespace, item.name))):
                found[item.namespace, item.name] = item
        if gvr == PODS:
            found = {where: self._lively(gvr, pod) for where, pod in found.items()}
        for key, item in self._overlay.items():
            if key.resource == str(gvr) and wanted.namespace in ("", key.namespace):
                if item is not None:
                    found[key.namespace, key.name] = item
                else:
                    found.pop((key.namespace, key.name), None)
        return [found[name] for name in sorted(found) if wanted.matches(found[name])]

    def _know_held(self, wire: str, every: list[Held], *, whole: bool) -> None:
        names = {(held.namespace, held.name) for held in every}
        if whole:
            self._held[wire] = names
        elif wire in self._held:
            self._held[wire] |= names

    # -- pods of this node ---------------------------------------------------------------------------------------

    async def reported(self, namespace: str, name: str, uid: str) -> None:
        """A pod here has another status.  While the cloud is away, watches hear of it.  Raises Unavailable (the disk)."""
        async with self._lock:
            if self.live(uid) is None:
                self._reported.pop(uid, None)  # the cloud is told, and tells everybody
                return
            found = await self._get(PODS, namespace, name)
            if found is None or found.uid != uid:
                return
            self._reported[uid] = max(self.history.version, found.version) + 1
            found = self._lively(PODS, found)
            self._turn(PODS, Key(str(PODS), namespace, name), found, found)

    def over(self, uid: str) -> None:
        """A pod is here no more."""
        self._reported.pop(uid, None)

    # -- what waits for the cloud --------------------------------------------------------------------------------

    async def overlay(self, gvr: Gvr, namespace: str, name: str, found: Object | None) -> None:
        """Show this instead of what the cloud says, None for nothing, until `settle`.  Raises Unavailable (the disk)."""
        async with self._lock:
            key = Key(str(gvr), namespace, name)
            before = await self._get(gvr, namespace, name)
            self._overlay[key] = found
            self._turn(gvr, key, before, found)

    async def settle(self, gvr: Gvr, namespace: str, name: str) -> None:
        """Show what the cloud says again.  Raises Unavailable (the disk)."""
        async with self._lock:
            key = Key(str(gvr), namespace, name)
            if key not in self._overlay:
                return
            before = self._overlay.pop(key)
            try:
                found = await self._get(gvr, namespace, name)
            except Unavailable:
                self._overlay[key] = before
                raise
            self._turn(gvr, key, before, found)

    def _turn(self, gvr: Gvr, key: Key, before: Object | None, found: Object | None) -> None:
        """Tell of a change whose versions say nothing: this node's and the cloud's are in no order."""
        if found is not None:
            self.history.add(key, uid=found.uid, version=-1, gone=False, fresh=before is None)
            self.history.mark(found.version)
            for watch in self._watching(key):
                watch.show(found, fresh=before is None)
        elif before is not None:
            last = objects.tombstone(gvr, key.namespace, key.name, before.uid, self.history.version)
            self.history.add(key, uid=before.uid, version=-1, gone=True, tombstone=last)
            for watch in self._watching(key):
                watch.hide(key, last)

    # -- learning ------------------------------------------------------------------------------------------------

    async def learn(self, gvr: Gvr, found: Iterable[Object], *, within: Filter | None = None) -> None:
        """Keep what the cloud answered or pushed.  `within`: `found` is all that this selects, so what else was kept of it is
        gone.  Raises Unavailable (the disk): nothing was kept then."""
        async with self._lock:
            await self._learn(gvr, list(found), within)

    async def forget(self, gvr: Gvr, namespace: str, name: str, uid: str = "", last: bytes = b"") -> None:
        """The cloud says that the object is gone.  `uid`: only that one.  Raises Unavailable (the disk)."""
        async with self._lock:
            note = _note_key(gvr, namespace, name)
            asked = await self._asked_one(gvr, note)
            if asked is None or (uid and asked.uid != uid):
                return
            await self._write({note: None})
            await self._gone(gvr, asked, last)

    async def _learn(self, gvr: Gvr, found: list[Object], within: Filter | None) -> None:
        namespaces = {item.namespace for item in found}
        held: dict[tuple[str, str], Held] = {}
        for wire in gvr.wires:
            for one in await self._store.held(wire, namespaces.pop() if len(namespaces) == 1 else ""):
                held[one.namespace, one.name] = one
        changes: dict[str, bytes | None] = {}
        news: list[tuple[Object, bool]] = []
        room = MAX_BYTES - self._bytes
        places = MAX_OBJECTS - len(self._asked)
        for item in found:
            note = _note_key(gvr, item.namespace, item.name)
            kept = self._asked.get(note)
            same = held.get((item.namespace, item.name))
            if (kept is not None and kept[0] >= item.version) or (
                same is not None and same.version >= item.version
            ):
                continue
            news.append((item, kept is None and same is None))
            growth = len(item.value) - (kept[1] if kept else 0)
            if growth > room or (kept is None and places <= 0):
                self.refused += 1
                if kept is not None:
                    changes[note] = None  # what is kept is old now
                continue
            room -= growth
            places -= kept is None
            changes[note] = item.value
        gone = await self._missing(gvr, found, within) if within is not None else []
        for item in gone:
            changes[_note_key(gvr, item.namespace, item.name)] = None
        await self._write(changes, {_note_key(gvr, i.namespace, i.name): i.version for i, _ in news})
        for item in gone:
            await self._gone(gvr, item, b"")
        for item, fresh in news:
            self._show(Key(str(gvr), item.namespace, item.name), item, fresh=fresh)

    async def _missing(self, gvr: Gvr, found: list[Object], within: Filter) -> list[Object]:
        """What is kept within the filter although the cloud's list has it no more."""
        there = {_note_key(gvr, item.namespace, item.name) for item in found}
        prefix = _scope_prefix(gvr, within.namespace)
        out = []
        for note in [key for key in self._asked if key.startswith(prefix) and key not in there]:
            item = await self._asked_one(gvr, note)
            if item is not None and within.matches(item):
                out.append(item)
        return out

    async def _gone(self, gvr: Gvr, item: Object, last: bytes) -> None:
        key = Key(str(gvr), item.namespace, item.name)
        still = await self._get(gvr, item.namespace, item.name)
        if still is not None and still.uid == item.uid:
            return  # the node holds it: whoever gave it will also say that it is gone
        if still is not None:
            self._show(key, still, fresh=False)
        else:
            self._hide(key, item.uid, last or item.value, item.version)

    async def _write(self, notes: dict[str, bytes | None], versions: dict[str, int] | None = None) -> None:
        if not notes:
            return
        await self._store.write_notes(notes)
        for key, value in notes.items():
            if value is None:
                _, size = self._asked.pop(key, (0, 0))
                self._bytes -= size
            else:
                self._count(key, (versions or {}).get(key, 0), len(value))

    def _count(self, key: str, version: int, size: int) -> None:
        _, before = self._asked.get(key, (0, 0))
        self._asked[key] = (version, size)
        self._bytes += size - before

    # -- telling -------------------------------------------------------------------------------------------------

    def _show(self, key: Key, found: Object, *, fresh: bool) -> None:
        if key in self._overlay:
            return
        if self.history.add(key, uid=found.uid, version=found.version, gone=False, fresh=fresh) is None:
            return
        for watch in self._watching(key):
            watch.show(found, fresh=fresh)

    def _hide(self, key: Key, uid: str, last: bytes, version: int = 0) -> None:
        if key in self._overlay:
            return
        if self.history.add(key, uid=uid, version=version or -1, gone=True, tombstone=last) is None:
            return
        for watch in self._watching(key):
            watch.hide(key, last)

    def _watching(self, key: Key) -> list[Watch]:
        return [watch for watch in self._watches if str(watch.filter.gvr) == key.resource]


def _read_held(held: Held, gvr: Gvr) -> Object | None:
    try:
        return objects.read(held.value, gvr)
    except ProtocolError as error:
        log.warning("Cannot show %s %s/%s: %s", held.kind, held.namespace, held.name, error)
        return None


def _scope_prefix(gvr: Gvr, namespace: str) -> str:
    return f"{PREFIX}{gvr}/{namespace}/" if namespace else f"{PREFIX}{gvr}/"


def _note_key(gvr: Gvr, namespace: str, name: str) -> str:
    return f"{PREFIX}{gvr}/{namespace or 'null'}/{name}"


def _gvr_of(note: str) -> Gvr:
    group, version, plural = note.removeprefix(PREFIX).split("/")[:3]
    return Gvr("" if group == "core" else group, version, plural)
