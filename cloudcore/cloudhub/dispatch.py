"""From what a session commands to who does it: hands frames to the controllers, and what they answer back to the link.

A controller is a `Part`.  What it raises becomes an answer: an edge of ours hears `error` and sends the frame again later when
it was about something temporary; what was refused for good is said to be so, and its edge counts it as dropped."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from beehive.delivery import Item
from beehive.errors import Conflict, ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import Digest, Failure, Message, Op, Source, reply
from beehive.session import (
    Acked,
    Alive,
    Answered,
    Close,
    Command,
    Compare,
    Declined,
    Difference,
    Failed,
    Forward,
    Send,
    Tell,
)
from cloudcore.cloudhub.nodes import Link, now

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """The frame is finished with.  `replies` go out before its acknowledgement.  `answered`: one of them is the answer that
    the edge waits for, so no acknowledgement is due."""

    replies: Sequence[Message] = ()
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """The part answers by itself, when it is done."""


Outcome = Done | Later
Part = Callable[[Link, Message], Awaitable[Outcome]]

FINISHED = Done()
LATER = Later()


def answer(message: Message) -> Done:
    """Done, by this answer."""
    return Done((message,), answered=True)


def lane_key(message: Message) -> str:
    """Frames with the same key are worked on in order: those about one object, whatever the kind of request."""
    parts = message.route.resource.split("/")
    if message.route.source == "twin":
        return "/".join(parts[:3])
    if len(parts) == 3:
        return f"{parts[0]}/{parts[2]}"
    return message.route.resource[:200]


class Dispatcher:
    """parts: by the names of beehive.session.upstream_part.   on_difference: called when a node may be told what it lacks.
    on_declined: what a node can never use, and why.   on_digest: what it holds, in short."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        on_difference: Callable[[Link, Difference, str], None],
        on_declined: Callable[[Link, Item, str], None] = lambda link, item, text: None,
        on_digest: Callable[[Link, Digest], None] = lambda link, digest: None,
    ) -> None:
        self._parts = parts
        self._on_difference = on_difference
        self._on_declined = on_declined
        self._on_digest = on_digest

    def perform(
        self, link: Link, commands: Sequence[Command], message: Message | None = None
    ) -> list[Forward]:
        """Do what can be done at once; returns what takes time."""
        forwards: list[Forward] = []
        for command in commands:
            match command:
                case Forward():
                    forwards.append(command)
                case Acked(ids):
                    link.acked(ids)
                case Failed(message_id, text):
                    item = link.failed(message_id, now())
                    if item is not None:
                        log.warning("Node %s cannot use %s: %s", link.node, item.message.route.resource, text)
                case Declined(message_id, text):
                    item = link.declined(message_id)
                    if item is not None:
                        log.warning(
                            "Node %s can never use %s: %s", link.node, item.message.route.resource, text
                        )
                        self._on_declined(link, item, text)
                case Difference():
                    self._on_difference(link, command, message.id if message else "")
                case Send(frame):
                    link.reply(frame)
                case Close():
                    link.closing = command
                    link.wake.set()
                case Compare(digest):
                    self._on_digest(link, digest)
                case Alive() | Answered() | Tell():
                    pass
        return forwards

    async def forward(self, link: Link, command: Forward) -> None:
        """Let a part handle one frame; never raises but for cancellation."""
        message = command.message
        part = self._parts.get(command.to)
        if part is None:
            log.debug(
                "%s < %s %s is for nobody here", link.node, message.route.operation, message.route.resource
            )
            link.ack(message.id)
            return
        try:
            outcome = await part(link, message)
        except (Unavailable, Conflict) as error:
            _temporary(link, message, error)
            return
        except (Refused, ProtocolError) as error:
            log.warning(
                "Refused %s %s of node %s: %s",
                message.route.operation,
                message.route.resource[:200],
                link.node,
                error,
            )
            link.refuse(message, error)
            return
        except Exception:
            # the boundary of work for one frame: a fault in it must not end the hub, nor come back for ever
            log.exception(
                "Cannot handle %s %s of node %s",
                message.route.operation,
                message.route.resource[:200],
                link.node,
            )
            link.refuse(message, _Fault("cloudcore could not handle it: see its log"))
            return
        if isinstance(outcome, Later):
            return
        for frame in outcome.replies:
            link.reply(frame)
        if not outcome.answered:
            link.ack(message.id)


class _Fault(SkerryError):
    """A fault of ours: the same frame would meet it again."""

    reason = "InternalError"


def _temporary(link: Link, message: Message, error: SkerryError) -> None:
    log.info(
        "Cannot do %s %s of node %s now: %s",
        message.route.operation,
        message.route.resource[:200],
        link.node,
        error,
    )
    if link.ours:
        content = Failure(reason=Unavailable.reason, message=str(error)[:256])
        link.reply(reply(message, content, source=Source.CLOUDHUB, operation=Op.ERROR))
