from __future__ import annotations

from pathlib import Path

from edgecore.edged.ends import SLOT_BYTES, SLOTS, Ends
from edgecore.edged.status import Outcome

EVICTED = Outcome(phase="Failed", reason="Evicted", message="low on disk")


def opened(path: Path) -> Ends:
    ends = Ends(path)
    ends.open()
    return ends


def test_an_end_is_there_for_the_next_agent_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "ends"
    ends = opened(path)
    assert ends.keep("u1", EVICTED)
    assert ends.keep("u2", Outcome(phase="Succeeded", reason="", message=""))
    assert ends.keep("u1", EVICTED)
    # nothing is ever appended: a full disk takes what lies on it already
    assert path.stat().st_size == SLOTS * SLOT_BYTES
    again = opened(path)
    assert again.find("u1") == EVICTED
    assert again.uids() == {"u1", "u2"}
    again.forget("u1")
    assert again.find("u1") is None
    assert opened(path).uids() == {"u2"}


def test_a_torn_slot_is_none_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ends"
    ends = opened(path)
    for name in ("a", "b", "c"):
        assert ends.keep(name, EVICTED)
    data = bytearray(path.read_bytes())
    data[SLOT_BYTES + 20] ^= 0xFF
    path.write_bytes(data)
    assert opened(path).uids() == {"a", "c"}


def test_a_long_message_is_cut_and_a_full_file_says_so(tmp_path: Path) -> None:
    ends = opened(tmp_path / "ends")
    long = Outcome(phase="Failed", reason="Evicted", message='"ä' * 4000)
    assert ends.keep("u" * 128, long)
    found = opened(tmp_path / "ends").find("u" * 128)
    assert found is not None
    assert found.message.startswith('"ä')
    for i in range(SLOTS - 1):
        assert ends.keep(f"u{i}", EVICTED)
    assert not ends.keep("one more", EVICTED)


def test_a_file_that_cannot_be_made_is_no_fault_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "ends"
    path.mkdir()
    ends = opened(path)
    assert not ends.keep("u", EVICTED)
    path.rmdir()
    assert ends.keep("u", EVICTED)
    assert opened(path).find("u") == EVICTED
