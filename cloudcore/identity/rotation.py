"""Follows the authority's Secret, and does in time what a rotation needs.  Every cloudcore does; the Secret says who was first.

The command that begins or ends a rotation writes the Secret only.  Here each cloudcore takes it up without a restart, shows the
new authority once every known node trusts it, and takes the old key out of the Secret when the window is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from beehive import clock
from beehive.errors import ProtocolError, SkerryError
from beehive.succession import fingerprint
from cloudcore.cache import Cache
from cloudcore.identity import pki, succession
from cloudcore.identity.authority import (
    CA_SECRET,
    SYSTEM_NAMESPACE,
    Authority,
    change_authority,
    read_authority,
)
from cloudcore.identity.succession import Held, NodeTrust
from cloudcore.kube import Kube
from cloudcore.objects import AUTHORITY_ANNOTATION, SESSION_ANNOTATION, Change, Object, annotation

log = logging.getLogger(__name__)

LOOK_S = 2.0
TELL_S = 12 * 3600.0
"""How often it is said that nodes have not followed yet."""


class Rotation:
    """A supervised part.   on_change: called when another authority counts, or is shown, than before.
    linked: the nodes that are linked here, each with the hash of the authority that signed what it showed."""

    name = "authority"

    def __init__(
        self,
        kube: Kube,
        authority: Authority,
        secrets: Cache,
        nodes: Cache,
        linked: Callable[[], Iterable[tuple[str, str]]],
    ) -> None:
        self._kube = kube
        self._authority = authority
        self._nodes = nodes
        self._linked = linked
        self._seen: Held | None = None
        self._put_back: Held | None = None
        self._told_at: float | None = None
        self.on_change: list[Callable[[], None]] = []
        secrets.subscribe(self._on_secret)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except SkerryError as error:
                log.warning("Cannot look after the certificate authority now: %s", error)

    def waiting(self) -> int:
        """How many nodes do not trust the newest authority while a window is open."""
        held = self._authority.held
        return len(succession.waits_for(held, trusts(self._nodes))) if held.old is not None else 0

    async def _look(self) -> None:
        now = clock.wall()
        if self._put_back is not None:
            newer, self._put_back = self._put_back, None
            self._take(await change_authority(self._kube, lambda found: _newer(found, newer)))
        # what is over by the clock counts for nothing from this moment, whether or not the API can be told
        self._take(succession.settle(self._authority.held, now=now))
        after = await self._step(now)
        if after is not None:
            self._seen = after
            self._take(succession.settle(after, now=now))

    async def _step(self, now: datetime) -> Held | None:
        """Write what is due, if anything is."""
        held = self._authority.held
        if self._is_stored_over(now):
            return await change_authority(self._kube, lambda found: succession.settle(found, now=now))
        if held.readmitted:
            back = {node for node, signed_by in self._linked() if signed_by == held.newest}
            if back & held.readmitted.keys():
                return await change_authority(self._kube, lambda found: succession.came_back(found, back))
        if held.old is None:
            return None
        waiting = succession.waits_for(held, trusts(self._nodes)) if self._nodes.synced else None
        if waiting == [] and not held.shows_new:
            log.info("Every known node trusts the authority %s: it is shown from now on", held.newest[:16])
            return await change_authority(
                self._kube, lambda found: succession.show_new(found) if found.newest == held.newest else found
            )
        if waiting:
            self._tell(held, waiting)
        return None

    def _is_stored_over(self, now: datetime) -> bool:
        """Whether the Secret, as it was seen last, has what time made void."""
        return self._seen is not None and succession.settle(self._seen, now=now) is not self._seen

    def _tell(self, held: Held, waiting: list[NodeTrust]) -> None:
        if self._told_at is not None and clock.monotonic() - self._told_at < TELL_S:
            return
        self._told_at = clock.monotonic()
        until = datetime.fromtimestamp(held.until or 0.0, UTC)
        log.warning(
            "%d nodes do not trust the new certificate authority yet, and need a join token after %s: %s",
            len(waiting),
            f"{until:%Y-%m-%d %H:%M} UTC",
            ", ".join(node.name for node in waiting[:10]),
        )

    def _on_secret(self, change: Change) -> None:
        if change.newest.key != (SYSTEM_NAMESPACE, CA_SECRET) or change.new is None:
            return
        try:
            found = read_authority(change.new)
        except (ProtocolError, pki.PkiError) as error:
            log.error("%s; the authority stays what it is", error)
            return
        if found.newest in {fingerprint(der) for der in succession.retired(self._authority.held)}:
            log.warning("The API went back to an authority that was replaced; the newer one is written again")
            self._put_back = self._authority.held
            return
        self._seen = found
        self._take(succession.settle(found, now=clock.wall()))

    def _take(self, held: Held) -> None:
        before = self._authority.held
        if held == before:
            return
        self._authority.held = held
        if held.newest != before.newest:
            self._told_at = None
            log.info("The certificate authority is %s now", held.newest[:16])
        if before.old is not None and held.old is None:
            log.info("The window is over: certificates of the authority before count no more")
        for tell in self.on_change:
            tell()


def _newer(found: Held, ours: Held) -> Held:
    """Ours, unless what is found has gone on meanwhile."""
    return ours if found.newest in {fingerprint(der) for der in succession.retired(ours)} else found


def trusts(nodes: Iterable[Object]) -> list[NodeTrust]:
    """What the nodes say that ever had a session with a hub."""
    return [trust_of(node) for node in nodes if annotation(node, SESSION_ANNOTATION)]


def trust_of(node: Object) -> NodeTrust:
    newest, _, signed_by = annotation(node, AUTHORITY_ANNOTATION).partition(" ")
    return NodeTrust(node.name, newest.strip("-"), signed_by.strip("-"))
