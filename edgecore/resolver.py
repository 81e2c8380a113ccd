"""The daemon's event loop: one whose name look-ups hold up nobody else.

asyncio looks names up in the few threads that all blocking work shares, and a look-up that was given up goes on there until
the resolver's own end, 20 to 30 s on a line that swallows packets.  A node that knocks at its hub every few seconds would
fill them all, and with them the volumes, logs and probes of its pods: just when it is alone.

So each name is looked up once at a time, in a thread of its own that nobody waits for at the end; whoever asks meanwhile shares
it.  What a name meant last is used while nothing answers: the hub may be there although the name server is not, and
who it is its certificate says."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

MAX_LOOKUPS = 16
"""At one time.  The hub's addresses, and what the probes of pods name."""

MAX_KNOWN = 64

PATIENCE_S = 1.5
"""How long a new answer is waited for when there is an old one: the link gives a knock 2.5 s in all."""

Lookup = Callable[..., list[Any]]
"""As socket.getaddrinfo."""


class Names:
    """Of one event loop."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._asked: dict[tuple[Any, ...], asyncio.Future[list[Any]]] = {}
        self._known: OrderedDict[tuple[Any, ...], list[Any]] = OrderedDict()

    async def find(self, *question: Any) -> list[Any]:
        """The answer to getaddrinfo's arguments.  Raises: socket.gaierror."""
        answer = self._ask(question)
        known = self._known.get(question)
        try:
            async with asyncio.timeout(PATIENCE_S if known is not None else None):
                return await asyncio.shield(answer)
        except (TimeoutError, socket.gaierror) as error:
            # a name that is no more is an answer too
            if known is None or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME):
                raise
            log.debug("! no name server answers about %s, using what it was: %s", question[0], error)
            return known

    def _ask(self, question: tuple[Any, ...]) -> asyncio.Future[list[Any]]:
        answer = self._asked.get(question)
        if answer is not None:
            return answer
        if len(self._asked) >= MAX_LOOKUPS:
            raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        # whoever asked may have gone: then nobody wants to hear of a failure
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        thread = threading.Thread(target=self._look, args=(loop, question), name="resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads on this machine
            raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
        self._asked[question] = answer
        return answer

    def _look(self, loop: asyncio.AbstractEventLoop, question: tuple[Any, ...]) -> None:
        found: list[Any] | Exception
        try:
            found = self._lookup(*question)
        except Exception as error:  # the thread's boundary: whoever waits hears of it
            found = error
        try:
            loop.call_soon_threadsafe(self._answer, question, found)
        except RuntimeError:
            log.debug("x the daemon ended before %s was found", question[0])

    def _answer(self, question: tuple[Any, ...], found: list[Any] | Exception) -> None:
        answer = self._asked.pop(question)
        if isinstance(found, Exception):
            answer.set_exception(found)
            return
        self._known[question] = found
        self._known.move_to_end(question)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        answer.set_result(found)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own but for the look-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names()

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        return await self.names.find(host, port, family, type, proto, flags)
