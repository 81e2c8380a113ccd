"""How the run before this one ended: edgecore.lastend."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecore.lastend import NAME, Began, LastEnd, describe, parse

BOOT = "0b7c4a3e-0000-4000-8000-000000000001"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "sys/kernel/random/boot_id").write_text(f"{BOOT}\n")
    (folder / "vmstat").write_text("nr_free_pages 7\noom_kill 3\n")
    return folder


def test_an_end_in_order_is_not_spoken_of(tmp_path: Path, proc: Path) -> None:
    first = LastEnd(tmp_path, proc)
    first.begin()
    first.end()
    second = LastEnd(tmp_path, proc)
    second.begin()
    assert (first.said, second.said) == ("", "")


@pytest.mark.parametrize(
    ("boot", "vmstat", "said"),
    [
        (BOOT, "oom_kill 3\n", "killed or ended by a fault"),
        (BOOT, "oom_kill 4\n", "killed once for want of memory"),
        (BOOT, "oom_kill 13\n", "killed 10 times for want of memory"),
        ("0b7c4a3e-0000-4000-8000-000000000002", "oom_kill 0\n", "power was cut"),
    ],
)
def test_another_end_is_named(tmp_path: Path, proc: Path, boot: str, vmstat: str, said: str) -> None:
    LastEnd(tmp_path, proc).begin()
    (proc / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
    (proc / "vmstat").write_text(vmstat)
    now = LastEnd(tmp_path, proc)
    now.begin()
    assert said in now.said


@pytest.mark.parametrize("left", [b"", b"\xff\x00", b"boot x\nkilled y\n", b"boot a\nkilled 1\n" * 9999])
def test_what_nobody_wrote_says_nothing(tmp_path: Path, proc: Path, left: bytes) -> None:
    (tmp_path / NAME).write_bytes(left)
    now = LastEnd(tmp_path, proc)
    now.begin()
    assert now.said == ""


def test_a_folder_that_cannot_be_written_to_ends_nothing(tmp_path: Path, proc: Path) -> None:
    now = LastEnd(tmp_path / "absent", proc)
    now.begin()
    now.end()


def test_it_can_be_read_again() -> None:
    began = Began(boot=BOOT, killed=7)
    assert parse(str(began)) == began
    assert "power" not in describe(began, began)
