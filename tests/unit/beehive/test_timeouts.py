"""Timeouts beside task groups, on whatever Python runs this."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from beehive import timeouts


async def failing() -> None:
    await asyncio.sleep(0)
    raise ValueError("gone")


async def survive_a_failed_group() -> None:
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())


def test_a_timeout_after_a_failed_group_is_a_timeout() -> None:
    async def run() -> None:
        for _ in range(3):
            await survive_a_failed_group()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(10)
            async with asyncio.timeout(10):
                await asyncio.sleep(0)

    asyncio.run(run())


def test_a_cancellation_is_still_one() -> None:
    async def waiting(there: asyncio.Event) -> None:
        await survive_a_failed_group()
        async with asyncio.timeout(60):
            there.set()
            await asyncio.sleep(60)

    async def run() -> None:
        there = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(waiting(there))
            await there.wait()
            task.cancel()
        assert task.cancelled()

    asyncio.run(run())


def test_repairing_again_changes_nothing() -> None:
    assert timeouts.repair() is False
