"""What the cloud sends, stored, acknowledged and handed on.

Frames queue up in an inbox.  A worker takes all that is there, lets `process` decide on each inside one transaction, and only
after the commit acknowledges them together and tells the parts.  So a burst costs one fsync, and an acknowledged object
survives a power cut.  While the disk refuses, nothing is acknowledged and the hub sends again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import Message
from edgecore.metamanager import process, refusals, tokens
from edgecore.metamanager.line import Line
from edgecore.metamanager.process import Change, Verdict
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction
from edgecore.metamanager.trouble import DiskTrouble

log = logging.getLogger(__name__)

INBOX = 256
"""Frames waiting to be stored: four windows of the hub, beyond which the link is not read."""

MAX_BATCH = 64

STORE_PART = "metamanager"
"""What the link calls us: what is for this part is stored."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one frame of a batch."""

    message: Message
    verdict: Verdict | None = None
    refused: ProtocolError | None = None


class Applying:
    """on_change: told of every stored object that came, changed or went, after the commit; must not block.
    handlers: by part name ("devicetwin", "eventbus", …), given frames in the order in which they came."""

    def __init__(self, store: Store, line: Line, trouble: DiskTrouble) -> None:
        self.on_change: list[Callable[[Change], None]] = []
        self.handlers: dict[str, Callable[[Message], Awaitable[None]]] = {}
        self._store = store
        self._line = line
        self._trouble = trouble
        self._inbox: asyncio.Queue[tuple[str, Message]] = asyncio.Queue(INBOX)
        self._busy = False
        self._went_back = 0

    @property
    def idle(self) -> bool:
        """Whether all that came is stored and handed on."""
        return self._inbox.empty() and not self._busy

    async def put(self, part: str, message: Message) -> None:
        """Returns when there was room."""
        await self._inbox.put((part, message))

    def put_if_room(self, message: Message) -> None:
        """To be stored, and no harm is done if it is not."""
        if not self._inbox.full():
            self._inbox.put_nowait((STORE_PART, message))

    async def run(self) -> None:
        """Never returns."""
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < MAX_BATCH and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            self._busy = True
            try:
                await self._apply(batch)
            finally:
                self._busy = False

    async def _apply(self, batch: list[tuple[str, Message]]) -> None:
        stored = [message for part, message in batch if part == STORE_PART]
        try:
            number = self._line.session.number if self._line.session is not None else 0
            outcomes = await self._store.write(
                lambda tx: [apply_one(tx, message, number) for message in stored]
            )
        except Unavailable as error:
            self._trouble.refused(error)
            for message in stored:
                self._line.refuse(message, error)
            return
        if stored:
            self._trouble.took()
        self._acknowledge(outcomes)
        remaining = iter(outcomes)
        for part, message in batch:
            if part == STORE_PART:
                await self._hand_on(next(remaining))
            else:
                await self.hand_to(part, message)

    def _acknowledge(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.refused is not None:
                log.warning("Refused from the cloud: %s", str(outcome.refused)[:256])
                self._line.refuse(outcome.message, outcome.refused)
        self._line.acknowledge([outcome.message for outcome in outcomes if outcome.refused is None])

    async def _hand_on(self, outcome: Outcome) -> None:
        if outcome.verdict is None or outcome.verdict.change is None:
            return
        change = outcome.verdict.change
        if outcome.message.is_restored:
            self._went_back += 1
            if self._went_back == 1:
                log.warning("The cloud's API went back to an older state: taking older versions from it")
        if change.resource.type in process.TWIN_TYPES and "devicetwin" in self.handlers:
            await self.hand_to("devicetwin", outcome.message)
        self.tell(change)

    def tell(self, change: Change) -> None:
        """Tell everybody who wants to know."""
        for tell in self.on_change:
            tell(change)

    async def hand_to(self, part: str, message: Message) -> None:
        """Let a part have a frame.  Raises: nothing; what the part makes of it is its affair."""
        try:
            await self.handlers[part](message)
        except SkerryError as error:
            log.warning("%s could not use %s: %s", part, message.route.resource, str(error)[:256])
        except Exception as error:
            # the boundary of one frame (P9): the hub sends it again, so a fault in a part would end the daemon each time
            log.error("%s failed on %s: %r", part, message.route.resource, error, exc_info=error)


def apply_one(tx: Transaction, message: Message, session: int) -> Outcome:
    """session: the number of the one that it came in; 0 for what was asked for."""
    note = refusals.key(message)
    try:
        where = process.target(message)
        verdict = process.decide(message, where, tx.get(where.key))
    except ProtocolError as error:
        if note is not None:
            if tx.state(note) is None and len(tx.states(refusals.PREFIX)) >= refusals.MAX_NOTES:
                note = refusals.ANY
            tx.set_state(note, refusals.refusal(message, session, str(error)))
        return Outcome(message, refused=error)
    if note is not None:
        tx.drop_state(note)
    if verdict.put is not None:
        tx.put(verdict.put)
    if verdict.delete:
        tx.delete(verdict.delete)
        if where.type == "pod" and verdict.change is not None:
            for key in tx.states(tokens.prefix(verdict.change.uid)):
                tx.drop_state(key)
    return Outcome(message, verdict)
