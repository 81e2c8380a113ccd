"""Starting and stopping parts: beehive.supervise."""

from __future__ import annotations

import asyncio

import pytest

from beehive.supervise import Part, PartEnded, supervise


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


def test_a_part_that_is_cancelled_from_within_is_a_fault() -> None:
    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        # not the top level, where a cancelled main task would look the same
        await asyncio.wait_for(supervise([Part(name="a", run=run)], signals=False), 5)

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
