"""Programs that the kernel ended because the whole machine was out of memory, as its log tells them.

Only those: what passes a limit of its own is told by its container's status.  Source: kubelet, oom/oom_watcher_linux.go;
kernel, Documentation/ABI/testing/dev-kmsg, mm/oom_kill.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from edgecore.edged import nodeevents

log = logging.getLogger(__name__)

KMSG = Path("/dev/kmsg")
# The kernel's bound on a record is 8 KiB less its head; a shorter read would lose one that is longer.
RECORD_BYTES = 8192
# A machine that thrashes ends one program after the other: so many are told at once, and one more each PER_S.
BURST, PER_S = 5, 60.0

# facility 0 is the kernel itself: anybody who may write there could say such things
_RECORD = re.compile(
    rb"([0-7]),\d+,\d+,[^;]*;Out of memory(?: \(oom_kill_allocating_task\))?: Kill(?:ed)? process (\d+) "
    rb"\(([^\n]{1,64})\) (?:score|total-vm)"
)


def read(record: bytes) -> tuple[int, str] | None:
    """Process id and name of a program that was ended, if the record is about one."""
    found = _RECORD.match(record)
    return (int(found[2]), found[3].decode("utf-8", "replace")) if found is not None else None


class Allowance:
    """How many may be told now."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more may be.  now: seconds that only grow."""
        if self._at is not None:
            self._left = min(float(BURST), self._left + (now - self._at) / PER_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def watch(
    tell: Callable[[nodeevents.Told], Awaitable[None]], monotonic: Callable[[], float], path: Path = KMSG
) -> None:
    """Tell of each from now on, for ever; returns where the log cannot be read (any more): nothing else depends on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        log.debug("Programs that are ended for lack of memory are not told of: %s", err)
        return
    ready = asyncio.Event()
    loop, allowance = asyncio.get_running_loop(), Allowance()
    try:
        with contextlib.suppress(OSError):
            # what was before is not news
            os.lseek(fd, 0, os.SEEK_END)
        loop.add_reader(fd, ready.set)
        while True:
            await ready.wait()
            ready.clear()
            records, over = _records(fd)
            for record in records:
                victim = read(record)
                if victim is not None and allowance.take(monotonic()):
                    await tell(nodeevents.system_oom(*victim))
            if over:
                log.warning(
                    "The kernel's log ended: programs that are ended for lack of memory are not told of"
                )
                return
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _records(fd: int) -> tuple[list[bytes], bool]:
    """Those that are there now, as many as fit into 1 MiB, and whether there will be no more."""
    found: list[bytes] = []
    for _ in range(128):
        try:
            record = os.read(fd, RECORD_BYTES)
        except BlockingIOError:
            return found, False
        except BrokenPipeError:
            # the kernel wrote over some before they were read
            continue
        except OSError:
            return found, True
        if not record:
            return found, True
        found.append(record)
    return found, False
