"""The frame that every daemon runs in: parts in one TaskGroup, an ordered stop, signals.

A part is an object with a `name` and `async def run()` that never returns by itself; a return is a fault and ends the
daemon, as does an exception, so that whoever started the daemon restarts it whole.  The first SIGTERM or SIGINT stops the parts
in reverse order of start, each within its budget; the second ends the process at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

STOP_S = 10.0
"""How long one part may take to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One named, endless activity.  `stop_s`: how long its clean-up after cancellation may take."""

    name: str
    run: Callable[[], Awaitable[None]]
    stop_s: float = STOP_S


class PartEnded(RuntimeError):
    """A part returned although it should not."""


async def supervise(
    parts: Sequence[Part], *, stop: asyncio.Event | None = None, signals: bool = True
) -> None:
    """Run `parts` until `stop` is set or a signal comes.  Raises what a failing part raised.

    Stopping cancels the parts from the last to the first and waits for each in turn."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop, number)
    failure: BaseException | None = None
    ending = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_guard(part, stop, ending), name=part.name) for part in parts]
            try:
                await stop.wait()
            finally:
                # also when our caller is cancelled: from here on a cancelled part is no fault
                ending.set()
            for task, part in zip(reversed(tasks), reversed(parts), strict=True):
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=part.stop_s)
                if not done:
                    log.warning("Part %s did not stop within %.0f s", part.name, part.stop_s)
    except BaseExceptionGroup as faults:
        # one fault is the cause; the rest are its echoes and are in the log already
        failure = faults.exceptions[0]
    finally:
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
    if failure is not None:
        raise failure


async def _guard(part: Part, stop: asyncio.Event, ending: asyncio.Event) -> None:
    """Run one part.  `ending`: the group is going down because another part failed."""
    try:
        await part.run()
    except asyncio.CancelledError:
        if stop.is_set() or ending.is_set():
            raise
        # nobody of ours cancelled it: without this it would be gone without a word and the daemon would run on
        ending.set()
        log.error("Part %s was cancelled from within", part.name)
        raise PartEnded(f"part {part.name} was cancelled from within") from None
    except Exception as error:
        ending.set()
        log.error("Part %s failed: %s", part.name, error, exc_info=error)
        raise
    if not stop.is_set():
        ending.set()
        raise PartEnded(f"part {part.name} ended")


def _on_signal(stop: asyncio.Event, number: int) -> None:
    if stop.is_set():
        log.warning("Second signal: ending at once")
        os._exit(128 + number)
    log.info("Stopping on %s", signal.Signals(number).name)
    stop.set()
