"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from deploy.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock() -> float:
    clock.now += 1.5  # type: ignore[attr-defined]
    return clock.now  # type: ignore[attr-defined, no-any-return]


clock.now = 0.0  # type: ignore[attr-defined]


def test_a_log_gets_one_plain_line_a_step() -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).step("containerd") as step:
        step.tick("waiting")
        step.result = "started"
    assert out.getvalue() == "  containerd             started (1.5 s)\n"


def test_a_failed_step_says_so_and_passes_the_error_on() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="x"), Progress(out, clock=clock).step("edgecore"):
        raise ValueError("x")
    assert "edgecore               failed" in out.getvalue()


def test_a_terminal_sees_what_is_awaited() -> None:
    out = Terminal()
    with Progress(out, clock=clock).step("edgecore") as step:
        step.tick("waiting until node is Ready")
    assert "waiting until node is Ready (3.0 s)" in out.getvalue()
    assert out.getvalue().endswith("(4.5 s)\n")
