"""Registers this node and keeps its status and lease current while there is a link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from beehive import clock
from beehive.backoff import Backoff
from beehive.errors import Conflict, NotFound, Refused, SkerryError, Unavailable
from beehive.message import Op
from edgecore import metrics
from edgecore.edgehub.session import Session
from edgecore.metamanager import node
from edgecore.metamanager.answers import AlreadyExists
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.process import Change

log = logging.getLogger(__name__)

CHECK_S = 10.0
"""How often the machine is looked at for something to tell; asking the runtime for its images costs a few milliseconds."""

REGISTER_CAP_S = 30.0


class Facts(Protocol):
    """edged, as far as the node is concerned."""

    async def node_object(self) -> bytes: ...

    async def node_status(self) -> bytes: ...

    def storage_drivers(self) -> Sequence[Mapping[str, object]]: ...


class NodeStatus:
    """A part.  report_s: how often an unchanged status is sent."""

    def __init__(
        self, meta: MetaManager, facts: Facts, *, report_s: float, rng: random.Random | None = None
    ) -> None:
        self._meta = meta
        self._facts = facts
        self._reporter = node.Reporter(report_s)
        self._rng = rng or random.Random()
        self._session: Session | None = None
        self._registered = False
        self._lease: bytes | None = None
        self._since = ""
        self._away_s = 0.0
        self._told_dropped = ""
        self._told_storage: Sequence[Mapping[str, object]] | None = None
        self._labels_seen = True
        self._machine_labels: dict[str, str] = {}
        self._look = asyncio.Event()
        meta.on_connected.append(self._connected)
        meta.on_change.append(self._changed)

    async def run(self) -> None:
        """For ever: while there is a link, register, then tell."""
        backoff = Backoff(base_s=1.0, cap_s=REGISTER_CAP_S)
        while True:
            self._look.clear()
            wait = CHECK_S
            session = self._meta.session
            if session is not None:
                try:
                    if not self._registered:
                        await self._register()
                        backoff.reset()
                    await self._tell(session)
                except (SkerryError, OSError) as error:
                    # OSError: something of the machine could not be read, such as a disk that fails
                    wait = backoff.next_s(self._rng)
                    log.warning("Cannot tell the cloud about this node: %s", str(error)[:256])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._look.wait()

    def look(self) -> None:
        """Something about the node is different: tell it soon."""
        self._look.set()

    def storage_changed(self) -> None:
        """The node has other storage drivers, and may be called to be elsewhere by them: register its labels again."""
        self._registered = False
        self._look.set()

    def _connected(self, session: Session) -> None:
        self._since = clock.rfc3339()
        lost = self._meta.away_since
        self._away_s = clock.monotonic() - lost if lost is not None else 0.0
        # the Node may have been deleted meanwhile, and a status may have been lost on its way
        self._registered = False
        self._lease = None
        self._told_storage = None
        self._reporter.forget()
        self._look.set()

    def _changed(self, change: Change) -> None:
        if change.resource.type != "node" or change.resource.name != self._meta.node:
            return
        self._labels_seen = False
        if change.gone:
            log.warning("The Node object of this node was deleted: registering again")
            self._registered = False
            self._told_dropped = ""
            self._told_storage = None
            self._reporter.forget()
            self._look.set()

    async def _register(self) -> None:
        """Raises: Refused, Unavailable, ProtocolError."""
        wanted = await self._facts.node_object()
        self._machine_labels = node.machine_labels(wanted)
        where = f"null/node/{self._meta.node}"
        try:
            await self._meta.ask(Op.INSERT, where, msgspec.Raw(wanted))
            log.info("Registered node %s", self._meta.node)
        except AlreadyExists as error:
            held = error.existing or await self._meta.get("node", "", self._meta.node)
            patch = node.label_patch(wanted, bytes(held)) if held is not None else None
            if patch is not None:
                await self._meta.ask(Op.PATCH, f"null/nodepatch/{self._meta.node}", patch.decode())
        self._registered = True

    async def _tell(self, session: Session) -> None:
        status = node.connection(
            await self._facts.node_status(), since=self._since, away_s=self._away_s, at=clock.rfc3339()
        )
        patch = self._reporter.patch(status, clock.monotonic(), heartbeat=not session.ours)
        if patch is not None:
            await self._meta.node_status(patch)
        await self._tell_dropped()
        await self._keep_labels()
        if not session.ours:
            await self._renew_lease()
            return
        await self._tell_storage()

    async def _tell_dropped(self) -> None:
        """Whoever looks at the Node sees that reports are missing.  Raises: SkerryError."""
        text = metrics.annotation(self._meta.outbox.dropped)
        if text == self._told_dropped:
            return
        patch = {"metadata": {"annotations": {metrics.DROPPED_ANNOTATION: text or None}}}
        await self._meta.ask(
            Op.PATCH, f"null/nodepatch/{self._meta.node}", msgspec.json.encode(patch).decode()
        )
        self._told_dropped = text

    async def _keep_labels(self) -> None:
        """Whoever changes what the Node says of the machine would have pods placed here that cannot run.  No oftener than the
        machine is looked at, so that two who disagree cost little.  Raises: SkerryError."""
        if self._labels_seen:
            return
        self._labels_seen = True
        held = await self._meta.get("node", "", self._meta.node)
        patch = node.own_labels_patch(self._machine_labels, bytes(held)) if held is not None else None
        if patch is not None:
            await self._meta.ask(Op.PATCH, f"null/nodepatch/{self._meta.node}", patch.decode())

    async def _tell_storage(self) -> None:
        """The node's CSINode, by which the cloud places and attaches volumes.  A stock hub takes none.

        Raises: Unavailable, ProtocolError."""
        drivers = self._facts.storage_drivers()
        if drivers == self._told_storage or (not drivers and self._told_storage is None):
            return
        where = f"null/csinode/{self._meta.node}"
        try:
            await self._meta.ask(
                Op.UPDATE, where, {"metadata": {"name": self._meta.node}, "spec": {"drivers": drivers}}
            )
        except Refused as error:
            # a cloudcore that is older than this, or an API that does not take it: it is not asked again in this session
            log.warning("The cloud does not take which storage drivers are here: %s", str(error)[:256])
        self._told_storage = drivers

    async def _renew_lease(self) -> None:
        """Towards a stock hub.  Raises: Refused, Unavailable."""
        where = f"{node.LEASE_NAMESPACE}/lease/{self._meta.node}"
        now = clock.rfc3339_micro()
        try:
            if self._lease is None:
                found = await self._meta.ask(Op.QUERY, where)
                self._lease = bytes(found) if found is not None else None
            if self._lease is None:
                raise NotFound("no lease yet")
            lease = node.renewed_lease(self._lease, self._meta.node, now)
            found = await self._meta.ask(Op.UPDATE, where, lease)
        except NotFound:
            found = await self._meta.ask(Op.INSERT, where, node.new_lease(self._meta.node, now))
        except Conflict:
            self._lease = None  # read it again next time
            return
        if found is None:
            raise Unavailable("the cloud answered without a lease")
        self._lease = bytes(found)
