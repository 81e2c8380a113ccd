"""Going over from one authority of the cloud to the next: hears statements, keeps `ca.pem`, tells the hub.

Statements come over a link, or are fetched from a hub that proves itself by an authority this node does not know: they are
signed, so who passes them on does not matter.  What counts is decided in edgehub/trust.py.  `ca.pem` is replaced as a whole, so
a power cut leaves what was trusted before or after.

An authority whose window is over is not trusted, and stays in the file until a hub has proved itself without it: should this
machine's clock be ahead, the file still has what to ask the time by (edgehub/truetime.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from beehive import clock
from beehive import succession as statements
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import Group, Message, Op, Source, new
from edgecore.edgehub import trust
from edgecore.edgehub.certificate import Files, fetch_successions, is_behind

log = logging.getLogger(__name__)


class Follower:
    """One for a node's identity.

    refused: statements that counted for nothing.   followed: new authorities since the start.
    on_followed: called when a newer authority is trusted.   tell: writes a frame to a hub of ours."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.refused = 0
        self.followed = 0
        self.on_followed: list[Callable[[], None]] = []
        self.tell: Callable[[Message], None] | None = None

    def trusts(self) -> str:
        """The header that tells the hub.  Raises: ConfigError."""
        return str(trust.told(self._files.trusted()))

    async def pushed(self, message: Message) -> None:
        """Statements that a hub of ours sent.  Raises: ConfigError (the disk), and nothing is followed."""
        try:
            _, texts = statements.read_chain(bytes(message.content))
        except ProtocolError as error:
            self._refuse(error)
        else:
            self._follow(texts)
        if self.tell is not None:
            try:
                self.tell(
                    new(
                        source=Source.METAMANAGER,
                        group=Group.HUB,
                        operation=Op.SUCCESSION,
                        resource=message.route.resource,
                        content=self.trusts(),
                    )
                )
            except Unavailable as error:
                log.debug("! the cloud hears with the next session what is trusted here: %s", error)

    async def fetch(self, address: str) -> bool:
        """Whether the hub at `address` has a statement by which a newer authority is trusted now."""
        try:
            _, texts = await fetch_successions(address)
        except SkerryError as error:
            log.debug("! no statement of succession at %s: %s", address, error)
            return False
        return bool(texts) and self._follow(texts)

    def proved(self) -> None:
        """A hub proved itself by what is trusted at this moment: what is not, is not needed any more.  Raises: ConfigError."""
        chain = self._files.trusted()
        left = trust.without_lapsed(chain, clock.wall().timestamp())
        if left is not chain:
            self._files.replace_trusted(left)
            gone = ", ".join(known.hash[:16] for known in chain if known not in left)
            log.info("Trusting the cloud's authority %s no more: its window is over", gone)

    def is_shut_out(self) -> bool:
        """Whether this node's own certificate is by an authority whose window is over."""
        identity, chain = self._files.identity(), self._files.trusted()
        counting = {known.hash for known in trust.in_force(chain, clock.wall().timestamp())}
        return is_behind(identity, chain) and identity.authority not in counting

    def may_lapse_wrongly(self) -> bool:
        """Whether an authority counts for nothing only by this machine's clock."""
        chain = self._files.trusted()
        return trust.without_lapsed(chain, clock.wall().timestamp()) is not chain

    def _follow(self, texts: Sequence[str]) -> bool:
        chain, now = self._files.trusted(), clock.wall().timestamp()
        try:
            after = trust.follow_all(chain, texts, now)
        except trust.NotFollowed as error:
            self._refuse(error)
            return False
        if after is chain:
            return False
        self._files.replace_trusted(after)
        newer = after[-1].hash != chain[-1].hash
        until = after[-2].until or 0.0
        log.info(
            "%s the cloud's authority %s; the one before it counts until %s",
            "Trusting" if newer else "Heard again of",
            after[-1].hash[:16],
            f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC",
        )
        if newer:
            self.followed += 1
        for tell in self.on_followed:
            tell()
        return newer

    def _refuse(self, error: SkerryError) -> None:
        self.refused += 1
        log.warning("Refused a statement of succession of the cloud's authority: %s", error)
