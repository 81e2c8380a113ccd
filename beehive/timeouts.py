"""Make asyncio.timeout work beside asyncio.TaskGroup on Python 3.11.0 to 3.11.4; Debian 12 has 3.11.2.

A TaskGroup that ends by the failure of a task leaves one cancellation request counted on its parent.  From then on a
timeout of that task that expires raised CancelledError instead of TimeoutError there, because it took the old request for
a new one, and a cancelled task ends without a word: the link to the cloud was never tried again.  Later versions compare
with how many requests there were when the timeout began, and so does this.

Source: CPython, Lib/asyncio/timeouts.py of 3.11.2 and of 3.11.7."""

from __future__ import annotations

import asyncio
from asyncio import timeouts
from types import TracebackType
from typing import Any


def repair() -> bool:
    """Replace what is wrong in this interpreter's asyncio.Timeout; whether anything was.  Safe to call again."""
    timeout: Any = timeouts.Timeout
    enter = timeout.__aenter__
    if "cancelling" in enter.__code__.co_names:
        return False
    leave = timeout.__aexit__
    module: Any = timeouts  # its states are private, and the stubs leave them out
    timeout_states = module._State

    async def aenter(self: Any) -> Any:
        result = await enter(self)
        self._cancelling = self._task.cancelling()
        return result

    async def aexit(
        self: Any,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        if self._state is not timeout_states.EXPIRING:
            outcome: bool | None = await leave(self, exc_type, exc_val, exc_tb)
            return outcome
        if self._timeout_handler is not None:
            self._timeout_handler.cancel()
            self._timeout_handler = None
        self._state = timeout_states.EXPIRED
        if self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc_val
        return None

    # it does read `cancelling`, which is how a second call knows
    timeout.__aenter__, timeout.__aexit__ = aenter, aexit
    return True
