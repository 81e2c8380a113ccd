"""The link as metamanager speaks over it: acknowledgements, refusals, thanks, and whatever is of use in this session only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from beehive.errors import SkerryError, Unavailable
from beehive.message import Failure, Group, Message, Op, Source, new, reply
from edgecore.edgehub.session import Session

log = logging.getLogger(__name__)


class Down(Protocol):
    """The link, as far as sending goes."""

    def send(self, message: Message) -> None: ...

    def wake(self) -> None: ...


class Line:
    """Made before the link exists; `bind` gives it the link.   session: None while there is none."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.session: Session | None = None
        self._down: Down | None = None

    def bind(self, down: Down) -> None:
        self._down = down

    @property
    def ours(self) -> bool:
        """Whether there is a link, and to a hub of ours."""
        return self.session is not None and self.session.ours

    def wake(self) -> None:
        """There is something new to take."""
        if self._down is not None:
            self._down.wake()

    def send(self, message: Message) -> None:
        """Raises: Unavailable."""
        if self._down is None or self.session is None:
            raise Unavailable("cannot reach the cloud: no link")
        self._down.send(message)

    def say(self, message: Message) -> None:
        """Send what is of use only in this session."""
        if self._down is None:
            return
        try:
            self._down.send(message)
        except Unavailable:
            log.debug("x %s %s: no link", message.route.operation, message.route.resource)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the hub that these pushes are committed; of no use, and no harm, when the link has gone meanwhile."""
        if not messages or self.session is None:
            return
        if self.session.ours:
            ids = [message.id for message in messages]
            self.say(
                new(
                    source=Source.METAMANAGER,
                    group=Group.RESOURCE,
                    operation=Op.ACK,
                    resource=f"null/node/{self.node}",
                    content=ids,
                )
            )
        else:
            for message in messages:
                self.say(reply(message))

    def refuse(self, message: Message, error: SkerryError) -> None:
        """Tell the hub that this push cannot be used, or not now."""
        text = str(error)[:256]
        content: object = Failure(reason=error.reason, message=text) if self.ours else text
        self.say(reply(message, content, source=Source.METAMANAGER, operation=Op.ERROR))

    def thank(self, answer: Message) -> None:
        """A stock hub sends some answers until they are acknowledged; ours counts what is acknowledged as held."""
        if self.session is not None and not self.session.ours and not answer.is_ok:
            self.say(reply(answer))
