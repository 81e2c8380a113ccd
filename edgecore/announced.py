"""Listens to what announces itself over MQTT, while a rule wants to know.

The rules are looked at when one changes; without one of subsystem `mqtt` nothing is subscribed to, and nothing more is loaded.
What is announced is retained by the broker and comes within moments of a connection; until then it is not known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from beehive.apis.hardware import MQTT, Rule, Seen, parse_each
from beehive.errors import Unavailable

if TYPE_CHECKING:
    from edgecore.discovery.book import Book

log = logging.getLogger(__name__)

SETTLE_S = 1.0
"""Of messages: a device announces itself in many."""
HELLO_TOPIC = "homeassistant/status"
KNOWN_AFTER_S = 30.0
"""How long a broker that is away keeps what is announced unknown; then it counts as not there."""


class Bus(Protocol):
    """eventbus, as far as it is needed here."""

    @property
    def connected(self) -> asyncio.Event: ...

    def listen(self, filters: Sequence[str], hear: Callable[[str, bytes], None] | None) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None: ...


class Announced:
    """`run` never returns; `look` may be called at any time.

    rules: gives all HardwareRules as documents; raises Unavailable.   tell: is told what is there, None while that is not
    known."""

    def __init__(
        self,
        bus: Bus,
        rules: Callable[[], Awaitable[list[msgspec.Raw]]],
        tell: Callable[[list[Seen] | None], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._rules = rules
        self._tell = tell
        self._wanted: list[Rule] = []
        self._book: Book | None = None
        self._wake = asyncio.Event()
        self._rules_changed = True
        self._told: list[Seen] | None = []

    def look(self) -> None:
        """A rule has changed, or may have."""
        self._rules_changed = True
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            if self._rules_changed:
                self._rules_changed = False
                try:
                    await self._take_rules()
                except Unavailable as error:
                    log.warning("Cannot read the rules of hardware: %s", error)
            if self._book is not None:
                await self._say(self._book.seen(self._wanted))
            await self._wake.wait()
            await asyncio.sleep(SETTLE_S)  # what is announced comes in many messages

    async def _take_rules(self) -> None:
        documents: list[Any] = [msgspec.json.decode(raw) for raw in await self._rules()]
        rules, _ = parse_each(documents)  # what is wrong with one is said in the cloud
        self._wanted = [rule for rule in rules if rule.patterns.get("subsystem", "").lower() == MQTT]
        if bool(self._wanted) == (self._book is not None):
            return
        if not self._wanted:
            self._bus.listen((), None)
            self._book = None
            await self._say([])
            return
        from edgecore.discovery.book import FILTERS, Book

        log.info("Listening to what announces itself over MQTT")
        self._book = Book()
        await self._say(None)
        self._bus.listen(FILTERS, self._hear)
        try:
            async with asyncio.timeout(KNOWN_AFTER_S):
                await self._bus.connected.wait()
        except TimeoutError:
            log.warning("The broker is away: what announces itself over MQTT counts as not there")
        else:
            # Home Assistant says so when it starts, and devices whose announcement the broker did not keep announce again
            await self._bus.publish(HELLO_TOPIC, b"online", qos=1)
        await asyncio.sleep(2 * SETTLE_S)

    def _hear(self, topic: str, payload: bytes) -> None:
        if self._book is not None and self._book.hear(topic, payload):
            self._wake.set()

    async def _say(self, seen: list[Seen] | None) -> None:
        if seen != self._told:
            self._told = seen
            await self._tell(seen)
