"""The outbox's copy on the disk: it follows what waits, with the count of what was dropped and the session's number.

Notes of a part that belong to what it reports are stored in the same transaction: a change of a pod's status is one commit,
with edged's record of that pod, and so are those of many pods at once.  Whoever comes while a commit is under way joins the
next."""

from __future__ import annotations

import asyncio

import msgspec

from beehive import clock
from beehive.errors import Unavailable
from edgecore.metamanager.line import Line
from edgecore.metamanager.outbox import Outbox
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction
from edgecore.metamanager.trouble import DiskTrouble

SAVE_S = 0.5
"""How often the copy follows."""

AGAIN_S = 5.0
"""How long a disk that refused is left alone."""

SESSION = "link.session"
DROPPED = "outbox.dropped"


class _Note:
    """What a part keeps, until it is on the disk.   value: None to have none any more."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | None) -> None:
        self.value = value


class Saver:
    def __init__(self, store: Store, outbox: Outbox, line: Line, trouble: DiskTrouble) -> None:
        self._store = store
        self._outbox = outbox
        self._line = line
        self._trouble = trouble
        self._saving = asyncio.Lock()
        self._dropped = 0  # as saved
        self._session = 0
        self._notes: dict[str, _Note] = {}

    async def load(self) -> None:
        """Take over what an earlier process left.  Call once, before anything else.  Raises: Unavailable."""
        found = await self._store.read(lambda view: view.outbox())
        self._outbox.restore(found, now_ms(), at_ms=clock.wall_ms())
        counted = await self._store.read(lambda view: view.state(DROPPED))
        if counted:
            for kind, reason, count in msgspec.json.decode(counted, type=list[tuple[str, str, int]]):
                self._outbox.dropped[kind, reason] += count
        self._dropped = self._outbox.dropped.total()
        number = await self._store.read(lambda view: view.state(SESSION))
        self._session = int(number or b"0")

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(SAVE_S)
            self._outbox.expire(now_ms())
            try:
                await self.save()
            except Unavailable as error:
                self._trouble.refused(error)
                await asyncio.sleep(AGAIN_S)

    async def keep(self, key: str, value: bytes | None) -> None:
        """Store a part's note with whatever else is to be stored, or forget it (None).  Of a key the newest counts.

        Raises: Unavailable (nothing of it is written later either)."""
        note = self._notes[key] = _Note(value)
        try:
            await self.save()
        finally:
            if self._notes.get(key) is note:
                del self._notes[key]

    async def save(self, *, everything: bool = False) -> None:
        """Bring the disk up to date.   everything: also what need not be there yet.  Raises: Unavailable."""
        async with self._saving:  # two at once would write the same rows
            await asyncio.sleep(0)  # what is said in the same moment goes with it
            notes = dict(self._notes)
            change = self._outbox.unsaved(now_ms(), everything=everything)
            dropped = self._outbox.dropped.total()
            number = self._line.session.number if self._line.session is not None else self._session
            if not change and not notes and dropped == self._dropped and number == self._session:
                return
            counted = [
                (kind, reason, count) for (kind, reason), count in sorted(self._outbox.dropped.items())
            ]
            encoded = msgspec.json.encode(counted)

            def work(tx: Transaction) -> None:
                tx.drop_pending(change.drops)
                for pending in change.puts:
                    tx.put_pending(pending)
                for key, note in notes.items():
                    tx.drop_state(key) if note.value is None else tx.set_state(key, note.value)
                if dropped != self._dropped:
                    tx.set_state(DROPPED, encoded)
                if number != self._session:
                    tx.set_state(SESSION, b"%d" % number)

            await self._store.write(work)
            self._trouble.took()
            self._outbox.saved(change, now_ms())
            for key, note in notes.items():
                if self._notes.get(key) is note:
                    del self._notes[key]
            self._dropped = dropped
            self._session = number


def now_ms() -> int:
    """By the clock that does not jump."""
    return int(clock.monotonic() * 1000)
