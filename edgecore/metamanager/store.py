"""The edge's durable memory: one SQLite file, one writer that commits in groups, readers that never wait for it.

What came from the cloud, what has to go to the cloud, and what parts want to find again.  It does not decide anything: the
rules are in `process` and `outbox`.

Theory of operation.  The file is in WAL mode with synchronous=FULL: a commit is one fsync and survives a power cut.  Work is a
function on a `Transaction`; the writer thread runs all work that has piled up inside one transaction and only then tells
the callers, so that a burst shares its fsyncs and a caller that was told may acknowledge.  Work sees what work before it
wrote, and work that raises leaves nothing behind and disturbs nobody.  A second connection in a second thread serves reads.

Values of Secrets, tokens and what applications asked for are sealed (`sealing`) before they are written: neither the file, its
log nor free pages ever hold them.  What was sealed with a key that is lost counts as absent and is sent again by the cloud; no
pod is judged by it, since pods are not sealed.

Every row has a checksum over all its columns.  At start the file is checked; a damaged file is set aside under a dated name,
and rows that are whole are carried over to a fresh one.  The store then counts as incomplete until somebody calls
`confirm_complete`: nothing that is merely absent from it may be destroyed.

Errors: a disk that is full, read-only or failing is `Unavailable` for the work of that group and everything may be tried again;
damage found later ends `run` with StoreDamaged, and the next start repairs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from beehive import clock
from beehive.errors import Unavailable
from beehive.watchdog import Vital
from edgecore.errors import AlreadyRunning, SchemaTooNew, StoreDamaged, StoreError
from edgecore.metamanager import keyfile, migrations, sealing
from edgecore.metamanager.keyfile import StoreKey
from edgecore.metamanager.records import Pending, Row, note_checksum
from edgecore.metamanager.reserve import Reserve
from edgecore.metamanager.sealing import Sealer

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_GROUP = 512
"""Works in one transaction: what 64 frames in flight and every part of the daemon can ask for at once, and to spare."""

MAX_QUEUED = 4096
"""Works waiting for the writer; beyond, callers are told Unavailable.  A disk that stands still must not fill memory."""

KEPT_DAMAGED = 3
"""Set-aside files kept for whoever wants to look; older ones go, since the disk is small."""

RESERVE_S = 60.0
"""How often it is looked whether the reserve is there."""

STANDS_S = 300.0
"""How long the writer may be at one group before the daemon is ended: seconds for each of a few syncs are a bad card, minutes
are none."""

_CACHE_KIB = 1024
_WAL_LIMIT_BYTES = 4 * 1024 * 1024
_COMPLETE = "store.complete"
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


_LAST = "\U0010ffff"
_OBJECT = "object "
_META = "key, type, namespace, name, uid, version, value, checksum"
_OUTBOX = "seq, key, kind, at_ms, message, checksum"


class View:
    """Reads of one connection.  A row whose checksum is wrong is treated as absent and reported to `on_damage`; one that was
    sealed with another key is treated as absent."""

    def __init__(self, db: sqlite3.Connection, sealer: Sealer, on_damage: Callable[[str], None]) -> None:
        self._db = db
        self._sealer = sealer
        self._on_damage = on_damage

    def get(self, key: str) -> Row | None:
        """The object at this path, or None."""
        found = self._db.execute(f"SELECT {_META} FROM meta WHERE key = ?", (key,)).fetchone()
        return self._row(found) if found else None

    def all_of(self, kind: str, namespace: str = "") -> list[Row]:
        """All objects of a type, in one namespace or all, by key."""
        where, arguments = "type = ?", [kind]
        if namespace:
            where, arguments = "type = ? AND namespace = ?", [kind, namespace]
        found = self._db.execute(f"SELECT {_META} FROM meta WHERE {where} ORDER BY key", arguments)
        return [row for row in map(self._row, found) if row]

    def held(self) -> list[tuple[str, str, int]]:
        """(uid, key, version) of every object that has a UID and can be opened."""
        locked = set(self._locked_objects())
        found = self._db.execute("SELECT uid, key, version FROM meta WHERE uid != '' ORDER BY key")
        return [held for held in found if held[1] not in locked]

    def locked(self) -> list[tuple[str, str]]:
        """(table, key) of what was sealed with another key."""
        return [("meta", key) for key in self._locked_objects()] + [
            ("state", key) for key in self._locked_notes()
        ]

    def _locked_objects(self) -> Iterator[str]:
        for kind in sealing.SEALED_TYPES:
            yield from self._locked_of("meta WHERE type = ?", kind)

    def _locked_notes(self) -> Iterator[str]:
        for prefix in sealing.SEALED_NOTES:
            yield from self._locked_of("state WHERE key >= ? AND key < ?", prefix, prefix + _LAST)

    def _locked_of(self, which: str, *arguments: str) -> Iterator[str]:
        ours = self._sealer.prefix
        for key, head in self._db.execute(
            f"SELECT key, substr(value, 1, {len(ours)}) FROM {which}", arguments
        ):
            if isinstance(head, bytes) and sealing.is_sealed(head) and head != ours:
                yield key

    def state(self, key: str) -> bytes | None:
        """A part's note, or None."""
        found = self._db.execute("SELECT value, checksum FROM state WHERE key = ?", (key,)).fetchone()
        return self._note(key, found) if found else None

    def states(self, prefix: str) -> dict[str, bytes]:
        """All notes whose key begins with `prefix`."""
        found = self._db.execute(
            "SELECT key, value, checksum FROM state WHERE key >= ? AND key < ? ORDER BY key",
            (prefix, prefix + _LAST),
        )
        notes = {key: self._note(key, (value, checksum)) for key, value, checksum in found}
        return {key: value for key, value in notes.items() if value is not None}

    def outbox(self) -> list[Pending]:
        """Frames not yet acknowledged, oldest first."""
        found = self._db.execute(f"SELECT {_OUTBOX} FROM outbox ORDER BY seq")
        return [pending for pending in map(self._pending, found) if pending]

    def _row(self, found: tuple[Any, ...]) -> Row | None:
        row = self._sound_row(found)
        if row is None or not sealing.is_sealed(row.value):
            return row
        value = self._opened(f"object {row.key}", row.head, row.value)
        return replace(row, value=value) if value is not None else None

    def _opened(self, what: str, head: str, value: bytes) -> bytes | None:
        opened = self._sealer.open(head, value)
        if opened is None and self._sealer.opens(value):
            self._on_damage(what)
        return opened

    def _sound_row(self, found: tuple[Any, ...]) -> Row | None:
        """The row as it is stored, if its checksum holds."""
        key, kind, namespace, name, uid, version, value, checksum = found
        with contextlib.suppress(
            TypeError, AttributeError, ValueError
        ):  # a flipped bit can change a column's type
            row = Row(
                key=key, type=kind, namespace=namespace, name=name, uid=uid, version=version, value=value
            )
            if row.checksum == checksum:
                return row
        self._on_damage(f"{_OBJECT}{key}")
        return None

    def _pending(self, found: tuple[Any, ...]) -> Pending | None:
        seq, key, kind, at_ms, message, checksum = found
        with contextlib.suppress(TypeError, AttributeError, ValueError):
            pending = Pending(seq=seq, key=key, kind=kind, at_ms=at_ms, message=message)
            if pending.checksum == checksum:
                return pending
        self._on_damage(f"report {key}")
        return None

    def _note(self, key: str, found: tuple[Any, ...]) -> bytes | None:
        value = self._sound_note(key, found)
        if value is None or not sealing.is_sealed(value):
            return value
        return self._opened(f"note {key}", key, value)

    def _sound_note(self, key: str, found: tuple[Any, ...]) -> bytes | None:
        """The note as it is stored, if its checksum holds."""
        value, checksum = found
        with contextlib.suppress(TypeError, AttributeError):
            if note_checksum(key, value) == checksum:
                return bytes(value)
        self._on_damage(f"note {key}")
        return None


class Transaction(View):
    """Reads and writes of one group; whatever is written is durable when the caller is told.

    written: what is counted of it, bytes by kind."""

    def __init__(
        self,
        db: sqlite3.Connection,
        sealer: Sealer,
        on_damage: Callable[[str], None],
        written: Counter[str] | None = None,
    ) -> None:
        super().__init__(db, sealer, on_damage)
        self._written = Counter[str]() if written is None else written

    def put(self, row: Row) -> None:
        self._written[row.type] += len(row.value)
        if row.type in sealing.SEALED_TYPES and not sealing.is_sealed(row.value):
            row = replace(row, value=self._sealer.seal(row.head, row.value))
        self._db.execute(
            f"INSERT OR REPLACE INTO meta ({_META}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row.key, row.type, row.namespace, row.name, row.uid, row.version, row.value, row.checksum),
        )

    def delete(self, key: str) -> None:
        self._db.execute("DELETE FROM meta WHERE key = ?", (key,))

    def set_state(self, key: str, value: bytes) -> None:
        self._written[key.partition("/")[0]] += len(value)
        if key.startswith(sealing.SEALED_NOTES) and not sealing.is_sealed(value):
            value = self._sealer.seal(key, value)
        self._db.execute(
            "INSERT OR REPLACE INTO state (key, value, checksum) VALUES (?, ?, ?)",
            (key, value, note_checksum(key, value)),
        )

    def drop_state(self, key: str) -> None:
        self._db.execute("DELETE FROM state WHERE key = ?", (key,))

    def put_pending(self, pending: Pending) -> None:
        """Store a frame; an older one of the same key goes."""
        self._written[f"report {pending.kind}"] += len(pending.message)
        self._db.execute(
            f"INSERT OR REPLACE INTO outbox ({_OUTBOX}) VALUES (?, ?, ?, ?, ?, ?)",
            (pending.seq, pending.key, pending.kind, pending.at_ms, pending.message, pending.checksum),
        )

    def drop_pending(self, seqs: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])


@dataclass(slots=True)
class Counters:
    """For status and benches; they only grow."""

    commits: int = 0
    works: int = 0
    failures: int = 0
    damaged_rows: int = 0
    written: Counter[str] = field(default_factory=Counter)
    """Bytes that were given to be stored, by what they are: a type of object, a part's notes, a kind of report.  The disk
    takes a few pages for each commit beside them."""
    locked: int = 0
    """Rows that were sealed with a key that is not here; not counted as damage, for nothing is concluded from their absence."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Any], Any]
    done: Future[Any]


class Store:
    """Open with `Store.open`; use from one event loop; `close` when nothing more is submitted."""

    def __init__(self, path: Path, lock: int, *, key: StoreKey, set_aside: Path | None) -> None:
        self.path = path
        self.key_source, self.key_fault = key.source, key.fault
        """Where the key is from that secrets are sealed with, and what is wrong with it, for people."""
        self.counters = Counters()
        self._sealer = Sealer(key.secret)
        self.damaged: set[str] = set()
        """Keys of objects that were found damaged while this ran, until `drop_damaged`."""
        self.set_aside = set_aside
        """Where a damaged file was put at this start, or None."""
        self._lock = lock
        self._reserve = Reserve(path)
        self._fault: Future[None] = Future()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._groups = 0
        self._writing = False
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._complete = self._drop_damaged_rows()
        self._count_locked()

    @classmethod
    def open(cls, path: Path, key_file: Path | None = None) -> Store:
        """Lock, check, repair and upgrade the file, then start the threads.  Blocks; call it before the loop runs.

        key_file: what secrets are sealed with, if the operator keeps it (`keyfile`).
        Raises: AlreadyRunning, SchemaTooNew, StoreError (cannot be made or upgraded)."""
        lock = hold(path)
        try:
            key = keyfile.find(path, key_file)
            try:
                store = cls._opened(path, lock, key)
            except SchemaTooNew:
                raise
            except StoreError:
                if not Reserve(path).give():
                    raise
                store = cls._opened(path, lock, key)
        except BaseException:
            os.close(lock)
            raise
        for target, name in ((store._write_loop, "store-writer"), (store._read_loop, "store-reader")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            store._threads.append(thread)
        return store

    @classmethod
    def _opened(cls, path: Path, lock: int, key: StoreKey) -> Store:
        """Raises: StoreError."""
        try:
            return cls(path, lock, key=key, set_aside=_prepare(path, Sealer(key.secret)))
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}; is its disk full or failing?") from error

    @property
    def complete(self) -> bool:
        """Whether what is absent here is known to be unwanted.  False after damage and in a fresh file."""
        return self._complete

    async def confirm_complete(self) -> None:
        """Everything the cloud wants here has arrived since the store was made or damaged."""
        if not self._complete:
            await self.write(lambda tx: tx.set_state(_COMPLETE, b"1"))
            self._complete = True

    async def drop_damaged(self) -> None:
        """Forget what was found damaged, so that the cloud hears that it is not here.  Raises: Unavailable."""
        keys = list(self.damaged)

        def work(tx: Transaction) -> None:
            for key in keys:
                if tx.get(key) is None:
                    tx.delete(key)
            tx.drop_state(_COMPLETE)

        await self.write(work)
        self.damaged.difference_update(keys)

    async def drop_locked(self) -> None:
        """The cloud has sent all it wants here: what a lost key sealed is of no more use.  Raises: Unavailable."""

        def work(tx: Transaction) -> None:
            for table, key in tx.locked():
                tx.delete(key) if table == "meta" else tx.drop_state(key)

        await self.write(work)
        self.counters.locked = 0

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in the writer's next transaction; returns when it is durable.

        `work` runs in another thread: it may use only its transaction and values that nobody changes meanwhile.  If
        the caller is cancelled the work may still happen.
        Raises: Unavailable (nothing was written, may be tried again), and what `work` raises."""
        if self._jobs.qsize() > MAX_QUEUED:
            raise Unavailable("cannot write to the store: the disk does not keep up")
        return await self._submit(self._jobs, work)

    async def read(self, work: Callable[[View], T]) -> T:
        """Run `work` on the reader's connection: sees what is committed, never waits for a write.

        Raises: Unavailable, and what `work` raises."""
        return await self._submit(self._reads, work)

    def vital(self) -> Vital:
        """That the writer goes on, for the watchdog."""

        def pulse() -> int | None:
            return self._groups if self._writing or not self._jobs.empty() else None

        return Vital(name="store's writer", pulse=pulse, limit_s=STANDS_S, excused=self._waits_for_disk)

    def _waits_for_disk(self) -> bool:
        """Whether the kernel holds the writer's thread: then a new process could not get at the file either."""
        try:
            stat = Path(f"/proc/self/task/{self._threads[0].native_id}/stat").read_text()
        except (OSError, IndexError):
            return False
        return stat.rpartition(")")[2].split()[:1] == ["D"]

    async def run(self) -> None:
        """Wait for damage.  Raises: StoreDamaged."""
        fault = asyncio.wrap_future(self._fault)
        while not fault.done():
            await asyncio.to_thread(self._reserve.keep)
            await asyncio.wait([fault], timeout=RESERVE_S)
        await fault

    def close(self) -> None:
        """Finish what was submitted, then close the file and give up the lock."""
        self._jobs.put(None)
        self._reads.put(None)
        for thread in self._threads:
            thread.join()
        for db in (self._reader, self._writer):
            with contextlib.suppress(sqlite3.Error):  # what was committed is durable whatever the close says
                db.close()
        os.close(self._lock)

    # the threads

    async def _submit(self, jobs: queue.SimpleQueue[_Job | None], work: Callable[[Any], T]) -> T:
        done: Future[T] = Future()
        jobs.put(_Job(work, done))
        return await asyncio.wrap_future(done)

    def _write_loop(self) -> None:
        transaction = Transaction(self._writer, self._sealer, self._row_damaged, self.counters.written)
        while (job := self._jobs.get()) is not None:
            group = [job]
            last = False
            while len(group) < MAX_GROUP and not self._jobs.empty():
                more = self._jobs.get()
                if more is None:
                    last = True
                    break
                group.append(more)
            self._groups += 1
            self._writing = True
            self._commit(group, transaction)
            self._writing = False
            if last:
                return

    def _commit(self, group: list[_Job], transaction: Transaction) -> None:
        """One transaction for the whole group; every future gets its answer."""
        db = self._writer
        answers: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in group:
                db.execute("SAVEPOINT work")
                try:
                    answers.append((job, job.work(transaction), None))
                except sqlite3.Error:
                    raise
                except Exception as error:  # the work's own fault: it alone hears of it
                    db.execute("ROLLBACK TO work")
                    answers.append((job, None, error))
                db.execute("RELEASE work")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self.counters.failures += 1
            with contextlib.suppress(sqlite3.Error):  # the failed statement may have rolled back already
                db.execute("ROLLBACK")
            wanted = self._unavailable("write to", error)
            answers = [(job, None, wanted) for job in group]
        else:
            self.counters.commits += 1
            self.counters.works += len(group)
        for job, answer, failure in answers:
            _resolve(job.done, answer, failure)

    def _read_loop(self) -> None:
        view = View(self._reader, self._sealer, self._row_damaged)
        while (job := self._reads.get()) is not None:
            try:
                answer = job.work(view)
            except sqlite3.Error as error:
                _resolve(job.done, None, self._unavailable("read", error))
            except Exception as error:  # the caller's fault: it hears of it
                _resolve(job.done, None, error)
            else:
                _resolve(job.done, answer, None)

    def _unavailable(self, verb: str, error: sqlite3.Error) -> BaseException:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE_CODES:
            fault = StoreDamaged(f"cannot {verb} {self.path}: {error}; it is set aside at the next start")
            with contextlib.suppress(OSError):  # without the mark the check at start has to find it
                _mark(self.path).touch(mode=0o600)
            if not self._fault.done():
                self._fault.set_exception(fault)
            return Unavailable(str(fault))
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError | sqlite3.InterfaceError):
            return error  # our bug, not the disk's
        return Unavailable(f"cannot {verb} {self.path}: {error}")

    def _row_damaged(self, what: str) -> None:
        self.counters.damaged_rows += 1
        self._complete = False
        if what.startswith(_OBJECT):
            self.damaged.add(what.removeprefix(_OBJECT))
        log.error("Damaged in the store, ignored until the cloud sends it again: %s", what)

    def _drop_damaged_rows(self) -> bool:
        """Check every row's checksum and forget the broken ones.  Returns whether the store is complete."""
        broken: list[tuple[str, str, Any]] = []
        view = View(self._writer, self._sealer, lambda what: None)
        db = self._writer
        for found in db.execute(f"SELECT {_META} FROM meta"):
            if view._sound_row(found) is None:
                broken.append(("meta", "key", found[0]))
        for found in db.execute(f"SELECT {_OUTBOX} FROM outbox"):
            if view._pending(found) is None:
                broken.append(("outbox", "seq", found[0]))
        for key, value, checksum in db.execute("SELECT key, value, checksum FROM state"):
            if view._sound_note(key, (value, checksum)) is None:
                broken.append(("state", "key", key))
        complete = view.state(_COMPLETE) is not None
        if broken:
            db.execute("BEGIN IMMEDIATE")
            for table, column, key in broken:
                log.error("Damaged in the store, dropped: %s %s", table, key)
                db.execute(f"DELETE FROM {table} WHERE {column} IS ?", (key,))
            db.execute("DELETE FROM state WHERE key = ?", (_COMPLETE,))
            db.execute("COMMIT")
        self.counters.damaged_rows = len(broken)
        return complete and not broken

    def _count_locked(self) -> None:
        locked = View(self._writer, self._sealer, lambda what: None).locked()
        self.counters.locked = len(locked)
        if locked:
            log.error(
                "The key that %d secrets and tokens were kept with is not here (now: %s): they are asked of the cloud again",
                len(locked),
                self.key_source,
            )


def _resolve(done: Future[Any], answer: Any, failure: BaseException | None) -> None:
    if not done.set_running_or_notify_cancel():
        return  # the caller stopped waiting
    if failure is not None:
        done.set_exception(failure)
    else:
        done.set_result(answer)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA secure_delete = FAST")  # what is deleted does not stay where that costs no write
    return db


def hold(path: Path) -> int:
    """Hold the folder for this process.  The descriptor is the lock: it goes with the process, however that ends.

    Raises: AlreadyRunning, StoreError."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"cannot use {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise AlreadyRunning(f"another edgecore (process {owner}) uses {path.parent}") from error
    with contextlib.suppress(
        OSError
    ):  # only for the other one's message; a full disk must not stop the start
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def _prepare(path: Path, sealer: Sealer) -> Path | None:
    """Leave a sound file of the latest shape at `path`.  Returns where a damaged one was put, if there was one."""
    set_aside = None
    if path.exists() and not _is_sound(path):
        set_aside = _set_aside(path)
    if not path.exists():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror}") from error
    found = level(path)
    if 0 < found < migrations.SEALED:
        _seal_in_place(path, sealer)
    if found < migrations.LATEST:
        _migrate_in_child(path)
    if set_aside:
        carried = _carry_over(set_aside, path, sealer)
        if 0 < _header_level(set_aside) < migrations.SEALED:
            _remove(set_aside)  # whoever looks at it would find secrets
        log.error("The store was damaged and is now %s; %d sound rows were carried over", set_aside, carried)
    return set_aside


def level(path: Path) -> int:
    """The file's level.  Raises: SchemaTooNew, StoreError."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if found > migrations.LATEST:
        raise SchemaTooNew(
            f"{path} has schema {found} and this edgecore knows {migrations.LATEST}: install the newer edgecore again"
        )
    return found


def _is_sound(path: Path) -> bool:
    """Whether SQLite can make sense of the whole file.  Raises SchemaTooNew: such a file is left as it is."""
    if _mark(path).exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return False
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE_CODES:
            return False
        raise StoreError(f"cannot read {path}: {error}") from error
    found = level(path)
    return found < 1 or {"meta", "outbox", "state"} <= tables


def _set_aside(path: Path) -> Path:
    stamp = clock.wall().strftime("%Y%m%dT%H%M%S.%fZ")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        for suffix in ("", "-wal", "-shm"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
        _mark(path).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot set aside the damaged {path}: {error.strerror}") from error
    kept = sorted(
        found
        for found in path.parent.glob(f"{path.name}.damaged-*")
        if not found.name.endswith(("-wal", "-shm"))
    )
    # a clock that was set back makes the newest the first by name, and its rows are still to be carried over
    for old in [found for found in kept if found != target][: -KEPT_DAMAGED + 1]:
        _remove(old)
    return target


def _remove(set_aside: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        set_aside.with_name(set_aside.name + suffix).unlink(missing_ok=True)


def _header_level(path: Path) -> int:
    """The level that a file's header claims; 0 if it has none.   Source: SQLite's file format, 1.3, offset 60."""
    try:
        with path.open("rb") as file:
            header = file.read(64)
    except OSError:
        return 0
    return int.from_bytes(header[60:64], "big") if header.startswith(b"SQLite format 3\0") else 0


def _seal_in_place(path: Path, sealer: Sealer) -> None:
    """Seal what an earlier edgecore wrote plainly, and leave no copy of it in free pages or the log.

    Killed anywhere, it is done again: the level is raised only afterwards.   Raises: StoreError."""
    try:
        with contextlib.closing(_connect(path)) as db:
            db.execute("PRAGMA secure_delete = ON")
            tx = Transaction(db, sealer, lambda what: None)
            db.execute("BEGIN IMMEDIATE")
            for kind in sealing.SEALED_TYPES:
                for found in db.execute(f"SELECT {_META} FROM meta WHERE type = ?", (kind,)).fetchall():
                    row = tx._sound_row(found)
                    if row is not None:
                        tx.put(row)
                    else:
                        log.error("Damaged in the store, dropped: meta %s", found[0])
                        db.execute("DELETE FROM meta WHERE key IS ?", (found[0],))
                        tx.drop_state(_COMPLETE)
            for prefix in sealing.SEALED_NOTES:
                for key, value in tx.states(prefix).items():
                    tx.set_state(key, value)
            db.execute("COMMIT")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"cannot seal the secrets in {path}: {error}") from error
    log.info("Secrets in %s are sealed from now on", path)


def _carry_over(source: Path, target: Path, sealer: Sealer) -> int:
    """Copy the rows that can be read and whose checksums hold.  Returns how many."""
    carried = 0
    with (
        contextlib.closing(sqlite3.connect(source, isolation_level=None)) as old,
        contextlib.closing(_connect(target)) as new,
    ):
        reader, writer = View(old, sealer, lambda what: None), Transaction(new, sealer, lambda what: None)
        new.execute("BEGIN IMMEDIATE")
        for found in _readable(old, _META, "meta"):
            if row := reader._sound_row(found):
                writer.put(row)
                carried += 1
        for found in _readable(old, _OUTBOX, "outbox"):
            if pending := reader._pending(found):
                writer.put_pending(pending)
                carried += 1
        for found in _readable(old, "key, value, checksum", "state"):
            value = reader._sound_note(found[0], found[1:])
            if value is not None and found[0] != _COMPLETE:
                writer.set_state(found[0], value)
                carried += 1
        new.execute("COMMIT")
    return carried


def _readable(db: sqlite3.Connection, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows from both ends of a table up to where it breaks."""
    for order in ("ASC", "DESC"):
        try:
            yield from db.execute(f"SELECT {columns} FROM {table} NOT INDEXED ORDER BY rowid {order}")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            log.info("Reading the damaged %s stopped: %s", table, error)
        else:
            return


def _migrate_in_child(path: Path) -> None:
    """Upgrade the file in a process of its own: sqlite-utils would stay in the daemon's memory for ever."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        text = done.stderr.strip().splitlines()
        raise StoreError(f"cannot upgrade {path}: {text[-1] if text else f'exit code {done.returncode}'}")


def migrate(path: Path, steps: tuple[migrations.Step, ...] = migrations.STEPS) -> None:
    """Bring the file to the latest level, each step and its number in one transaction."""
    import sqlite_utils  # 4 MB: only in the child and in the command line

    with contextlib.closing(_connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        current = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for number in range(current, len(steps)):
            connection.execute("BEGIN IMMEDIATE")
            steps[number](db)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")


def read_offline(path: Path, kind: str) -> list[bytes]:
    """The stored objects of a type while no daemon runs, for the command line.  Raises: StoreError."""
    import sqlite_utils

    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = sqlite_utils.Database(connection)["meta"].rows_where("type = ?", [kind], order_by="key")
            return [bytes(row["value"]) for row in rows]
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def read_notes_offline(path: Path, prefix: str) -> dict[str, bytes]:
    """The notes whose key begins with `prefix`, while no daemon runs.  Raises: StoreError."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT key, value FROM state WHERE key >= ? AND key < ?", (prefix, prefix + _LAST)
            )
            return {str(key): bytes(value) for key, value in found}
    except (sqlite3.Error, TypeError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRest:
    """What a store says while no daemon runs.   waiting, bytes: reports to go up.   complete: nothing is missing."""

    objects: int
    pods: int
    waiting: int
    bytes: int
    complete: bool


def look_offline(path: Path) -> AtRest:
    """Raises: StoreError."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            one = "SELECT (SELECT count(*) FROM meta WHERE uid != ''), (SELECT count(*) FROM meta WHERE type = 'pod'), "
            one += "count(*), coalesce(sum(length(message)), 0) FROM outbox"
            objects, pods, waiting, size = db.execute(one).fetchone()
            complete = db.execute("SELECT 1 FROM state WHERE key = ?", (_COMPLETE,)).fetchone() is not None
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    return AtRest(objects=objects, pods=pods, waiting=waiting, bytes=size, complete=complete)


if __name__ == "__main__":
    migrate(Path(sys.argv[1]))
