"""The edge's durable memory: one SQLite file, one writer that commits in groups, readers that never wait for it.

What came from the cloud, what has to go to the cloud, and what parts want to find again.  It does not decide anything: the
rules are in `process` and `outbox`.

Theory of operation.  The file is in WAL mode with synchronous=FULL: a commit is one fsync and survives a power cut.  Work is a
function on a `Transaction`; the writer thread runs all work that has piled up inside one transaction and only then tells
the callers, so that a burst shares its fsyncs and a caller that was told may acknowledge.  Work sees what work before it
wrote, and work that raises leaves nothing behind and disturbs nobody.  A second connection in a second thread serves reads.

What the rows are `tables` says, and how secrets in them are sealed.  At start the file is checked; what is damaged is set
aside (`damage`), and what is of an earlier edgecore is brought up to date (`upgrade`).  After damage the store counts as
incomplete until somebody calls `confirm_complete`: nothing that is merely absent from it may be destroyed.

Errors: a disk that is full, read-only or failing is `Unavailable` for the work of that group and everything may be tried again;
damage found later ends `run` with StoreDamaged, and the next start repairs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from beehive.errors import Unavailable
from beehive.watchdog import Vital
from edgecore.errors import SchemaTooNew, StoreDamaged, StoreError
from edgecore.metamanager import damage, keyfile, migrations, upgrade
from edgecore.metamanager.keyfile import StoreKey
from edgecore.metamanager.reserve import Reserve
from edgecore.metamanager.sealing import Sealer
from edgecore.metamanager.sqlitefile import DAMAGE_CODES, connect, header_level, hold, level, mark
from edgecore.metamanager.tables import COMPLETE, OBJECT, Transaction, View

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_GROUP = 512
"""Works in one transaction: what 64 frames in flight and every part of the daemon can ask for at once, and to spare."""

MAX_QUEUED = 4096
"""Works waiting for the writer; beyond, callers are told Unavailable.  A disk that stands still must not fill memory."""

RESERVE_S = 60.0
"""How often it is looked whether the reserve is there."""

STANDS_S = 300.0
"""How long the writer may be at one group before the daemon is ended: seconds for each of a few syncs are a bad card, minutes
are none."""


class Counters(msgspec.Struct):
    """For status and benches; they only grow."""

    commits: int = 0
    works: int = 0
    failures: int = 0
    damaged_rows: int = 0
    written: Counter[str] = msgspec.field(default_factory=Counter)
    """Bytes that were given to be stored, by what they are: a type of object, a part's notes, a kind of report.  The disk
    takes a few pages for each commit beside them."""
    locked: int = 0
    """Rows that were sealed with a key that is not here; not counted as damage, for nothing is concluded from their absence."""


class _Job(msgspec.Struct, frozen=True):
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
        self._writer = connect(path)
        self._reader = connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self.counters.damaged_rows = damage.drop_rows(self._writer, self._sealer)
        found = View(self._writer, self._sealer, lambda what: None).state(COMPLETE)
        self._complete = found is not None and not self.counters.damaged_rows
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
            await self.write(lambda tx: tx.set_state(COMPLETE, b"1"))
            self._complete = True

    async def drop_damaged(self) -> None:
        """Forget what was found damaged, so that the cloud hears that it is not here.  Raises: Unavailable."""
        keys = list(self.damaged)

        def work(tx: Transaction) -> None:
            for key in keys:
                if tx.get(key) is None:
                    tx.delete(key)
            tx.drop_state(COMPLETE)

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
        if code in DAMAGE_CODES:
            fault = StoreDamaged(f"cannot {verb} {self.path}: {error}; it is set aside at the next start")
            with contextlib.suppress(OSError):  # without the mark the check at start has to find it
                mark(self.path).touch(mode=0o600)
            if not self._fault.done():
                self._fault.set_exception(fault)
            return Unavailable(str(fault))
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError | sqlite3.InterfaceError):
            return error  # our bug, not the disk's
        return Unavailable(f"cannot {verb} {self.path}: {error}")

    def _row_damaged(self, what: str) -> None:
        self.counters.damaged_rows += 1
        self._complete = False
        if what.startswith(OBJECT):
            self.damaged.add(what.removeprefix(OBJECT))
        log.error("Damaged in the store, ignored until the cloud sends it again: %s", what)

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


def _prepare(path: Path, sealer: Sealer) -> Path | None:
    """Leave a sound file of the latest shape at `path`.  Returns where a damaged one was put, if there was one."""
    set_aside = None
    if path.exists() and not damage.is_sound(path):
        set_aside = damage.set_aside(path)
    if not path.exists():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror}") from error
    found = level(path)
    if 0 < found < migrations.SEALED:
        upgrade.seal_in_place(path, sealer)
    if found < migrations.LATEST:
        upgrade.migrate_in_child(path)
    if set_aside:
        carried = damage.carry_over(set_aside, path, sealer)
        if 0 < header_level(set_aside) < migrations.SEALED:
            damage.remove(set_aside)  # whoever looks at it would find secrets
        log.error("The store was damaged and is now %s; %d sound rows were carried over", set_aside, carried)
    return set_aside
