"""Questions to the cloud: each waits for its answer in memory, a bounded time."""

from __future__ import annotations

import asyncio

import msgspec

from beehive.errors import Unavailable
from beehive.message import Group, Message, Source, new
from edgecore.metamanager import answers
from edgecore.metamanager.line import Line

MAX_WAITING = 1024
"""Questions without an answer yet."""

QUERY_S = 60.0
"""KubeEdge's remoteQueryTimeout."""


class Asking:
    def __init__(self, line: Line, query_s: float) -> None:
        self._line = line
        self._query_s = query_s
        self._waiting: dict[str, asyncio.Future[Message]] = {}

    async def request(self, message: Message, timeout_s: float | None = None) -> Message:
        """Send a question over the link; the answer, whatever it says.  Raises: Unavailable."""
        if self._line.session is None:
            raise Unavailable("cannot reach the cloud: no link")
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("cannot reach the cloud: too many questions wait for answers")
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = waiting
        limit = self._query_s if timeout_s is None else timeout_s
        try:
            self._line.send(message)
            async with asyncio.timeout(limit):
                return await waiting
        except TimeoutError as error:
            raise Unavailable(
                f"the cloud did not answer about {message.route.resource} in {limit:.0f} s"
            ) from error
        finally:
            self._waiting.pop(message.id, None)

    async def ask(self, operation: str, where: str, content: object = None) -> msgspec.Raw | None:
        """A question of the kubelet's kind; the object in the answer.

        Raises: NotFound, Refused, Conflict, Unavailable, ProtocolError."""
        question = new(
            source=Source.EDGED,
            group=Group.META,
            operation=operation,
            resource=where,
            content=msgspec.Raw(b"null") if content is None else content,
        )
        answer = await self.request(question)
        self._line.thank(answer)
        return answers.read(answer)

    def answered(self, message: Message) -> bool:
        """Whether somebody waits for this, or did until just now."""
        waiting = self._waiting.pop(message.parent, None)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(message)
        return True

    def lost(self) -> None:
        """The link went: nobody will answer."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the link was lost before the cloud answered"))
        self._waiting.clear()
