"""What to send next to one peer, and what again.  Pure: one instance per peer, time is given.

Theory of operation.  Every object (by UID) or coalesced report (by key) has one *slot*.  A slot holds at most one frame in
flight and at most one waiting; a newer version replaces the waiting one, so a slow link carries the latest state and
never a backlog of old ones.  Up to `window` frames are in flight at once.  A frame leaves flight by its
acknowledgement, which means *committed at the peer*; a refused or unanswered frame waits for a back-off and goes again with
the same id.  One frame per slot in flight keeps the order per object: what the peer applied never goes back (P1).

Reports that the peer would only gather wait here instead (`paced`): one that waits there is in flight, holds a place of the
window that others need, and keeps the newer ones of its key behind it.

A delete is final for its key: UIDs are not used again, so nothing offered later overtakes it."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from enum import IntEnum

import msgspec

from beehive.message import Message

WINDOW = 64
"""Frames in flight.  A stock edge drops the oldest of more than 100 unread frames."""

RESEND_S = 30.0
"""How long an acknowledgement may take before the frame is sent again.  The link is TCP: a frame is not lost while the
session lives, so this only covers a peer that could not commit and did not say so."""

RETRY_BASE_S = 1.0
RETRY_CAP_S = 60.0


class Priority(IntEnum):
    """Lower goes first."""

    CONTROL = 0
    STATUS = 1
    BULK = 2


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to deliver.

    key: the object's UID, or what reports coalesce by.   version: only grows per key; compared, never shown.
    delete: the object is gone.   force: send although the version is not newer (an object that is being deleted).
    back: the API went back to an older state, so the version may be older; what comes after grows from there.
    paced: sent `pace_s` after the one before of its key at the soonest."""

    key: str
    version: int
    message: Message
    priority: Priority = Priority.BULK
    delete: bool = False
    force: bool = False
    back: bool = False
    paced: bool = False


class _Slot(msgspec.Struct):
    waiting: Item | None = None
    flying: Item | None = None
    not_before: float = 0.0
    failures: int = 0
    applied: int = -1
    deleted: bool = False
    queued: bool = False
    held: bool = False
    """It waits for its pace, and an entry of `_later` stands for it."""
    back: bool = False
    """What the peer holds may be of versions that the API forgot: nothing is compared with it until it took one of now."""
    flying_back: bool = False


class Counters(msgspec.Struct):
    """For metrics; they only grow."""

    offered: int = 0
    coalesced: int = 0
    sent: int = 0
    resent: int = 0
    acked: int = 0
    failed: int = 0
    declined: int = 0


class Delivery(msgspec.Struct):
    """The outgoing side of one peer.  Not safe for threads."""

    marks: bool = False
    """Whether the peer refuses versions that go back unless they are said to."""
    pace_s: float = 0.0
    window: int = WINDOW
    resend_s: float = RESEND_S
    counters: Counters = msgspec.field(default_factory=Counters)
    _slots: dict[str, _Slot] = msgspec.field(default_factory=dict)
    _flying: dict[str, str] = msgspec.field(default_factory=dict)  # message id → key
    _ready: list[tuple[int, int, str]] = msgspec.field(default_factory=list)  # heap of (priority, order, key)
    _later: list[tuple[float, int, str]] = msgspec.field(
        default_factory=list
    )  # retries: heap of (time, order, key)
    _sent: deque[tuple[float, str]] = msgspec.field(
        default_factory=deque
    )  # (when due again, message id), oldest first
    _paces: dict[str, float] = msgspec.field(default_factory=dict)  # key of paced ones → not before
    _order: itertools.count[int] = msgspec.field(default_factory=itertools.count)

    def know(self, key: str, version: int) -> None:
        """The peer is known to hold `version` of `key` (from its inventory)."""
        slot = self._slots.setdefault(key, _Slot())
        slot.applied = max(slot.applied, version)

    def lost(self, key: str, version: int = -1) -> None:
        """The peer turned out to hold `version` (-1: nothing), whatever it committed before."""
        slot = self._slots.get(key)
        if slot is not None and slot.waiting is None and slot.flying is None:
            slot.applied = min(slot.applied, version)

    def applied(self, key: str) -> int:
        """The version that the peer committed or declined, or -1."""
        slot = self._slots.get(key)
        return slot.applied if slot else -1

    def offer(self, item: Item) -> bool:
        """Take `item` if it is news for the peer.  Returns whether it will be sent.  Never blocks, never grows per key."""
        self.counters.offered += 1
        slot = self._slots.setdefault(item.key, _Slot())
        if slot.deleted:
            return False
        if not item.delete and not item.force and not item.back:
            newest = max(
                -1 if slot.back else slot.applied,
                slot.flying.version if slot.flying else -1,
                slot.waiting.version if slot.waiting else -1,
            )
            if item.version <= newest:
                return False
        if slot.waiting is not None:
            self.counters.coalesced += 1
        slot.waiting = item
        slot.back = slot.back or item.back
        slot.deleted = item.delete
        slot.not_before = 0.0
        slot.failures = 0
        self._enqueue(item.key, slot)
        return True

    def take(self, now: float) -> list[Message]:
        """The frames to write now, most urgent first: new ones within the window, and those due again."""
        self._wake(now)
        out: list[Message] = []
        while self._ready and len(self._flying) < self.window:
            _, _, key = heapq.heappop(self._ready)
            slot = self._slots.get(key)
            if slot is None:
                continue
            slot.queued = False
            if slot.waiting is None or slot.flying is not None or self._is_early(key, slot, now):
                continue
            item = slot.flying = slot.waiting
            slot.waiting = None
            self._flying[item.message.id] = key
            self._sent.append((now + self.resend_s, item.message.id))
            self.counters.sent += 1
            slot.flying_back = slot.back
            out.append(item.message.restored() if slot.back and self.marks else item.message)
        return out

    def _is_early(self, key: str, slot: _Slot, now: float) -> bool:
        """Whether what waits must wait for its pace; else it counts as sent now."""
        if slot.waiting is None or not slot.waiting.paced or not self.pace_s:
            return False
        due = min(self._paces.get(key, now), now + self.pace_s)
        if due > now:
            if not slot.held:
                slot.held = True
                heapq.heappush(self._later, (due, next(self._order), key))
            return True
        if len(self._paces) > 2 * len(self._slots) + 64:
            self._paces = {each: at for each, at in self._paces.items() if at > now}
        self._paces[key] = now + self.pace_s
        return False

    def ack(self, message_id: str) -> Item | None:
        """The peer committed this frame.  Returns what it was; None for an id that is not in flight."""
        item = self._land(message_id)
        self.counters.acked += item is not None
        return item

    def _land(self, message_id: str) -> Item | None:
        """This frame is done with."""
        key = self._flying.pop(message_id, None)
        if key is None:
            return None
        slot = self._slots[key]
        item = slot.flying
        assert item is not None, "an id in flight without its frame"
        slot.flying = None
        slot.failures = 0
        while self._sent and self._sent[0][1] not in self._flying:
            self._sent.popleft()
        if item.delete:
            # keep nothing of a finished object; a late offer for its UID cannot come, since its watch has ended
            self._slots.pop(key, None)
            return item
        if slot.flying_back:
            slot.applied = item.version
            slot.back = slot.waiting is not None and slot.waiting.back
        else:
            slot.applied = max(slot.applied, item.version)
        if slot.waiting is not None:
            self._enqueue(key, slot)
        return item

    def decline(self, message_id: str) -> Item | None:
        """The peer can never use this frame: it is done with, and only something newer is sent for its key."""
        item = self._land(message_id)
        self.counters.declined += item is not None
        return item

    def fail(self, message_id: str, now: float) -> Item | None:
        """The peer could not commit this frame: try again later, unless something newer waits already."""
        key = self._flying.pop(message_id, None)
        if key is None:
            return None
        slot = self._slots[key]
        item = slot.flying
        assert item is not None, "an id in flight without its frame"
        slot.flying = None
        self.counters.failed += 1
        if slot.waiting is None:
            slot.waiting = item
        slot.failures += 1
        slot.not_before = now + min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(slot.failures - 1, 16))
        heapq.heappush(self._later, (slot.not_before, next(self._order), key))
        return item

    def drop(self, key: str) -> None:
        """Forget `key` altogether: whoever offered it no longer wants it sent."""
        slot = self._slots.pop(key, None)
        if slot and slot.flying:
            self._flying.pop(slot.flying.message.id, None)

    def restart(self) -> None:
        """The session ended: what was in flight waits again, unless something newer does."""
        self._flying.clear()
        self._later.clear()
        self._sent.clear()
        self._ready.clear()
        for key, slot in self._slots.items():
            if slot.flying is not None:
                if slot.waiting is None:
                    slot.waiting = slot.flying
                slot.flying = None
            slot.not_before = 0.0
            slot.failures = 0
            slot.queued = slot.held = False
            if slot.waiting is not None:
                self._enqueue(key, slot)

    def next_wakeup(self) -> float | None:
        """When `take` may have something that it does not have now; None when only an offer or ack can change that."""
        times = [queue[0][0] for queue in (self._later, self._sent) if queue]
        return min(times, default=None)

    def __len__(self) -> int:
        """Frames waiting or in flight."""
        return sum((slot.waiting is not None) + (slot.flying is not None) for slot in self._slots.values())

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def _enqueue(self, key: str, slot: _Slot) -> None:
        if slot.waiting is None or slot.flying is not None or slot.queued:
            return
        slot.queued = True
        heapq.heappush(self._ready, (slot.waiting.priority, next(self._order), key))

    def _wake(self, now: float) -> None:
        while self._sent and self._sent[0][0] <= now:
            key = self._flying.pop(self._sent.popleft()[1], None)
            if key is None:
                continue
            slot = self._slots[key]
            if slot.waiting is None:
                slot.waiting = slot.flying
            slot.flying = None
            self.counters.resent += 1
            self._enqueue(key, slot)
        while self._later and self._later[0][0] <= now:
            _, _, key = heapq.heappop(self._later)
            retry = self._slots.get(key)
            if retry is not None:
                retry.held = False
            if retry is not None and retry.not_before <= now:
                self._enqueue(key, retry)
