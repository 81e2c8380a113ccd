"""The hand-made part of the runtime interface."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cri import field_text, fields, id_of, remove_everything
from deploy.errors import TrialError


def test_a_listing_gives_its_ids() -> None:
    # ListPodSandboxResponse with two sandboxes, of which the second has a state (field 3) and a time (field 4).
    one = field_text(1, "a" * 200)
    other = field_text(1, "b") + b"\x18\x01" + b"\x20\x80\x80\x01" + field_text(7, "runc")
    listing = b"".join(
        b"\x0a" + length + item for length, item in ((b"\xcb\x01", one), (bytes([len(other)]), other))
    )
    assert [id_of(item) for item in fields(listing, 1)] == ["a" * 200, "b"]


@given(st.integers(1, 1000), st.text())
def test_what_was_written_is_read(number: int, text: str) -> None:
    assert list(fields(field_text(number, text), number)) == [text.encode()]


@given(st.binary())
def test_garbage_is_read_or_refused(message: bytes) -> None:
    with contextlib.suppress(TrialError):
        list(fields(message, 1))


def test_no_runtime_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="cannot remove the pods"):
        remove_everything(tmp_path / "none.sock")
