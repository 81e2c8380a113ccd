"""When memory is given back: cloudcore.memory."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from cloudcore import memory
from tests.support import virtualtime


def test_it_tidies_once_after_a_storm_and_not_within(monkeypatch: pytest.MonkeyPatch) -> None:
    tidied: list[float] = []
    opened = 0

    async def test() -> None:
        nonlocal opened
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(memory, "tidy", lambda: tidied.append(loop.time()))
        task = asyncio.create_task(memory.Tidier(lambda: opened, lambda: False).run())
        await asyncio.sleep(10 * memory.LOOK_S)
        assert tidied == []
        for _ in range(20):
            opened += 5
            await asyncio.sleep(memory.LOOK_S / 2)
            assert tidied == [], "while they still come"
        await asyncio.sleep(10 * memory.LOOK_S)
        assert len(tidied) == 1
        opened += memory.MANY - 1
        await asyncio.sleep(10 * memory.LOOK_S)
        assert len(tidied) == 1, "too few to matter"
        task.cancel()
        await asyncio.wait([task])

    try:
        virtualtime.run(test())
    finally:
        gc.unfreeze()


def test_blocks_are_kept_while_something_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    piped = True
    for name in ("roomy", "frugal", "tidy"):
        monkeypatch.setattr(memory, name, lambda name=name: done.append(name))

    async def test() -> None:
        nonlocal piped
        tidier = memory.Tidier(lambda: 0, lambda: piped)
        task = asyncio.create_task(tidier.run())
        await asyncio.sleep(5 * memory.LOOK_S)
        assert done == []
        for _ in range(3):
            tidier.expect()
        await asyncio.sleep(5 * memory.LOOK_S)
        assert done == ["roomy"]
        piped = False
        await asyncio.sleep(5 * memory.LOOK_S)
        assert done == ["roomy", "frugal", "tidy"]
        tidier.expect()
        assert done[3:] == ["roomy"]
        task.cancel()
        await asyncio.wait([task])

    try:
        virtualtime.run(test())
    finally:
        gc.unfreeze()


def test_what_refers_to_itself_is_collected() -> None:
    class Ring:
        own: Any = None

    ring = Ring()
    ring.own = ring
    before = len([thing for thing in gc.get_objects() if isinstance(thing, Ring)])
    del ring
    memory.tidy()
    after = len([thing for thing in gc.get_objects() if isinstance(thing, Ring)])
    assert (before, after) == (1, 0)
