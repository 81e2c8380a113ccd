"""Programs that were ended because the machine was out of memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from edgecore.edged import nodeevents, oomwatch

KILLED = b"3,1200,99,-;Out of memory: Killed process %d (python3) total-vm:4096kB, anon-rss:0kB, UID:0\n SUBSYSTEM=x\n"


@pytest.mark.parametrize(
    ("record", "victim"),
    [
        (KILLED % 12, (12, "python3")),
        (b"3,1,2,c;Out of memory: Kill process 7 (a (b) c) score 900 or sacrifice child\n", (7, "a (b) c")),
        (b"3,1,2,-;Memory cgroup out of memory: Killed process 12 (tail) total-vm:4096kB\n", None),
        (b"6,1,2,-;veth1: entered promiscuous mode\n", None),
        # somebody else than the kernel
        (b"11,1,2,-;Out of memory: Killed process 12 (python3)\n", None),
        (b"", None),
        (b"\xff" * 8192, None),
    ],
)
def test_what_the_kernel_says(record: bytes, victim: tuple[int, str] | None) -> None:
    assert oomwatch.read(record) == victim


def test_how_many_are_told() -> None:
    allowance = oomwatch.Allowance()
    assert [allowance.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not allowance.take(159.0)
    assert allowance.take(161.0)
    assert not allowance.take(162.0)
    assert [allowance.take(10_000.0) for _ in range(7)] == [True] * 5 + [False] * 2


def test_each_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    told: list[nodeevents.Told] = []

    async def scene() -> None:
        heard = asyncio.Event()

        async def tell(event: nodeevents.Told) -> None:
            told.append(event)
            heard.set()

        task = asyncio.ensure_future(oomwatch.watch(tell, lambda: 1.0, path))
        try:
            while not task.done():
                try:
                    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError:
                    await asyncio.sleep(0.01)
            for number in (12, 13):
                heard.clear()
                os.write(writer, KILLED % number)
                await asyncio.wait_for(heard.wait(), 10)
            os.close(writer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert [(t.kind, t.reason, t.message) for t in told] == [
        ("Warning", "SystemOOM", f"System OOM encountered, victim process: python3, pid: {number}")
        for number in (12, 13)
    ]


def test_a_machine_without_a_log_is_no_trouble(tmp_path: Path) -> None:
    async def tell(event: nodeevents.Told) -> None:
        raise AssertionError(event)

    asyncio.run(oomwatch.watch(tell, lambda: 1.0, tmp_path / "absent"))
