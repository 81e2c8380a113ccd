"""The rows of the store over one SQLite connection: what is read, what is written, and whether a row is whole.

Every row has a checksum over all its columns.  Values of Secrets, tokens and what applications asked for are sealed
(`sealing`) before they are written: neither the file, its log nor free pages ever hold them.  What was sealed with a key that
is lost counts as absent and is sent again by the cloud; no pod is judged by it, since pods are not sealed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from edgecore.metamanager import sealing
from edgecore.metamanager.records import Pending, Row, note_checksum
from edgecore.metamanager.sealing import Sealer

COMPLETE = "store.complete"
"""The note that says so."""

LAST = "\U0010ffff"
"""After every key that begins as the text before it."""

OBJECT = "object "
META = "key, type, namespace, name, uid, version, value, checksum"
OUTBOX = "seq, key, kind, at_ms, message, checksum"


class View:
    """Reads of one connection.  A row whose checksum is wrong is treated as absent and reported to `on_damage`; one that was
    sealed with another key is treated as absent."""

    def __init__(self, db: sqlite3.Connection, sealer: Sealer, on_damage: Callable[[str], None]) -> None:
        self._db = db
        self._sealer = sealer
        self._on_damage = on_damage

    def get(self, key: str) -> Row | None:
        """The object at this path, or None."""
        found = self._db.execute(f"SELECT {META} FROM meta WHERE key = ?", (key,)).fetchone()
        return self._row(found) if found else None

    def all_of(self, kind: str, namespace: str = "") -> list[Row]:
        """All objects of a type, in one namespace or all, by key."""
        where, arguments = "type = ?", [kind]
        if namespace:
            where, arguments = "type = ? AND namespace = ?", [kind, namespace]
        found = self._db.execute(f"SELECT {META} FROM meta WHERE {where} ORDER BY key", arguments)
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
            yield from self._locked_of("state WHERE key >= ? AND key < ?", prefix, prefix + LAST)

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
            (prefix, prefix + LAST),
        )
        notes = {key: self._note(key, (value, checksum)) for key, value, checksum in found}
        return {key: value for key, value in notes.items() if value is not None}

    def outbox(self) -> list[Pending]:
        """Frames not yet acknowledged, oldest first."""
        found = self._db.execute(f"SELECT {OUTBOX} FROM outbox ORDER BY seq")
        return [pending for pending in map(self.pending, found) if pending]

    def _row(self, found: tuple[Any, ...]) -> Row | None:
        row = self.sound_row(found)
        if row is None or not sealing.is_sealed(row.value):
            return row
        value = self._opened(f"object {row.key}", row.head, row.value)
        return replace(row, value=value) if value is not None else None

    def _opened(self, what: str, head: str, value: bytes) -> bytes | None:
        opened = self._sealer.open(head, value)
        if opened is None and self._sealer.opens(value):
            self._on_damage(what)
        return opened

    def sound_row(self, found: tuple[Any, ...]) -> Row | None:
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
        self._on_damage(f"{OBJECT}{key}")
        return None

    def pending(self, found: tuple[Any, ...]) -> Pending | None:
        """The frame as it is stored, if its checksum holds."""
        seq, key, kind, at_ms, message, checksum = found
        with contextlib.suppress(TypeError, AttributeError, ValueError):
            pending = Pending(seq=seq, key=key, kind=kind, at_ms=at_ms, message=message)
            if pending.checksum == checksum:
                return pending
        self._on_damage(f"report {key}")
        return None

    def _note(self, key: str, found: tuple[Any, ...]) -> bytes | None:
        value = self.sound_note(key, found)
        if value is None or not sealing.is_sealed(value):
            return value
        return self._opened(f"note {key}", key, value)

    def sound_note(self, key: str, found: tuple[Any, ...]) -> bytes | None:
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
            f"INSERT OR REPLACE INTO meta ({META}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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
            f"INSERT OR REPLACE INTO outbox ({OUTBOX}) VALUES (?, ?, ?, ?, ?, ?)",
            (pending.seq, pending.key, pending.kind, pending.at_ms, pending.message, pending.checksum),
        )

    def drop_pending(self, seqs: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])
