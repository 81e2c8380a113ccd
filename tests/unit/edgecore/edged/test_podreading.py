"""What is missing from a reading is believed at the second one."""

from __future__ import annotations

from edgecore.edged.podreading import DOUBT_S, Doubt


def test_what_is_missing_is_believed_when_a_later_reading_agrees() -> None:
    doubt = Doubt()
    assert not doubt.believes({"a"}, 10.0)
    assert not doubt.believes({"a"}, 10.0 + DOUBT_S / 4), "the same moment, read twice"
    assert doubt.believes({"a"}, 10.0 + DOUBT_S)
    assert not doubt.believes({"b"}, 11.0), "what was believed says nothing of another"


def test_readings_that_miss_different_things_do_not_agree() -> None:
    doubt = Doubt()
    assert not doubt.believes({"a", "b"}, 10.0)
    assert not doubt.believes({"a"}, 11.0)
    assert doubt.believes(set(), 12.0)
    assert not doubt.believes({"a"}, 13.0), "it was there in between"
    assert doubt.believes({"a"}, 14.0)
