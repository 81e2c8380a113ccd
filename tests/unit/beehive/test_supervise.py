"""Starting and stopping parts: beehive.supervise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from beehive.errors import Refused
from beehive.supervise import HANGS, Part, PartEnded, run_daemon, supervise


def test_parts_stop_in_reverse_order() -> None:
    stopped: list[str] = []

    def part(name: str) -> Part:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(name)

        return Part(name=name, run=run)

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stop.set)
        await supervise([part("store"), part("pods"), part("link")], stop=stop, signals=False)

    asyncio.run(main())
    assert stopped == ["link", "pods", "store"]


def test_a_part_that_returns_is_a_fault() -> None:
    async def run() -> None:
        return

    with pytest.raises(PartEnded, match="part a ended"):
        asyncio.run(supervise([Part(name="a", run=run)], signals=False))


def test_a_failing_part_ends_the_others_and_its_error_comes_out() -> None:
    ended = []

    async def fail() -> None:
        raise OSError("broken")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(OSError, match="broken"):
        asyncio.run(supervise([Part(name="w", run=wait), Part(name="f", run=fail)], signals=False))
    assert ended == [True]


@pytest.mark.parametrize(("error", "traced"), [(Refused("port 1 is taken"), False), (KeyError("x"), True)])
def test_only_a_bug_is_shown_with_where_it_was_raised(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    async def run() -> None:
        raise error

    with contextlib.suppress(type(error)):
        asyncio.run(supervise([Part(name="a", run=run)], signals=False))
    record = next(record for record in caplog.records if "Part a failed" in record.message)
    assert str(error) in record.message
    assert bool(record.exc_info) is traced


def test_a_part_that_is_cancelled_from_within_is_a_fault() -> None:
    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        # not the top level, where a cancelled main task would look the same
        await asyncio.wait_for(supervise([Part(name="a", run=run)], signals=False), 30)

    with pytest.raises(PartEnded, match="cancelled from within"):
        asyncio.run(main())


def test_the_whole_stops_when_its_caller_is_cancelled() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(supervise([Part(name="a", run=wait)], signals=False))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


HANGING = """
import asyncio, sys, time
from beehive import supervise
supervise.FAULT_S = supervise.EXIT_S = 0.2

async def fail():
    raise OSError("broken")

async def hang():
    try:
        await asyncio.Event().wait()
    finally:
        {clean_up}

async def main():
    await supervise.supervise([supervise.Part(name="hangs", run=hang), supervise.Part(name="fails", run=fail)])

supervise.run_daemon(main(), close=lambda: {close})
"""


@pytest.mark.parametrize(
    ("clean_up", "close"),
    [
        ("await asyncio.sleep(3600)", "None"),
        ("time.sleep(3600)", "None"),
        ("asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)", "None"),
        ("pass", "time.sleep(3600)"),
    ],
    ids=["a part", "the loop", "a thread", "closing"],
)
def test_a_daemon_of_which_something_hangs_ends_all_the_same(clean_up: str, close: str) -> None:
    """Else it would do nothing for ever, and whoever restarts what has ended would not."""
    program = HANGING.format(clean_up=clean_up, close=close)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == HANGS, done.stderr
    assert "Ending the process" in done.stderr


DEAF = """
import asyncio, sys, time
from beehive.supervise import Part, supervise

async def block():
    print("blocked", flush=True)
    {block}
    await asyncio.Event().wait()

asyncio.run(supervise([Part(name="blocks", run=block)], deaf_s={deaf_s}))
"""


def _deaf(block: str, deaf_s: float) -> subprocess.Popen[str]:
    program = DEAF.format(block=block, deaf_s=deaf_s)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "blocked\n"
    return process


BLOCKS = ["time.sleep(3600)", "while True: pass"]


@pytest.mark.parametrize("block", BLOCKS, ids=["sleeps", "computes"])
def test_a_process_whose_loop_is_blocked_ends_all_the_same_when_it_is_told_to(block: str) -> None:
    process = _deaf(block, 0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == HANGS, said
    assert "its event loop is blocked" in said
    assert "in block" in said  # where


@pytest.mark.parametrize("block", BLOCKS, ids=["sleeps", "computes"])
def test_the_second_signal_ends_a_process_at_once_whose_loop_is_blocked(block: str) -> None:
    process = _deaf(block, 3600.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # two at once are one
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT


def test_a_loop_that_is_only_late_stops_in_order() -> None:
    process = _deaf("time.sleep(0.5)", 30.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_a_process_that_was_frozen_while_it_was_told_to_stop_is_not_deaf() -> None:
    process = _deaf("time.sleep(1)", 2.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_the_error_of_a_part_comes_out_of_a_daemon_that_ends_by_itself() -> None:
    closed = []

    async def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        run_daemon(supervise([Part(name="f", run=fail)], signals=False), close=lambda: closed.append(True))
    assert closed == [True]
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


def _waiting(name: str, log: list[str]) -> Part:
    async def run() -> None:
        log.append(f"{name} runs")
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f"{name} stops")

    return Part(name=name, run=run)


def test_parts_that_follow_start_later_and_stop_first() -> None:
    log: list[str] = []

    async def main() -> None:
        stop = asyncio.Event()

        async def more() -> list[Part]:
            log.append("more is made")
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.01, stop.set)
            return [_waiting("link", log), _waiting("end", log)]

        await supervise([_waiting("store", log), _waiting("pods", log)], then=more, stop=stop, signals=False)

    asyncio.run(main())
    assert set(log[:3]) == {"store runs", "pods runs", "more is made"}
    assert log[3:] == ["link runs", "end runs", "end stops", "link stops", "pods stops", "store stops"]


def test_a_stop_does_not_wait_for_parts_that_are_still_to_follow() -> None:
    log: list[str] = []

    async def main() -> None:
        stop = asyncio.Event()

        async def never() -> list[Part]:
            stop.set()
            return await asyncio.Event().wait() and []

        await supervise([_waiting("store", log)], then=never, stop=stop, signals=False)

    asyncio.run(main())
    assert log == ["store runs", "store stops"]


@pytest.mark.parametrize(("error", "traced"), [(Refused("no such port"), False), (KeyError("x"), True)])
def test_parts_that_cannot_be_made_end_the_daemon(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    log: list[str] = []

    async def fail() -> list[Part]:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(supervise([_waiting("store", log)], then=fail, signals=False))
    assert log == ["store runs", "store stops"]
    (told,) = [r for r in caplog.records if "cannot be started" in r.message]
    assert (told.exc_info is not None) == traced
