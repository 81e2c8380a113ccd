"""Runs a coroutine on a loop whose time passes at once wherever everybody only sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import looptime

T = TypeVar("T")


class _Loop(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    pass


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _Loop)
        loop.setup_looptime()
        return runner.run(work)
