"""Starts at once are bounded, and one that hangs loses its place."""

from __future__ import annotations

import asyncio

import pytest

from edgecore.edged.starts import Starts, parallel
from tests.support import virtualtime


def test_no_more_than_the_places_at_once() -> None:
    running = most = 0

    async def one(starts: Starts) -> None:
        nonlocal running, most
        async with starts.place():
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1

    async def story() -> None:
        starts = Starts(3)
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(one(starts))
        assert most == 3
        assert asyncio.get_running_loop().time() == pytest.approx(4)

    virtualtime.run(story())


def test_those_that_hang_do_not_hold_back_the_others() -> None:
    async def hang(starts: Starts) -> None:
        async with starts.place():
            await asyncio.sleep(1000)

    async def story() -> None:
        starts = Starts(2, patience_s=5)
        async with asyncio.TaskGroup() as group:
            hanging = [group.create_task(hang(starts)) for _ in range(2)]
            await asyncio.sleep(1)
            async with starts.place():
                assert asyncio.get_running_loop().time() == pytest.approx(5)
            for task in hanging:
                task.cancel()
        # their places were given back once, not twice
        async with starts.place(), starts.place():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(hang(starts), 1)

    virtualtime.run(story())


def test_one_that_is_cancelled_while_it_waits_takes_nothing_away() -> None:
    async def enter(starts: Starts) -> None:
        async with starts.place():
            raise AssertionError("a second place of one")

    async def story() -> None:
        starts = Starts(1)
        async with starts.place():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(enter(starts), 0.1)
        async with asyncio.timeout(0.1), starts.place():
            pass

    virtualtime.run(story())


def test_what_suits_the_machine() -> None:
    assert parallel(7) == 7
    assert parallel(0) >= 4


def test_a_place_that_was_taken_is_left_once_however_often_that_is_said() -> None:
    async def story() -> None:
        starts = Starts(1)
        leave = await starts.take()
        leave()
        leave()
        async with starts.place():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(starts.take(), 0.1)

    virtualtime.run(story())
