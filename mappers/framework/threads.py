"""Threads that a driver starts and never ends.

A process full of them takes the board's memory with it, so it ends first and is started anew."""

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sized

from mappers.framework.errors import DriverError

log = logging.getLogger(__name__)

LOOK_S = 10.0
MANY = 64
TOO_MANY = 512
"""Beside those of the devices.  Each has a stack of some ten KiB in use, and 8 MiB reserved."""
_DIGITS = re.compile(r"[0-9]+")
OF_A_DEVICE = 8
"""A plain driver's own, those of its calls that hang, and a library's."""


def judge(names: Iterable[str], devices: int) -> tuple[str, bool]:
    """What is to be said of a process's threads, empty for nothing, and whether it should end.  Pure."""
    counts = Counter(_DIGITS.sub("N", name) for name in names)
    total = sum(counts.values()) - OF_A_DEVICE * devices
    if total < MANY:
        return "", False
    most = ", ".join(f"{count} called {name[:64]}" for name, count in counts.most_common(3))
    return (
        f"the driver has {sum(counts.values())} threads, {most}: it should end those that it starts",
        total >= TOO_MANY,
    )


async def watch(devices: Sized) -> None:
    """Never returns.  Raises: DriverError when there are too many."""
    said = False
    while True:
        await asyncio.sleep(LOOK_S)
        text, end = judge((thread.name for thread in threading.enumerate()), len(devices))
        if end:
            raise DriverError(text)
        if text and not said:
            log.warning("%s", text[0].upper() + text[1:])
        said = bool(text)
