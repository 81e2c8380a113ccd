"""Readings that are possible and still not right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.anomaly import MAX_TEXT, Rule, Turned, Verdict, Watch, rule_of


def run(
    settings: dict[str, Any], *steps: tuple[float, str | None] | tuple[float, str, str]
) -> list[tuple[float, str]]:
    """What is told, and when.  steps: a time with a reading, or with None only to look; with what the driver says."""
    watch = Watch()
    rule = rule_of(settings)
    assert rule is not None
    watch.set_rules("n/d", {"p": rule}, 0.0)
    told: list[tuple[float, str]] = []
    for at, value, *driver in steps:
        turned = watch.look(at) if value is None else watch.heard("n/d", "p", value, at, *driver)
        told += [(at, f"-{t.verdict.kind}" if t.over else t.verdict.kind) for t in turned]
    return told


@pytest.mark.parametrize(
    ("settings", "steps", "told"),
    [
        ({"minimum": 5, "maximum": "30"}, [(1, "5"), (2, "30")], []),
        ({"minimum": 5}, [(1, "4.9"), (2, "6"), (4, "6"), (7, None)], [(1, "Range"), (7, "-Range")]),
        ({"maximum": 30, "clearAfter": 0}, [(1, "31"), (2, "30")], [(1, "Range"), (2, "-Range")]),
        ({"maximum": 30, "holdFor": 3}, [(1, "31"), (2, "31"), (3, "29"), (4, "31"), (7, "31")], [(7, "Range")]),
        ({"maximum": 30}, [(1, "31"), (2, "29"), (3, "31"), (4, "29"), (5, "31")], [(1, "Range")]),  # at its limit
        ({"maxRate": 1}, [(1, "10"), (2, "11"), (3, "13"), (4, "13"), (8, None), (9, None)], [(3, "Rate"), (9, "-Rate")]),
        ({"maxRate": 1}, [(1, "x"), (1, "99"), (1, "1")], []),  # no time between them
        ({"stuckAfter": 10}, [(1, "7"), (6, "7"), (11, "7"), (12, "8"), (17, "9")], [(11, "Stuck"), (17, "-Stuck")]),
        ({"stuckAfter": 10}, [(1, "7"), (50, None)], []),  # it is not stuck, it is missing
        ({"missingAfter": 10}, [(9, None), (10, None), (11, "7"), (16, "7"), (26, None)],
         [(10, "Missing"), (16, "-Missing"), (26, "Missing")]),
        ({"missingAfter": 10, "maximum": 5}, [(1, "9"), (12, None), (13, "9")],
         [(1, "Range"), (12, "-Range"), (12, "Missing"), (13, "-Missing"), (13, "Range")]),
        ({"x": 1}, [(1, "7", "smells"), (2, "7", "smells more"), (3, "7"), (8, "7")], [(1, "Driver"), (8, "-Driver")]),
        ({"maximum": "hot"}, [(1, "7")], [(1, "BadRule")]),
        ({"maximum": "hot", "minimum": 5}, [(1, "4")], [(1, "Range")]),
    ],
)  # fmt: skip
def test_what_is_told(settings: dict[str, Any], steps: list[Any], told: list[Any]) -> None:
    assert run(settings, *steps) == told


def test_settings() -> None:
    assert rule_of({}) is None
    assert rule_of({"enabled": False, "minimum": 1}) is None
    assert rule_of({"MINIMUM": "1e3", "missingafter": 60}) == Rule(minimum=1000.0, missing_s=60.0)
    for bad in ({"minimum": True}, {"minimum": "nan"}, {"stuckAfter": -1}, {"maxRate": [1]}, {"holdFor": 1e12},
                {"minimum": 3, "maximum": 2}, {"maximum": 10**400}):  # fmt: skip
        rule = rule_of(bad)
        assert rule is not None
        assert rule.faults


def test_a_text_stays_as_it_began() -> None:
    watch = Watch()
    watch.set_rules("n/d", {"p": Rule(maximum=30)}, 0.0)
    for at in range(1, 100):
        watch.heard("n/d", "p", str(30 + at), float(at))
    assert watch.standing("n/d") == {"p": Verdict("Range", "31 is above 30")}


def test_rules_come_and_go() -> None:
    watch = Watch()
    assert not watch
    assert watch.standing("n/d") is None
    assert watch.heard("n/d", "p", "1", 0.0) == []
    assert watch.set_rules("n/d", {"p": Rule(maximum=0), "q": Rule(missing_s=5)}, 0.0)
    assert not watch.set_rules("n/d", {"p": Rule(maximum=0), "q": Rule(missing_s=5)}, 1.0)
    assert watch.heard("n/d", "p", "1", 1.0) == [
        Turned(id="n/d", name="p", verdict=Verdict("Range", "1 is above 0"))
    ]
    assert [t.name for t in watch.look(5.0)] == ["q"]
    assert watch.set_rules("n/d", {}, 6.0)
    assert not watch
    assert watch.standing("n/d") == {}  # the cloud is told that nothing is wrong
    watch.forget("n/d")
    assert watch.standing("n/d") is None


VALUES = st.sampled_from(["0", "5", "50", "-3.5", "true", "words", "", "1e400"]) | st.text(max_size=300)
NUMBERS = st.none() | st.floats(0, 100) | st.sampled_from(["x", True, -1])


@given(
    st.dictionaries(
        st.sampled_from(
            ["minimum", "maximum", "maxRate", "stuckAfter", "missingAfter", "holdFor", "clearAfter"]
        ),
        NUMBERS,
    ),
    st.lists(st.tuples(st.floats(0, 20), st.none() | VALUES, st.text(max_size=400)), max_size=30),
)
def test_each_end_has_a_beginning_and_nothing_is_told_twice(
    settings: dict[str, Any], steps: list[tuple[float, str | None, str]]
) -> None:
    rule = rule_of({**settings, "own": 1})
    assert rule is not None
    watch = Watch()
    watch.set_rules("n/d", {"p": rule}, 0.0)
    now, open_ = 0.0, ""
    for pause, value, driver in steps:
        now += pause
        for turned in watch.look(now) if value is None else watch.heard("n/d", "p", value, now, driver):
            assert turned.over == (open_ == turned.verdict.kind)
            assert len(turned.verdict.text) <= MAX_TEXT + 100
            open_ = "" if turned.over else turned.verdict.kind
        standing = watch.standing("n/d") or {}
        assert (standing["p"].kind if standing else "") == open_
