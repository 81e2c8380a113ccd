"""Processes that are known again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import machine
from deploy.errors import PartFailed
from deploy.processes import Daemon, Record, parse_stat, start_ticks, tail


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("sleeper", pid_file=tmp_path / "run" / "sleeper.pid", log=tmp_path / "logs" / "sleeper.log")
    yield made
    made.stop(timeout_s=1)


def test_stat_with_a_hostile_name() -> None:
    rest = " ".join(str(n) for n in range(4, 22))
    assert parse_stat(f"7 (a) b (c)) S {rest} 4711 0 0") == ("S", 4711)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "x"}', "\x00\x00"])
def test_a_damaged_pid_file_is_no_process(text: str) -> None:
    assert Record.parse(text) is None


def test_it_runs_until_stopped_and_its_words_are_kept(daemon: Daemon) -> None:
    daemon.start(["sh", "-c", "echo hello; exec sleep 60"])
    pid = daemon.pid()
    assert pid is not None
    assert os.getsid(pid) == pid
    uptime = daemon.uptime_s()
    assert uptime is not None
    assert 0 <= uptime < 60
    deadline = time.monotonic() + 5
    while not daemon.tail() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert daemon.tail() == ["hello"]
    assert daemon.stop()
    assert daemon.pid() is None
    assert not daemon.stop()


def test_one_that_ignores_the_request_is_killed(daemon: Daemon) -> None:
    daemon.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"])
    while not daemon.tail():
        time.sleep(0.01)
    assert daemon.stop(timeout_s=0.1)
    assert daemon.pid() is None


def test_an_early_end_is_told(daemon: Daemon) -> None:
    daemon.start(["sh", "-c", "exit 3"])
    while daemon.pid() is not None:
        time.sleep(0.01)
    with pytest.raises(PartFailed, match="sleeper failed: it ended with exit code 3"):
        daemon.check()


def test_a_reused_pid_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            ticks = start_ticks(stranger.pid)
            assert ticks is not None
            for record in (
                {"pid": stranger.pid, "started_ticks": ticks - 1, "boot_id": machine.boot_id()},
                {"pid": stranger.pid, "started_ticks": ticks, "boot_id": "of another boot"},
            ):
                pid_file = tmp_path / "old.pid"
                pid_file.write_text(json.dumps(record))
                daemon = Daemon("old", pid_file=pid_file, log=tmp_path / "old.log")
                assert daemon.pid() is None
                assert not daemon.stop()
            assert stranger.poll() is None
        finally:
            stranger.send_signal(signal.SIGKILL)


def test_a_missing_program_is_told(daemon: Daemon) -> None:
    with pytest.raises(PartFailed, match="cannot start /nonexistent/program"):
        daemon.start(["/nonexistent/program"])


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(log, 2) == []
    log.write_text("".join(f"{n}\n" for n in range(10000)))
    assert tail(log, 2) == ["9998", "9999"]


def test_a_strict_umask_of_whoever_starts_it_is_not_inherited(tmp_path: Path) -> None:
    """Else the root folders of images are closed to containers that are not root."""
    daemon = Daemon("shell", pid_file=tmp_path / "shell.pid", log=tmp_path / "shell.log")
    before = os.umask(0o077)
    try:
        daemon.start(["sh", "-c", "umask"])
    finally:
        os.umask(before)
    deadline = time.monotonic() + 5
    while daemon.pid() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert daemon.log.read_text().strip() == "0022"
