"""Tell a person at a terminal, or a log file, what is going on.

On a terminal the current step's line is rewritten while it runs; elsewhere each step is one plain line when it is
done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WIDTH = 22


class Progress:
    """Steps, one after the other."""

    def __init__(
        self, out: TextIO, *, color: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._tty = out.isatty()
        self._color = color and self._tty
        self._clock = clock
        self._begin = 0.0
        self._name = ""
        self.result = ""

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Show a step; `result` may be set inside to say what it gave."""
        self._name, self._begin, self.result = name, self._clock(), ""
        self.tick()
        try:
            yield self
        except BaseException:
            self._finish("31", "failed")
            raise
        self._finish("32", self.result or "done")

    def tick(self, detail: str = "") -> None:
        """Something is still awaited."""
        if self._tty:
            took = self._clock() - self._begin
            self._out.write(f"\r\033[K  {self._name:<{_WIDTH}} {detail or '…'} ({took:.1f} s)")
            self._out.flush()

    def _finish(self, color: str, text: str) -> None:
        took = self._clock() - self._begin
        shown = f"\033[{color}m{text}\033[0m" if self._color else text
        start = "\r\033[K" if self._tty else ""
        self._out.write(f"{start}  {self._name:<{_WIDTH}} {shown} ({took:.1f} s)\n")
        self._out.flush()
