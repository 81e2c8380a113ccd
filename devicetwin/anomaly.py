"""Readings that are possible and still not right: out of range, too quick, stuck, or missing.  Pure.

A property's rule is in its `pushMethod.anomalyDetection`; a driver may judge as well, and what it says comes with a reading.
What is wrong is told when it begins and when nothing has been wrong for `clear_s`, so a value at its limit makes few messages;
a text stays as it was at the beginning.  The reading itself counts all the same: this refuses nothing.

| kind      | when                                                                     | setting                |
|-----------|--------------------------------------------------------------------------|------------------------|
| Missing   | nothing was reported for so long                                         | `missingAfter`, s      |
| Range     | a number is below or above                                               | `minimum`, `maximum`   |
| Rate      | two readings differ by more than so much per second                      | `maxRate`              |
| Stuck     | it is reported, and the same for so long                                 | `stuckAfter`, s        |
| Driver    | the driver's `anomaly` says so                                           | its own                |
| BadRule   | a setting cannot be used; the others count                               |                        |

`holdFor` (0 s) is how long it must be wrong before it counts, `clearAfter` (5 s) how long right before it is over, and
`enabled: false` switches all off.  Times are seconds of a clock that does not go back; after a restart they begin anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

CLEAR_S = 5.0
MAX_S = 31 * 24 * 3600.0
MAX_TEXT = 256
_TIMES = ("stuckAfter", "missingAfter", "holdFor", "clearAfter")
_NUMBERS = ("minimum", "maximum", "maxRate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """None: not looked at.   rate: of change, per second.   faults: what of the settings cannot be used."""

    minimum: float | None = None
    maximum: float | None = None
    rate: float | None = None
    stuck_s: float | None = None
    missing_s: float | None = None
    hold_s: float = 0.0
    clear_s: float = CLEAR_S
    faults: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong.  kind: as in the table above."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Of one property.  heard_at: its last reading, or when looking began.   since: when the value became what it is.

    judged: what the last reading alone says.   wrong_since, right_since: of what is not told yet.   told: what stands."""

    heard_at: float
    value: str | None = None
    since: float = 0.0
    judged: Verdict | None = None
    wrong_since: float | None = None
    right_since: float | None = None
    told: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """A verdict began, or is over."""

    id: str
    name: str
    verdict: Verdict
    over: bool = False


def rule_of(settings: Mapping[str, Any]) -> Rule | None:
    """A property's rule; None when it asks for nothing here.  Keys match in any case, numbers may be texts."""
    given = {key.lower(): value for key, value in settings.items()}
    if given.get("enabled") in (False, "false", "False"):
        return None
    found: dict[str, float | None] = {}
    faults = []
    for key in (*_NUMBERS, *_TIMES):
        value = given.get(key.lower())
        found[key] = number = _number(value)
        low = -math.inf if key in ("minimum", "maximum") else 0.0
        high = MAX_S if key in _TIMES else math.inf
        if value is not None and (number is None or not low <= number <= high):
            faults.append(f"{key} is not a number that can be used: {value!r:.32}")
            found[key] = None
    low_, high_ = found["minimum"], found["maximum"]
    if low_ is not None and high_ is not None and low_ > high_:
        faults.append("minimum is above maximum")
        found["minimum"] = found["maximum"] = None
    hold, clear = found["holdFor"], found["clearAfter"]
    rule = Rule(
        minimum=found["minimum"],
        maximum=found["maximum"],
        rate=found["maxRate"],
        stuck_s=found["stuckAfter"] or None,
        missing_s=found["missingAfter"] or None,
        hold_s=hold or 0.0,
        clear_s=CLEAR_S if clear is None else clear,
        faults="; ".join(faults)[:MAX_TEXT],
    )
    return rule if settings else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def heard(rule: Rule, state: State, value: str, now: float, driver: str = "") -> State:
    """After a reading.  driver: what the driver says is wrong with it, empty for nothing."""
    judged = _judge(rule, state, value, now, driver)
    same = value == state.value
    return replace(state, heard_at=now, value=value, since=state.since if same else now, judged=judged)


def _judge(rule: Rule, state: State, value: str, now: float, driver: str) -> Verdict | None:
    number = _number(value)
    if number is not None:
        if rule.minimum is not None and number < rule.minimum:
            return Verdict("Range", f"{value[:64]} is below {rule.minimum:g}")
        if rule.maximum is not None and number > rule.maximum:
            return Verdict("Range", f"{value[:64]} is above {rule.maximum:g}")
        before = _number(state.value)
        if rule.rate is not None and before is not None and now > state.heard_at:
            rate = abs(number - before) / (now - state.heard_at)
            if rate > rule.rate:
                return Verdict("Rate", f"it changed by {rate:.4g} per second, more than {rule.rate:g}")
    return Verdict("Driver", driver[:MAX_TEXT]) if driver else None


def wrong(rule: Rule, state: State, now: float) -> Verdict | None:
    """What is wrong at a time, whether or not it counts yet."""
    if rule.missing_s is not None and now - state.heard_at >= rule.missing_s:
        return Verdict("Missing", f"nothing was reported for {rule.missing_s:g} s")
    if state.judged is not None:
        return state.judged
    stuck = (
        rule.stuck_s is not None and state.value is not None and state.heard_at - state.since >= rule.stuck_s
    )
    if stuck:
        return Verdict("Stuck", f"it is {(state.value or '')[:64]!r} for {rule.stuck_s:g} s")
    return Verdict("BadRule", rule.faults) if rule.faults else None


def look(rule: Rule, state: State, now: float) -> tuple[State, Verdict | None, Verdict | None]:
    """The state after, the verdict that begins and the one that is over; None for neither."""
    found = wrong(rule, state, now)
    told = state.told
    if found is None:
        right_since = now if state.right_since is None else state.right_since
        state = replace(state, wrong_since=None, right_since=right_since)
        if told is not None and now - right_since >= rule.clear_s:
            return replace(state, told=None), None, told
        return state, None, None
    wrong_since = now if state.wrong_since is None else state.wrong_since
    state = replace(state, wrong_since=wrong_since, right_since=None)
    if now - wrong_since < rule.hold_s or (told is not None and told.kind == found.kind):
        return state, None, None
    return replace(state, told=found), found, told


class Watch:
    """All rules of a node and how things stand with them.  No clock, no I/O: whoever holds it says the time."""

    def __init__(self) -> None:
        self._rules: dict[str, dict[str, Rule]] = {}
        self._states: dict[tuple[str, str], State] = {}
        self._ruled: set[str] = (
            set()
        )  # devices that had a rule once: the cloud is told that nothing is wrong, too

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._rules)

    def set_rules(self, id_: str, rules: Mapping[str, Rule], now: float) -> bool:
        """Of a device, in place of those before.  Says whether anything is other than it was."""
        before = self._rules.pop(id_, {})
        if rules:
            self._rules[id_] = dict(rules)
            self._ruled.add(id_)
        for key in [key for key in self._states if key[0] == id_ and key[1] not in rules]:
            del self._states[key]
        for name in rules:
            self._states.setdefault((id_, name), State(heard_at=now, since=now))
        return before != dict(rules)

    def forget(self, id_: str) -> None:
        self.set_rules(id_, {}, 0.0)
        self._ruled.discard(id_)

    def heard(self, id_: str, name: str, value: str, now: float, driver: str = "") -> list[Turned]:
        """A reading of a property, with what its driver says of it.  What turned by it."""
        rule = self._rules.get(id_, {}).get(name)
        if rule is None:
            return []
        self._states[id_, name] = heard(rule, self._states[id_, name], value, now, driver)
        return self._look(id_, name, rule, now)

    def look(self, now: float) -> list[Turned]:
        """What turned because time went by."""
        return [
            turned
            for id_, rules in self._rules.items()
            for name, rule in rules.items()
            for turned in self._look(id_, name, rule, now)
        ]

    def _look(self, id_: str, name: str, rule: Rule, now: float) -> list[Turned]:
        state, begun, over = look(rule, self._states[id_, name], now)
        self._states[id_, name] = state
        found = []
        if over is not None:
            found.append(Turned(id=id_, name=name, verdict=over, over=True))
        if begun is not None:
            found.append(Turned(id=id_, name=name, verdict=begun))
        return found

    def standing(self, id_: str) -> dict[str, Verdict] | None:
        """What is wrong with a device's properties, by name; None when it never had a rule."""
        if id_ not in self._ruled:
            return None
        told = {name: self._states[id_, name].told for name in self._rules.get(id_, {})}
        return {name: verdict for name, verdict in told.items() if verdict is not None}
