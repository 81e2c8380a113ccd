"""What changed lately, so that a watch can begin where a list ended.  Pure.

The edge has no single revision: what it serves comes over several streams, each in its own order, and the resourceVersions
that a client sees are the cloud's.  So each change gets a local number, and each resourceVersion that a client was told is
remembered with the local number of that moment.  A watch from a remembered version replays the objects touched since, in
their present state: a client may hear of something twice, which it must bear, and never misses anything.  An unknown or
forgotten version is too old, and the client lists again, as after etcd's compaction."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

MAX_CHANGES = 1024
"""A watch that is opened again within a few seconds needs few; beyond, a list is cheaper than a replay."""
MAX_MARKS = 2048
MAX_TOMBSTONE_BYTES = 256 * 1024
"""Last states of deleted objects kept for replays, all together; others are replayed by their names."""


@dataclass(frozen=True, slots=True)
class Key:
    """One object.  `resource` is `<group>/<version>/<plural>`; `namespace` is empty where there is none."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """`tombstone`: the last state of an object that is gone; empty for one that is there.  `fresh`: it was not there before."""

    seq: int
    key: Key
    uid: str
    version: int
    gone: bool
    tombstone: bytes = b""
    fresh: bool = False


class History:
    """A ring of changes and the versions that clients know."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._last: dict[Key, Change] = {}
        self._marks: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0
        self.seq = 0
        self._floor = 0  # changes up to this number are forgotten
        self.version = 0
        """The highest resourceVersion seen."""

    def add(
        self,
        key: Key,
        *,
        uid: str,
        version: int,
        gone: bool,
        tombstone: bytes = b"",
        fresh: bool = False,
    ) -> Change | None:
        """Record a change.  None if the ring knows that state already, or a newer one of the same object."""
        last = self._last.get(key)
        if last is not None:
            if gone and last.gone:
                return None
            if not gone and not last.gone and last.uid == uid and 0 <= version <= last.version:
                return None
        self.seq += 1
        if self._bytes + len(tombstone) > MAX_TOMBSTONE_BYTES:
            tombstone = b""
        change = Change(self.seq, key, uid, version, gone, tombstone, fresh)
        self._changes.append(change)
        self._last[key] = change
        self._bytes += len(tombstone)
        self.mark(version)
        if len(self._changes) > MAX_CHANGES:
            oldest = self._changes.popleft()
            self._floor = oldest.seq
            self._bytes -= len(oldest.tombstone)
            if self._last.get(oldest.key) is oldest:
                del self._last[oldest.key]
        return change

    def mark(self, version: int) -> None:
        """A client is told `version` now.  The first moment counts, since a replay of too much does no harm."""
        if version < 0:
            return
        self.version = max(self.version, version)
        if self._marks.get(version, -1) < self._floor:
            self._marks[version] = self.seq
        self._marks.move_to_end(version)
        if len(self._marks) > MAX_MARKS:
            self._marks.popitem(last=False)

    def forget(self) -> None:
        """No version was told by this process yet: what was told before may be of another moment."""
        self._marks.clear()

    def since(self, version: int) -> int | None:
        """The local number to replay from, or None when that is forgotten."""
        seq = self._marks.get(version)
        return None if seq is None or seq < self._floor else seq

    def touched(self, resource: str, namespace: str, seq: int) -> list[Change]:
        """The latest change of each object of `resource` (in one namespace, or all) after `seq`, oldest first."""
        return [
            change
            for change in self._changes
            if change.seq > seq
            and change.key.resource == resource
            and (not namespace or change.key.namespace == namespace)
            and self._last.get(change.key) is change
        ]
