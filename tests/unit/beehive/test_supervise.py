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
