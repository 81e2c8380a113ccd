"""Notices that a daemon stands still: its event loop is blocked, or a part that matters makes no progress.

A thread looks every few seconds at the *pulse* of the loop and of each vital part, a value that changes as it goes on.  What
stands still for a while is told once, with the stacks of all threads, so that the log says where; what stands still for its
whole limit ends the process with exit code 70, and whoever started the daemon starts it again.  Pods do not notice.

While everything goes on the service manager is told so (sd_notify(3), by a plain socket): it ends the process when even this
thread cannot run.  SIGABRT, which it sends for that, prints the stacks too.

Time is counted in looks, not by a clock: a machine that slept, a process that was stopped or gets no processor does not
look either, and none of that is a fault of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks, and between two beats of the loop."""

TELL_S = 15.0
"""What stands still for so long is told.  A small board under load is late by seconds."""

LOOP_LIMIT_S = 180.0
"""How long the loop may be blocked.  It waits for no disk; a board that reads its program back from a slow card while memory is
short takes tens of seconds."""

HANGS = 70
"""The exit code of a process that could not go on, or could not end by itself."""

MAX_FRAMES = 30
MAX_THREADS = 64
MAX_TASKS = 256

_LAST_WORDS_S = 5.0


class Vital(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must go on.  Both functions are called from another thread and must not block.

    pulse: a value that changes with each step; None while there is nothing to do.   limit_s: how long one step may take.
    tell_s: after how long it is told.   excused: whether a restart could not help, because the kernel does not give the thread
    back."""

    name: str
    pulse: Callable[[], object]
    limit_s: float
    tell_s: float = TELL_S
    excused: Callable[[], bool] = lambda: False


class Stands(msgspec.Struct, frozen=True):
    """Told once for each time that it stands still."""

    vital: Vital
    for_s: float


class Goes(msgspec.Struct, frozen=True):
    """It stood still, was told, and goes on."""

    vital: Vital
    stood_s: float


class Over(msgspec.Struct, frozen=True):
    """It has stood still for its whole limit."""

    vital: Vital
    for_s: float


class _Seen(msgspec.Struct):
    pulse: object = None
    looks: int = 0
    told: bool = False


class Judge:
    """What follows from the pulses, look by look."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._seen: dict[str, _Seen] = {}

    def look(self, vitals: Sequence[Vital]) -> list[Stands | Goes | Over]:
        """To be called every `look_s`."""
        told: list[Stands | Goes | Over] = []
        for vital in vitals:
            seen = self._seen.setdefault(vital.name, _Seen())
            pulse = vital.pulse()
            if pulse is None or pulse != seen.pulse:
                if seen.told:
                    told.append(Goes(vital, seen.looks * self._look_s))
                seen.pulse, seen.looks, seen.told = pulse, 0, False
                continue
            seen.looks += 1
            stands_s = seen.looks * self._look_s
            if not seen.told and stands_s >= min(vital.tell_s, vital.limit_s):
                seen.told = True
                told.append(Stands(vital, stands_s))
            if stands_s >= vital.limit_s and not vital.excused():
                told.append(Over(vital, stands_s))
        return told


class Watchdog:
    """One for a process.  `watch` what matters; `start` from the running loop; `stop` when the daemon ends."""

    def __init__(
        self, *, look_s: float = LOOK_S, tell_s: float = TELL_S, loop_limit_s: float = LOOP_LIMIT_S
    ) -> None:
        self._look_s = look_s
        self._judge = Judge(look_s)
        self._beats = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._vitals = [
            Vital(name="event loop", pulse=lambda: self._beats, limit_s=loop_limit_s, tell_s=tell_s)
        ]
        self._manager = _Manager(os.environ.pop("NOTIFY_SOCKET", ""))
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):  # not for the programs that the daemon starts
            os.environ.pop(name, None)
        self._done = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, vital: Vital) -> None:
        self._vitals.append(vital)

    def start(self) -> None:
        """The daemon could start: tell the service manager, and look from now on."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a caller whose stderr is no file
            faulthandler.enable()
        self._loop = asyncio.get_running_loop()
        self._beat(self._loop)
        self._manager.tell("READY=1\nWATCHDOG=1")
        threading.Thread(target=self._look_for_ever, name="watchdog", daemon=True).start()

    def need(self, seconds: float) -> None:
        """Ask the service manager for so much time to stop, whatever it is set to give."""
        self._manager.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def stop(self) -> None:
        """From here on it is the end that is measured, by whoever ends the daemon."""
        self._done.set()
        if self._timer is not None:
            self._timer.cancel()
        self._manager.tell("STOPPING=1")

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beats += 1
        self._timer = loop.call_later(self._look_s, self._beat, loop)

    def _look_for_ever(self) -> None:
        while not self._done.wait(self._look_s):
            verdicts = self._judge.look(self._vitals)
            if self._done.is_set():
                return
            for verdict in verdicts:
                if isinstance(verdict, Over):
                    _end(verdict)
                # a log that nobody reads may be what blocks the loop: it must not block this thread too
                threading.Thread(target=_tell, args=(verdict,), name="watchdog-tells", daemon=True).start()
                if isinstance(verdict, Stands) and verdict.vital is not self._vitals[0]:
                    assert self._loop is not None, "started with one"
                    self._loop.call_soon_threadsafe(_tell_tasks)
            self._manager.tell("WATCHDOG=1")


def _tell(verdict: Stands | Goes) -> None:
    if isinstance(verdict, Goes):
        log.warning("The %s goes on after standing still for %.0f s", verdict.vital.name, verdict.stood_s)
        return
    log.error(
        "The %s has stood still for %.0f s; all threads:\n%s", verdict.vital.name, verdict.for_s, stacks()
    )


def _tell_tasks() -> None:
    log.error("All tasks:\n%s", tasks())


def _end(verdict: Over) -> None:
    last = threading.Timer(_LAST_WORDS_S, os._exit, (HANGS,))
    last.daemon = True
    last.start()
    log.critical(
        "Ending the process: the %s has stood still for %.0f s; all threads:\n%s",
        verdict.vital.name,
        verdict.for_s,
        stacks(),
    )
    os._exit(HANGS)


def stacks() -> str:
    """Where every thread of this process is, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for ident, frame in list(sys._current_frames().items())[:MAX_THREADS]:
        lines = traceback.format_stack(frame)[-MAX_FRAMES:]
        told.append(f"thread {names.get(ident, ident)}:\n{''.join(lines)}")
    return "".join(told).rstrip()


def tasks() -> str:
    """Where every task of the running loop waits, innermost call last."""
    return "\n".join(sorted(_where(task) for task in asyncio.all_tasks())[:MAX_TASKS])


def _where(task: asyncio.Task[Any]) -> str:
    told: list[str] = []
    waits: Any = task.get_coro()
    while waits is not None and len(told) < MAX_FRAMES:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            told.append(f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {code.co_name}")
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return f"task {task.get_name()}: {' > '.join(told)}"


class _Manager:
    """The service manager's socket; without one nothing is told."""

    def __init__(self, address: str) -> None:
        # an address that begins with @ is in the abstract name space (sd_notify(3))
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def tell(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("! cannot tell the service manager: %s", error)
