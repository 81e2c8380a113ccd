"""The frame that every daemon runs in: parts in one TaskGroup, an ordered stop, signals.  Parts may follow while others run.

A part is an object with a `name` and `async def run()` that never returns by itself; a return is a fault and ends the
daemon, as does an exception, so that whoever started the daemon restarts it whole.  The first SIGTERM or SIGINT stops the parts
in reverse order of start, each within its budget; the second ends the process at once.

An end that has begun comes to its end: a part or a thread that hangs (a dead disk, a call that nobody answers) would leave a
daemon that does nothing and is not restarted either, so after a while the process ends without them.  A loop that is blocked
hears no signal; a thread does, and ends the process when the loop stays deaf."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import FrameType
from typing import Any

import msgspec

from beehive.errors import SkerryError
from beehive.watchdog import HANGS, Watchdog, stacks

log = logging.getLogger(__name__)

STOP_S = 10.0
"""How long one part may take to stop."""

FAULT_S = 30.0
"""How long all parts together may take to end when one of them failed; then the process ends without them."""

DEAF_S = 30.0
"""How long the loop may be blocked once a signal came; then the process ends.  A small board under load is late by seconds."""

LOOKS = 30
"""In how many looks that is counted: a process that is frozen, or gets no processor, does not look either."""

EXIT_S = 20.0
"""How long what is left may take once all parts have ended: threads that are still at work, files to close."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One named, endless activity.  `stop_s`: how long its clean-up after cancellation may take."""

    name: str
    run: Callable[[], Awaitable[None]]
    stop_s: float = STOP_S


class PartEnded(RuntimeError):
    """A part returned although it should not."""


async def supervise(
    parts: Sequence[Part],
    *,
    then: Callable[[], Awaitable[Sequence[Part]]] | None = None,
    stop: asyncio.Event | None = None,
    signals: bool = True,
    deaf_s: float = DEAF_S,
) -> None:
    """Run `parts` until `stop` is set or a signal comes.  Raises what a failing part raised.

    then: makes more parts while these run; what it raises is a fault, too.   deaf_s: see DEAF_S.
    Stopping cancels the parts from the last to the first and waits for each in turn."""
    running = list(parts)
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    listening = _Signals(stop, deaf_s) if signals else None
    if listening is not None:
        listening.listen(loop)
    failure: BaseException | None = None
    tasks: list[asyncio.Task[None]] = []
    ending = _Ending(lambda: ", ".join(task.get_name() for task in tasks if not task.done()))
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(_guard(part, stop, ending), name=part.name) for part in running]

            async def follow(make: Callable[[], Awaitable[Sequence[Part]]]) -> None:
                more = await _made(make, ending)
                running.extend(more)
                tasks.extend(group.create_task(_guard(part, stop, ending), name=part.name) for part in more)

            following = group.create_task(follow(then), name="parts that follow") if then else None
            try:
                await stop.wait()
            finally:
                # also when our caller is cancelled: from here on a cancelled part is no fault
                ending.begin(FAULT_S + (sum(part.stop_s for part in running) if stop.is_set() else 0.0))
            if following is not None:
                following.cancel()
                await asyncio.wait([following], timeout=STOP_S)
            for task, part in zip(reversed(tasks), reversed(running), strict=True):
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=part.stop_s)
                if not done:
                    log.warning("Part %s did not stop within %.0f s", part.name, part.stop_s)
    except BaseExceptionGroup as faults:
        # one fault is the cause; the rest are its echoes and are in the log already
        failure = faults.exceptions[0]
    finally:
        ending.is_over()
        if listening is not None:
            listening.over(loop)
    if failure is not None:
        raise failure


def run_daemon(
    main: Coroutine[None, None, None],
    *,
    close: Callable[[], None] = lambda: None,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    watchdog: Watchdog | None = None,
) -> None:
    """asyncio.run, then `close`; both come to an end.  Raises what `main` raises.   loop: makes another than asyncio's.

    watchdog: looks while `main` runs; by default at the loop alone."""
    ending = _Ending(lambda: "a thread or a file")
    watchdog = watchdog or Watchdog()

    async def run() -> None:
        watchdog.start()
        try:
            await main
        finally:
            watchdog.stop()
            ending.begin(EXIT_S)

    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run())
    finally:
        close()
        ending.is_over()


class _Ending:
    """From `begin` to `is_over`, or the process ends.  A thread measures it, since the loop itself may hang."""

    def __init__(self, what_hangs: Callable[[], str]) -> None:
        self._what_hangs = what_hangs
        self._timer: threading.Timer | None = None

    @property
    def begun(self) -> bool:
        return self._timer is not None

    def begin(self, seconds: float) -> None:
        """Only the first counts."""
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._end_process, (seconds,))
            self._timer.daemon = True
            self._timer.start()

    def is_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_process(self, seconds: float) -> None:
        what = self._what_hangs() or "what was to follow"
        log.critical("Ending the process: %s does not end within %.0f s", what, seconds)
        os._exit(HANGS)


async def _made(make: Callable[[], Awaitable[Sequence[Part]]], ending: _Ending) -> Sequence[Part]:
    """The parts that follow."""
    try:
        return await make()
    except Exception as error:
        ending.begin(FAULT_S)
        log.error("The other parts cannot be started: %s", error, exc_info=_shown(error))
        raise


def _shown(error: Exception) -> Exception | None:
    """For the log: one of ours says all in its sentence; what else is raised is a bug, and where it was raised matters."""
    return None if isinstance(error, SkerryError) and not log.isEnabledFor(logging.DEBUG) else error


async def _guard(part: Part, stop: asyncio.Event, ending: _Ending) -> None:
    """Run one part.  `ending`: the group is going down because another part failed."""
    try:
        await part.run()
    except asyncio.CancelledError:
        if stop.is_set() or ending.begun:
            raise
        # nobody of ours cancelled it: without this it would be gone without a word and the daemon would run on
        ending.begin(FAULT_S)
        log.error("Part %s was cancelled from within", part.name)
        raise PartEnded(f"part {part.name} was cancelled from within") from None
    except Exception as error:
        ending.begin(FAULT_S)
        log.error("Part %s failed: %s", part.name, error, exc_info=_shown(error))
        raise
    if not stop.is_set():
        ending.begin(FAULT_S)
        raise PartEnded(f"part {part.name} ended")


class _Signals:
    """SIGTERM and SIGINT: the first sets `stop`, the second ends the process.

    The loop hears of a signal when it turns.  Python hears of it as soon as the main thread is between two of its steps, or
    in a call that the kernel breaks off: so a driver that sleeps in a coroutine does not keep a process alive for ever."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, stop: asyncio.Event, deaf_s: float) -> None:
        self._stop = stop
        self._deaf_s = deaf_s
        self._count = 0
        self._heard = threading.Event()
        # a signal may come in the middle of anything: letting go of a lock is all that its handler does
        self._came = threading.Lock()
        self._came.acquire()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in self.NUMBERS:
            loop.add_signal_handler(number, self._on_signal, number)
            self._before(number, signal.getsignal(number))
        threading.Thread(target=self._mind, name="signals", daemon=True).start()

    def over(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in self.NUMBERS:
            loop.remove_signal_handler(number)
        self._heard.set()
        self._let_go()

    def _before(self, number: int, loops_own: Any) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            self._count += 1
            if self._count > 1 and not self._heard.is_set():
                os._exit(128 + number)
            self._let_go()
            if callable(loops_own):
                loops_own(number, frame)

        signal.signal(number, handle)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            self._came.release()

    def _mind(self) -> None:
        self._came.acquire()
        for _ in range(LOOKS):
            if self._heard.wait(self._deaf_s / LOOKS):
                return
        log.critical(
            "Ending the process: told to stop, and its event loop is blocked for %.0f s; all threads:\n%s",
            self._deaf_s,
            stacks(),
        )
        os._exit(HANGS)

    def _on_signal(self, number: int) -> None:
        """In the loop."""
        self._heard.set()
        if self._stop.is_set():
            log.warning("Second signal: ending at once")
            os._exit(128 + number)
        log.info("Stopping on %s", signal.Signals(number).name)
        self._stop.set()
