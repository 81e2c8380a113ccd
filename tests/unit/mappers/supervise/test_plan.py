"""Which mappers run: started when needed, with growing pauses, not beside another's, and ended when nobody needs them."""

from __future__ import annotations

from dataclasses import replace

from mappers.supervise import plan
from mappers.supervise.drivers import Found
from mappers.supervise.plan import LINGER_S, Missing, Need, Slot, Start, Stop, decide, ended, own_name

MODBUS = Found(name="modbus")
ONE = [Need(protocol="modbus", devices=1)]


def find(protocol: str) -> Found | None:
    return MODBUS if protocol == "modbus" else None


def running(now: float = 0.0) -> dict[str, Slot]:
    slots, actions = decide(ONE, {}, find, now)
    assert actions == [Start("modbus", MODBUS)]
    return slots


def test_a_plan_that_was_followed_asks_for_nothing_more() -> None:
    slots = running()
    assert decide(ONE, slots, find, 1.0) == (slots, [])


def test_a_protocol_without_a_driver_is_named_each_time() -> None:
    _, actions = decide([Need(protocol="knx", devices=3)], {}, find, 0.0)
    assert actions == [Missing("knx", 3)]


def test_what_somebody_else_serves_is_left_to_them() -> None:
    theirs = [Need(protocol="modbus", devices=1, mappers=("modbus",))]
    slots, actions = decide(theirs, {}, find, 0.0)
    assert actions == []
    # until they are gone
    _, actions = decide(ONE, slots, find, 1.0)
    assert actions == [Start("modbus", MODBUS)]
    # ours, once it runs, stays: its devices are not torn from it
    both = [Need(protocol="modbus", devices=1, mappers=("modbus", own_name("modbus")))]
    assert decide(both, running(), find, 2.0)[1] == []
    # and of ours that edgecore still remembers is no other
    left = [Need(protocol="modbus", devices=1, mappers=(own_name("modbus"),))]
    assert decide(left, {}, find, 0.0)[1] == [Start("modbus", MODBUS)]


def test_pauses_grow_and_a_long_life_is_forgiven() -> None:
    now, slots, pauses = 0.0, running(), []
    for _ in range(9):
        slots = {"modbus": ended(slots["modbus"], now + 0.1)}
        pauses.append(slots["modbus"].not_before - (now + 0.1))
        assert decide(ONE, slots, find, slots["modbus"].not_before - 0.01)[1] == []
        now = slots["modbus"].not_before
        slots, actions = decide(ONE, slots, find, now)
        assert actions == [Start("modbus", MODBUS)]
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    lived = ended(slots["modbus"], now + plan.FORGIVEN_AFTER_S + 1)
    assert lived.failures == 1


def test_one_that_nobody_needs_lingers_and_ends() -> None:
    slots, actions = decide([], running(), find, 100.0)
    assert actions == []
    slots, actions = decide([], slots, find, 100.0 + LINGER_S - 1)
    assert actions == []
    # needed again: as if nothing had been
    assert decide(ONE, slots, find, 101.0)[0]["modbus"].unneeded_since is None
    slots, actions = decide([], slots, find, 100.0 + LINGER_S)
    assert actions == [Stop("modbus", "no device needs it")]
    assert decide([], slots, find, 200.0)[1] == []
    assert decide([], {"modbus": ended(slots["modbus"], 200.0)}, find, 201.0) == ({}, [])


def test_another_driver_replaces_it_without_a_pause() -> None:
    slots, actions = decide(ONE, running(), lambda _: Found(name="modbus", stamp=2), 5.0)
    assert actions == [Stop("modbus", "its driver has changed")]
    assert decide(ONE, slots, lambda _: Found(name="modbus", stamp=2), 6.0)[1] == []
    slots = {"modbus": ended(slots["modbus"], 7.0)}
    _, actions = decide(ONE, slots, lambda _: Found(name="modbus", stamp=2), 7.0)
    assert actions == [Start("modbus", Found(name="modbus", stamp=2))]


def test_a_driver_that_was_removed_ends_its_mapper() -> None:
    slots, actions = decide(ONE, running(), lambda _: None, 5.0)
    assert actions == [Stop("modbus", "its driver is gone")]
    _, actions = decide(ONE, {"modbus": ended(slots["modbus"], 6.0)}, lambda _: None, 6.0)
    assert actions == [Missing("modbus", 1)]


def test_a_name_is_one_that_edgecore_takes() -> None:
    assert own_name("a/../b c\n") == "auto-a-..-b-c-"
    assert len(own_name("x" * 500)) <= 64


def test_faults_are_told_of_what_is_needed_and_not_served() -> None:
    said = {"a": "broken", "b": "broken", "c": "broken"}
    needs = [
        Need(protocol="a", devices=1),
        Need(protocol="b", devices=1, mappers=("auto-b",)),
        Need(protocol="d", devices=1),
        Need(protocol="c", devices=0),
    ]
    assert plan.faults(needs, said) == {"a": "broken"}


def test_a_driver_that_was_mended_is_tried_at_once() -> None:
    slots = running()
    for _ in range(8):
        slots = {"modbus": ended(slots["modbus"], 1.0)}
        assert decide(ONE, slots, find, 1.5)[1] == []
        slots, actions = decide(ONE, slots, find, 1000.0)
        assert actions == [Start("modbus", MODBUS)]
        slots["modbus"] = replace(slots["modbus"], since=1.0)  # it ends soon
    slots = {"modbus": ended(slots["modbus"], 1.0)}
    mended = Found(name="modbus", stamp=2)
    slots, actions = decide(ONE, slots, lambda protocol: mended, 1.5)
    assert actions == [Start("modbus", mended)]
    # it ends as well: the pauses begin anew
    slots = {"modbus": ended(slots["modbus"], 2.0)}
    assert slots["modbus"].failures == 1


def test_why_a_mapper_ended_is_known_also_while_edgecore_still_takes_it_for_alive() -> None:
    said = {"a": "ended with 3", "b": "no driver", "c": "ended with 3", "d": "ended with 3", "e": "no driver"}
    needs = [
        Need(
            protocol="a", devices=1, mappers=(own_name("a"),)
        ),  # has ended, edgecore looks again in some seconds
        Need(protocol="b", devices=1),
        Need(protocol="c", devices=1, mappers=(own_name("c"),)),  # runs again
        Need(protocol="d", devices=1, mappers=(own_name("d"), "theirs")),
    ]
    assert plan.standing(said, needs, {"c"}) == {"a": "ended with 3", "b": "no driver"}
    assert plan.faults(needs, said) == {"b": "no driver"}
