"""Runs what arrived from one node: frames about one thing in order, frames about different things at once, within bounds.

Belongs to one connection and ends with it.  When too much waits, `submit` waits too, so that the socket is not read on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

WIDTH = 8
"""Frames of one node that are worked on at once."""
WAITING = 256
"""Frames of one node that wait, before its socket is not read any more."""


class Lanes(Generic[T]):
    """`work` must not raise."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        work: Callable[[T], Awaitable[None]],
        *,
        width: int = WIDTH,
        waiting: int = WAITING,
    ) -> None:
        self._group = group
        self._work = work
        self._width = asyncio.Semaphore(width)
        self._room = asyncio.Semaphore(waiting)
        self._lanes: dict[str, deque[T]] = {}

    async def submit(self, key: str, item: T) -> None:
        """Do `item` after what was submitted before it under the same key."""
        await self._room.acquire()
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(item)
            return
        self._lanes[key] = deque((item,))
        self._group.create_task(self._run(key), name=f"lane {key}")

    async def _run(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            item = lane.popleft()
            try:
                async with self._width:
                    await self._work(item)
            finally:
                self._room.release()
        del self._lanes[key]
