"""What stands still is told, and ends the daemon when it does not go on: beehive.watchdog."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beehive.watchdog import HANGS, Goes, Judge, Over, Stands, Vital


class Part:
    def __init__(self, limit_s: float = 60.0, *, excused: bool = False) -> None:
        self.pulse: object = 1
        self.vital = Vital(name="part", pulse=lambda: self.pulse, limit_s=limit_s, excused=lambda: excused)


def looks(part: Part, count: int, judge: Judge) -> list[object]:
    return [verdict for _ in range(count) for verdict in judge.look([part.vital])]


def test_what_goes_on_is_not_spoken_of() -> None:
    part, judge = Part(), Judge(5)
    for number in range(1000):
        part.pulse = number
        assert judge.look([part.vital]) == []


def test_what_has_nothing_to_do_is_not_standing_still() -> None:
    part, judge = Part(), Judge(5)
    part.pulse = None
    assert looks(part, 1000, judge) == []


def test_what_stands_still_is_told_once_and_again_when_it_goes_on() -> None:
    part, judge = Part(), Judge(5)
    assert looks(part, 10, judge) == [Stands(part.vital, 15)]
    part.pulse = 2
    assert looks(part, 1, judge) == [Goes(part.vital, 45)]
    assert looks(part, 4, judge) == [Stands(part.vital, 15)]
    part.pulse = None
    assert looks(part, 1, judge) == [Goes(part.vital, 20)]


def test_it_is_over_after_the_limit() -> None:
    part, judge = Part(60), Judge(5)
    assert looks(part, 12, judge) == [Stands(part.vital, 15)]
    assert looks(part, 1, judge) == [Over(part.vital, 60)]


def test_what_the_kernel_holds_is_told_and_kept() -> None:
    part, judge = Part(60, excused=True), Judge(5)
    assert looks(part, 1000, judge) == [Stands(part.vital, 15)]


# the real thing, in a process of its own

DAEMON = """
import asyncio, logging, os, sys, time, threading
from beehive import watchdog
from beehive.supervise import Part, run_daemon, supervise
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
look = watchdog.Watchdog(look_s=0.05, tell_s=0.2, loop_limit_s={limit})

def a_deadlock():
    threading.Lock().acquire() and time.sleep({blocked})

async def part():
    await asyncio.sleep(0.3)
    print("begins", flush=True)
    {what}
    print("ends", flush=True)
    await asyncio.Event().wait()

run_daemon(supervise([Part(name="a", run=part)]), watchdog=look)
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        yield heard


def start(
    limit: float, blocked: float, what: str, manager: socket.socket | None = None
) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if manager is not None:
        environment |= {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "300000000"}
    return subprocess.Popen(
        [sys.executable, "-c", DAEMON.format(limit=limit, blocked=blocked, what=what)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_loop_that_is_blocked_for_ever_ends_the_process_and_says_where() -> None:
    daemon = start(1.0, 3600, "a_deadlock()")
    _, told = daemon.communicate(timeout=60)
    assert daemon.returncode == HANGS, told
    assert "The event loop has stood still for" in told
    assert "Ending the process: the event loop has stood still" in told
    assert "in a_deadlock" in told


def test_a_part_that_stands_still_is_told_with_what_every_task_waits_for() -> None:
    what = "look.watch(watchdog.Vital(name='part', pulse=lambda: 1, limit_s=1.0, tell_s=0.2))"
    daemon = start(1000.0, 0.0, what)
    _, told = daemon.communicate(timeout=60)
    assert daemon.returncode == HANGS, told
    assert "The part has stood still for" in told
    assert " wait" in told.partition("task a: ")[2].partition("\n")[0]


def test_a_loop_that_is_slow_is_told_and_lives() -> None:
    daemon = start(1000.0, 1.0, "a_deadlock()")
    assert daemon.stderr is not None
    told = ""
    while "goes on after standing still" not in told:
        line = daemon.stderr.readline()
        assert line, told
        told += line
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=60)
    assert daemon.returncode == 0


def test_the_service_manager_hears_that_it_is_ready_goes_on_and_stops(manager: socket.socket) -> None:
    daemon = start(
        1000.0, 0.0, "print(sorted(set(os.environ) & {'NOTIFY_SOCKET', 'WATCHDOG_USEC'}))", manager
    )
    try:
        assert manager.recv(1024) == b"READY=1\nWATCHDOG=1"
        for _ in range(20):
            assert manager.recv(1024) == b"WATCHDOG=1"
    finally:
        daemon.send_signal(signal.SIGTERM)
        out, _ = daemon.communicate(timeout=60)
    last = b""
    while last != b"STOPPING=1":
        last = manager.recv(1024)
    assert daemon.returncode == 0
    assert out.splitlines()[1] == "[]"  # programs that it starts are not taken for it


def test_a_process_that_is_stopped_for_long_is_not_ended_when_it_goes_on(manager: socket.socket) -> None:
    daemon = start(1.5, 0.0, "pass", manager)
    try:
        assert manager.recv(1024) == b"READY=1\nWATCHDOG=1"
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(3)
        daemon.send_signal(signal.SIGCONT)
        for _ in range(30):
            assert manager.recv(1024) == b"WATCHDOG=1"
        assert daemon.poll() is None
    finally:
        daemon.send_signal(signal.SIGCONT)
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=60)
    assert daemon.returncode == 0


def test_the_stacks_are_there_when_the_service_manager_ends_it(manager: socket.socket) -> None:
    daemon = start(1000.0, 3600, "a_deadlock()", manager)
    assert manager.recv(1024) == b"READY=1\nWATCHDOG=1"
    assert daemon.stderr is not None
    assert "has stood still" in daemon.stderr.readline()  # so it is there
    daemon.send_signal(signal.SIGABRT)
    _, told = daemon.communicate(timeout=60)
    assert daemon.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in told
    assert "in a_deadlock" in told
