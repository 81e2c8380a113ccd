"""What goes up and must not get lost: which reports wait, which are dropped when room ends, what the disk must know.  Pure.

Theory of operation.  A report has a key; a newer report of the same key replaces it, so that a long time offline leaves the
newest status of each pod and not its history.  Events have keys of their own and so queue up, bounded.  What to write to
the link and when is `beehive.delivery`'s; a report leaves when the cloud has acknowledged it (a stock hub does not
acknowledge events: they leave when written).  When a bound is reached the least important and oldest goes, and is counted
by kind and reason.

The durable copy follows: `unsaved` says what the table lacks and what it has too much.  Reports that can be made again from
what the node sees (`Durability.NEVER`) are not written; readings, which come by the second, only once they have waited
(`SOON`), so that a healthy link costs the flash card nothing."""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto

import msgspec

from beehive import codec
from beehive.delivery import Delivery, Item, Priority
from beehive.errors import ProtocolError
from beehive.message import Message
from edgecore.metamanager.records import Pending

MAX_REPORT_BYTES = 1024 * 1024
"""One report.  A PodStatus is 2 to 20 KiB, and an API server takes no object beyond 1.5 MiB."""

SOON_MS = 1000
"""How old a `SOON` report must be before it is written to disk: many round trips of a working link."""

AGAIN_MS = 300_000
"""How old the stored one must be before a newer `SOON` report of its key takes its place.  A device that says something new
each second, away from the cloud, would write gigabytes a day; it says it again after a power cut."""

MAX_PACE_MS = 60_000
"""How long a report may wait for its pace without being written to disk."""


class Durability(Enum):
    NOW = auto()
    """On disk before its sender goes on."""
    SOON = auto()
    """On disk if not acknowledged within a second; then the newest of its key again after minutes."""
    NEVER = auto()
    """Made again after a restart."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of report is treated.

    rank: which go first when room ends: the highest.   max_age_ms, max_count: 0 means without a bound of its own.
    final: nothing of its key comes after it."""

    name: str
    priority: Priority
    durability: Durability
    rank: int
    max_age_ms: int = 0
    max_count: int = 0
    final: bool = False


_HOUR_MS = 3_600_000

PLAUSIBLE_MS = 1_704_067_200_000
"""2024: a time of the wall before it is of a board that did not know the time."""

NODE = Kind(name="node", priority=Priority.CONTROL, durability=Durability.NEVER, rank=0)
POD = Kind(name="pod", priority=Priority.STATUS, durability=Durability.NOW, rank=0)
POD_GONE = Kind(name="pod-gone", priority=Priority.STATUS, durability=Durability.NOW, rank=0, final=True)
TWIN = Kind(name="twin", priority=Priority.STATUS, durability=Durability.SOON, rank=1)
EVENT = Kind(
    name="event",
    priority=Priority.BULK,
    durability=Durability.NOW,
    rank=3,
    max_age_ms=24 * _HOUR_MS,
    max_count=1000,
)
DATA = Kind(name="data", priority=Priority.BULK, durability=Durability.SOON, rank=2, max_age_ms=24 * _HOUR_MS)

_PACED = ("/twin/edge_updated", "/state/update")
"""What a device reports: the hub gathers it, and writes it once in a while."""

KINDS = {kind.name: kind for kind in (NODE, POD, POD_GONE, TWIN, EVENT, DATA)}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """max_bytes: all reports together, 16 MiB: a day of statuses of a full node, and small beside any card.
    max_count: entries, since each costs memory whatever its size."""

    max_bytes: int = 16 * 1024 * 1024
    max_count: int = 10_000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to say to the cloud.   at_ms: when it came, by the wall; since_ms: by the clock that does not jump."""

    seq: int
    key: str
    kind: Kind
    at_ms: int
    since_ms: int
    message: Message
    size: int


class Unsaved(msgspec.Struct, frozen=True, kw_only=True):
    """What the table lacks (`puts`) and what it has too much (`drops`, by seq)."""

    puts: tuple[Pending, ...] = ()
    drops: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.puts or self.drops)


class Outbox(msgspec.Struct):
    """Not safe for threads.  `now_ms` and `now` are of a clock that does not jump, `at_ms` is of the wall: a board's clock may
    go from 1970 to today while reports wait, and they are not old by that."""

    limits: Limits = msgspec.field(default_factory=Limits)
    delivery: Delivery = msgspec.field(default_factory=Delivery)
    dropped: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    """(kind, reason) → how many reports were given up: full, old, too-big, refused."""
    bytes_held: int = 0
    _reports: dict[str, Report] = msgspec.field(default_factory=dict)  # by key, oldest put first
    _counts: Counter[str] = msgspec.field(default_factory=Counter)
    _saved: dict[str, int] = msgspec.field(default_factory=dict)  # key → seq in the table
    _saved_ms: dict[str, int] = msgspec.field(default_factory=dict)  # key → when that was written
    _touched: dict[str, None] = msgspec.field(default_factory=dict)  # keys whose table row may differ
    _next_seq: int = 1

    def restore(self, found: list[Pending], now_ms: int = 0, *, at_ms: int = 0) -> None:
        """Take over what an earlier process left, before anything is put."""
        for pending in found:
            self._next_seq = max(self._next_seq, pending.seq + 1)
            self._saved[pending.key] = pending.seq
            try:
                message = codec.decode(pending.message)
            except ProtocolError:
                self.dropped[pending.kind, "unreadable"] += 1
                self._touched[pending.key] = None
                continue
            kind = KINDS.get(pending.kind, DATA)
            self._add(
                Report(
                    seq=pending.seq,
                    key=pending.key,
                    kind=kind,
                    at_ms=pending.at_ms,
                    since_ms=now_ms - _age_ms(pending.at_ms, at_ms),
                    message=message,
                    size=len(pending.message),
                )
            )

    def put(self, kind: Kind, key: str, message: Message, now_ms: int, *, at_ms: int = 0) -> bool:
        """Take a report; an older one of its key that was not sent is forgotten.  Returns False if it was dropped.

        After a final one (a pod that is gone) its key takes nothing more until that is acknowledged."""
        size = len(codec.encode(message))
        if size > MAX_REPORT_BYTES:
            self.dropped[kind.name, "too-big"] += 1
            return False
        old = self._reports.get(key)
        if old is not None and old.kind.final:
            return True
        report = Report(
            seq=self._next_seq,
            key=key,
            kind=kind,
            at_ms=at_ms,
            since_ms=now_ms,
            message=message,
            size=size,
        )
        self._next_seq += 1
        if old is not None:
            self._remove(old, keep_slot=True)
        self._add(report)
        self._make_room(now_ms)
        return self._reports.get(key) is report

    def take(self, now: float) -> list[Message]:
        """What to write to the link now."""
        return self.delivery.take(now)

    def next_wakeup(self) -> float | None:
        return self.delivery.next_wakeup()

    def new_session(self) -> None:
        """The link was lost: what was in flight waits again."""
        self.delivery.restart()

    def written(self, message: Message) -> None:
        """To a stock hub: it never acknowledges events, so that they were written must do."""
        if message.route.resource.split("/")[1:2] == ["event"]:
            self.acked(message.id)

    def acked(self, message_id: str) -> bool:
        """The cloud has it.  Returns whether the id was one of ours."""
        item = self.delivery.ack(message_id)
        if item is None:
            return False
        self._settle(item)
        return True

    def failed(self, message_id: str, now: float) -> bool:
        """The cloud could not take it now: it goes again later."""
        return self.delivery.fail(message_id, now) is not None

    def refused(self, message_id: str, reason: str) -> bool:
        """The cloud will never take it: give it up."""
        item = self.delivery.ack(message_id)
        if item is None:
            return False
        report = self._reports.get(item.key)
        if report is not None and report.seq == item.version:
            self.dropped[report.kind.name, f"refused:{reason}"] += 1
        self._settle(item)
        return True

    def is_final(self, message_id: str) -> bool:
        """Whether this frame ends its key."""
        return any(report.kind.final and report.message.id == message_id for report in self._reports.values())

    def expire(self, now_ms: int) -> None:
        """Drop what nobody wants to hear any more."""
        old = [
            report
            for report in self._reports.values()
            if report.kind.max_age_ms and now_ms - report.since_ms > report.kind.max_age_ms
        ]
        for report in old:
            self._drop(report, "old")

    def unsaved(self, now_ms: int, *, everything: bool = False) -> Unsaved:
        """What to change in the table now.  Call `saved` with it when that is committed.

        everything: no time is left for what could wait."""
        puts: list[Pending] = []
        drops: list[int] = []
        for key in list(self._touched):
            report, stored = self._reports.get(key), self._saved.get(key)
            if report is None or report.kind.durability is Durability.NEVER:
                if stored is not None:
                    drops.append(stored)
                else:
                    del self._touched[key]
            elif stored == report.seq:
                del self._touched[key]
            elif everything or self._is_due(report, now_ms):
                # the old row goes by the key
                puts.append(_pending(report))
        return Unsaved(puts=tuple(puts), drops=tuple(drops))

    def _is_due(self, report: Report, now_ms: int) -> bool:
        if report.kind.durability is Durability.NOW:
            return True
        written = self._saved_ms.get(report.key)
        if written is not None:
            return now_ms - written >= AGAIN_MS
        # what only waits for its pace is not late
        return now_ms - report.since_ms >= SOON_MS + min(self.delivery.pace_s * 1000, MAX_PACE_MS)

    def saved(self, change: Unsaved, now_ms: int) -> None:
        """`change` is in the table."""
        gone = set(change.drops)
        for key in [key for key in self._touched if self._saved.get(key) in gone]:
            del self._saved[key]
            self._saved_ms.pop(key, None)
        for pending in change.puts:
            self._saved[pending.key] = pending.seq
            self._saved_ms[pending.key] = now_ms

    def __len__(self) -> int:
        return len(self._reports)

    def __contains__(self, key: str) -> bool:
        return key in self._reports

    def _add(self, report: Report) -> None:
        self._reports[report.key] = report
        self._counts[report.kind.name] += 1
        self.bytes_held += report.size
        self._touched[report.key] = None
        self.delivery.offer(
            Item(
                key=report.key,
                version=report.seq,
                message=report.message,
                priority=report.kind.priority,
                delete=report.kind.final,
                paced=report.message.route.resource.endswith(_PACED),
            )
        )

    def _remove(self, report: Report, *, keep_slot: bool = False) -> None:
        del self._reports[report.key]
        self._counts[report.kind.name] -= 1
        self.bytes_held -= report.size
        self._touched[report.key] = None
        if not keep_slot:
            # a slot that stays would be a leak: the keys of events never come again
            self.delivery.drop(report.key)

    def _settle(self, item: Item) -> None:
        report = self._reports.get(item.key)
        if report is not None and report.seq == item.version:
            self._remove(report)

    def _drop(self, report: Report, reason: str) -> None:
        self.dropped[report.kind.name, reason] += 1
        self._remove(report)

    def _make_room(self, now_ms: int) -> None:
        for kind in KINDS.values():
            if kind.max_count and self._counts[kind.name] > kind.max_count:
                self._drop(next(r for r in self._reports.values() if r.kind is kind), "full")
        if self._fits():
            return
        self.expire(now_ms)
        for rank in sorted({kind.rank for kind in KINDS.values()}, reverse=True):
            for report in [r for r in self._reports.values() if r.kind.rank == rank]:
                if self._fits():
                    return
                self._drop(report, "full")

    def _fits(self) -> bool:
        return self.bytes_held <= self.limits.max_bytes and len(self._reports) <= self.limits.max_count


def _age_ms(at_ms: int, now_ms: int) -> int:
    """How old a stored report is.  One of a clock that was surely wrong, or that has been set back since, counts as new."""
    return max(0, now_ms - at_ms) if at_ms >= PLAUSIBLE_MS else 0


def _pending(report: Report) -> Pending:
    return Pending(
        seq=report.seq,
        key=report.key,
        kind=report.kind.name,
        at_ms=report.at_ms,
        message=codec.encode(report.message),
    )
