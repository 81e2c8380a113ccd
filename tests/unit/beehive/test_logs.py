"""A log in a file that somebody appends to does not grow for ever: beehive.logs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from beehive import logs

MAX = 300_000


def written(path: Path, lines: int, mode: str = "a") -> None:
    with path.open(mode, buffering=1) as stream:
        handler = logs.Bounded(stream, MAX)
        record = logging.LogRecord("x", logging.DEBUG, "", 0, "%0100d", (7,), None)
        for _ in range(lines):
            handler.emit(record)


def test_a_file_and_its_copy_are_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    path.touch(mode=0o600)
    written(path, 50_000)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1"]
    for one in tmp_path.iterdir():
        assert 0 < one.stat().st_size <= MAX + 2 * logs.LOOK_BYTES
        assert set(one.read_text().splitlines()) == {"0" * 99 + "7"}
        assert one.stat().st_mode & 0o077 == 0


def test_a_file_that_was_too_big_at_the_start_is_taken_care_of_at_once(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    path.write_text("y" * MAX * 2)
    written(path, 1)
    assert path.stat().st_size == 0
    assert (tmp_path / "daemon.log.1").stat().st_size > MAX


@pytest.mark.parametrize("what", ["not appended to", "removed"])
def test_what_is_somebody_elses_to_care_for_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "daemon.log"
    with path.open("w" if what == "not appended to" else "a") as file:
        file.write("z" * MAX * 2)
        file.flush()
        if what == "removed":
            path.unlink()
        assert not logs.keep_small(file.fileno(), MAX)
        assert os.fstat(file.fileno()).st_size == MAX * 2


def test_a_link_in_the_place_of_the_copy_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "daemon.log", tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "daemon.log.1").symlink_to(victim)
    path.write_text("y" * MAX * 2)
    written(path, 1)
    assert victim.read_text() == "precious"
    assert path.stat().st_size == 0


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as end:
        with os.fdopen(writing, "w") as stream:
            logs.Bounded(stream, 1).emit(logging.LogRecord("x", logging.INFO, "", 0, "said", (), None))
        assert end.read() == "said\n"
