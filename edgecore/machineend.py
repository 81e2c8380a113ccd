"""Whether this machine is going down: then the pods end before edgecore does.

Asked at the moment when edgecore is stopped: systemd stops a unit before what it is ordered after, so containerd still runs.
Then its manager says `stopping`, which `systemctl is-system-running` tells without any bus library; in every other state it
is only the service that stops, and pods run on.  A machine without systemd never says so.

Source: systemctl(1), is-system-running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

ASK_S = 3.0
"""How long the answer may take; a manager that is that busy is taken for one that goes on."""
MARGIN_S = 10.0
"""What edgecore itself needs after the last pod has ended, and what the first needs to be told."""


async def is_stopping() -> bool:
    """Whether the machine goes down.  Raises nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            "systemctl",
            "is-system-running",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.debug("No systemctl here: %s", error)
        return False
    try:
        async with asyncio.timeout(ASK_S):
            text, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        log.warning(
            "systemctl does not say whether the machine goes down: taking it for a stop of edgecore alone"
        )
        return False
    return text.strip() == b"stopping"


class MachineEnd:
    """A part that is stopped first of all.  shut_down: ends the pods.   seconds: how long that may take.
    need: asks the service manager for so much time.   stopping: whether the machine goes down."""

    def __init__(
        self,
        shut_down: Callable[[], Awaitable[None]],
        seconds: float,
        *,
        need: Callable[[float], None] = lambda _: None,
        stopping: Callable[[], Awaitable[bool]] = is_stopping,
    ) -> None:
        self._shut_down = shut_down
        self._seconds = seconds
        self._need = need
        self._stopping = stopping

    @property
    def stop_s(self) -> float:
        return self._seconds + ASK_S + MARGIN_S

    async def run(self) -> None:
        """For ever; when it is cancelled and the machine goes down, only when the pods have ended."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if await self._stopping():
                log.info("The machine goes down: ending pods, at most %.0f s", self._seconds)
                self._need(self._seconds + MARGIN_S)
                try:
                    async with asyncio.timeout(self._seconds + MARGIN_S / 2):
                        await self._shut_down()
                except TimeoutError:
                    log.warning("Not every pod ended in time")
            raise
