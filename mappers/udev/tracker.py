"""Which wanted hardware is there, from events that come in bursts.  Pure.

Plugging in one thing makes the kernel send several events, and a bad contact makes it send many.  A thing is told of when
nothing has happened to it for `settle_s`, and is told to be gone when it has been away for `grace_s`; what comes back sooner
was never away.  Two things with one identity in two sockets are two: the later one is known by its socket as well, as long as
it is there.  The events only say "look": what is told follows from what is there, so a lost event is made good by the next
`sync`."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from mappers.udev.found import Found, facts
from mappers.udev.rules import Candidate, Rule, candidate

log = logging.getLogger(__name__)

MAX_TRACKED = 4096


class Kind(Enum):
    PLUGGED = "plugged"
    CHANGED = "changed"  # another device node, or another property that matters
    UNPLUGGED = "unplugged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    kind: Kind
    candidate: Candidate


_Key = tuple[str, str, str]  # namespace and name of the rule, identity


@dataclass(slots=True)
class _Entry:
    present: dict[str, Candidate] = field(default_factory=dict)
    told: Candidate | None = None
    due: float | None = None


class Tracker:
    """Times are seconds on any clock that does not go back."""

    def __init__(self, rules: Sequence[Rule], *, settle_s: float = 0.5, grace_s: float = 5.0) -> None:
        self._rules = rules
        self._settle_s = settle_s
        self._grace_s = grace_s
        self._entries: dict[_Key, _Entry] = {}
        self._keys: dict[str, _Key] = {}  # by path
        self._warned = False
        self.dropped = 0  # devices beyond MAX_TRACKED

    def see(self, found: Found, now: float) -> None:
        """A device is there, is new, or has changed."""
        wanted = candidate(self._rules, found)
        if wanted is not None:
            wanted = self._told_apart(wanted)
        key = _key(wanted) if wanted is not None else None
        if self._keys.get(found.path) not in (None, key):
            self.gone(found.path, now)
        if wanted is None or key is None:
            return
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MAX_TRACKED:
                self.dropped += 1
                return
            entry = self._entries[key] = _Entry()
        self._keys[found.path] = key
        if entry.present.get(found.path) == wanted and entry.due is None:
            return  # nothing new
        entry.present[found.path] = wanted
        entry.due = now + self._settle_s

    def _told_apart(self, wanted: Candidate) -> Candidate:
        """A candidate, under a name of its own when another thing that is there has the same identity."""
        path, port = wanted.found.path, facts(wanted.found).port
        own = replace(wanted, id=f"{wanted.id}@{port}")
        known = self._keys.get(path)
        if known == _key(wanted):
            return wanted
        if known == _key(own):
            return own  # as long as it is there: its twin that goes must not hand it its Device
        entry = self._entries.get(_key(wanted))
        others = entry.present.values() if entry is not None else ()
        if not any(facts(other.found).port != port for other in others):
            return wanted
        if not self._warned:
            self._warned = True
            log.warning(
                "Several things call themselves %s: a rule with `identity: port` tells them apart for good",
                wanted.id,
            )
        return own

    def gone(self, path: str, now: float) -> None:
        """A device was removed."""
        key = self._keys.pop(path, None)
        if key is None:
            return
        entry = self._entries[key]
        del entry.present[path]
        entry.due = now + (self._settle_s if entry.present else self._grace_s)

    def sync(self, found: Iterable[Found], now: float) -> None:
        """All devices that are there."""
        seen = set()
        for one in found:
            seen.add(one.path)
            self.see(one, now)
        for path in set(self._keys) - seen:
            self.gone(path, now)

    def next_due(self) -> float | None:
        """When to call `take` next."""
        return min((e.due for e in self._entries.values() if e.due is not None), default=None)

    def take(self, now: float) -> list[Change]:
        """What has come about and is to be told now; telling it is the caller's."""
        changes = []
        for key, entry in list(self._entries.items()):
            if entry.due is None or entry.due > now:
                continue
            entry.due = None
            change = _change(entry)
            if change is not None:
                changes.append(change)
                entry.told = None if change.kind is Kind.UNPLUGGED else change.candidate
            if not entry.present:
                del self._entries[key]
        return changes

    def here(self) -> list[Candidate]:
        """What has been told to be there."""
        return [e.told for e in self._entries.values() if e.told is not None]


def _key(wanted: Candidate) -> _Key:
    return (wanted.rule.namespace, wanted.rule.name, wanted.id)


def _change(entry: _Entry) -> Change | None:
    # several devices of one identity: the first by length and name, so that ttyUSB2 comes before ttyUSB10
    best = min(entry.present.values(), key=lambda c: (len(c.found.path), c.found.path), default=None)
    if best is None:
        return Change(kind=Kind.UNPLUGGED, candidate=entry.told) if entry.told is not None else None
    if entry.told is None:
        return Change(kind=Kind.PLUGGED, candidate=best)
    if (best.found.path, best.found.dev_node) != (entry.told.found.path, entry.told.found.dev_node):
        return Change(kind=Kind.CHANGED, candidate=best)
    return None
