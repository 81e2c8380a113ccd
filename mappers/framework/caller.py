"""A thread of its own for one driver's plain functions: one call at a time, and nobody waits for one that never returns."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Caller:
    """The thread starts with the first call and ends with `leave`, or with the process: it does not hold that up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a thread: after `leave`, one whose call has not returned."""
        return self._thread is not None and self._thread.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """What `function` returns or raises.  Raises: RuntimeError (no thread can be started)."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        done: Future[Any] = Future()
        self._jobs.put((done, function, arguments))
        return done

    def leave(self) -> None:
        """There are no more calls; one that is under way may go on."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, function, arguments = job
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(function(*arguments))
            except BaseException as error:  # the thread's boundary: whoever waits hears of it
                done.set_exception(error)
            # what it holds must not live until the next call
            del job, done, function, arguments
