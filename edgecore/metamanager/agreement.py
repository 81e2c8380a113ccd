"""Whether the store holds what the cloud wants here, and telling the hub what it holds: in full, and each minute in short."""

from __future__ import annotations

import asyncio
import logging
import random

from beehive import clock, resource
from beehive.errors import Unavailable
from beehive.message import Inventory, InventoryEntry, Op, digest
from beehive.session import holding
from edgecore.metamanager import ondemand, refusals, saver
from edgecore.metamanager.applying import Applying
from edgecore.metamanager.line import Line
from edgecore.metamanager.process import Change
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction

log = logging.getLogger(__name__)

QUIET_S = 30.0
"""A stock hub that has sent nothing for so long has nothing for a node that just joined.  One of ours says so."""

CONFIRM_S, COMPLETE_S = 0.2, 5.0
"""How often it is looked whether the store became complete, and whether it still is."""

DIGEST_S = 60.0
"""How often the hub is told in short what is held, more or less: a silent difference heals within two of these."""

DAMAGE_S = 5.0
"""How soon it is told when something was found damaged."""


class Agreement:
    def __init__(self, store: Store, line: Line, applying: Applying) -> None:
        self._store = store
        self._line = line
        self._applying = applying
        self._rng = random.Random()
        self._inventory_id = ""
        self._told = False  # the hub has sent all that the inventory lacked
        self._tidy = False  # what was refused and not offered again is still to be forgotten
        self._last_push = 0.0
        # rows dropped at the start are not in any inventory, so the hub sends them again
        self._damaged_before = store.counters.damaged_rows

    # what the link says

    async def inventory(self) -> Inventory:
        """Raises: Unavailable."""
        if self._store.damaged:
            await self._store.drop_damaged()
        held = await self._store.read(lambda view: view.held())
        known = await self._store.read(lambda view: view.state(saver.SESSION))
        objects = {
            uid: InventoryEntry(resource=key, version=str(max(0, version))) for uid, key, version in held
        }
        return Inventory(objects=objects, session=int(known or b"0"))

    def begins(self, inventory_id: str) -> None:
        """A session whose inventory went in this frame."""
        self._inventory_id = inventory_id
        self._told = False
        self._tidy = True
        self._last_push = clock.monotonic()

    def telling(self, inventory_id: str) -> None:
        """One more inventory goes in this frame."""
        self._inventory_id = inventory_id
        self._told = False
        self._tidy = True
        # what is damaged was left out, so the hub sends it again
        self._damaged_before = self._store.counters.damaged_rows

    def ended(self) -> None:
        self._inventory_id = ""

    def pushed(self) -> None:
        """The hub sent something."""
        self._last_push = clock.monotonic()

    def acked(self, message_id: str) -> None:
        if message_id == self._inventory_id:
            self._told = True

    # what is done about it

    def is_confirmed(self) -> bool:
        """Whether the hub said that all is here, or was silent for so long that it has nothing."""
        if self._line.session is None or not self._applying.idle:
            return False
        if self._store.counters.damaged_rows > self._damaged_before:
            return False  # the hub was told that we hold a row that is damaged: the next session tells better
        if self._told or self._store.set_aside is not None:
            # after damage only the hub's word counts; a stock one does not send again what we once acknowledged
            return self._told
        return clock.monotonic() - self._last_push > QUIET_S

    async def confirm(self) -> None:
        """Find out when everything that the cloud wants here is here, whenever that is not known.  Never returns."""
        while True:
            await asyncio.sleep(COMPLETE_S if self._store.complete else CONFIRM_S)
            await self._forget_locked()
            try:
                await self._forget_refusals()
                if self._store.complete or not self.is_confirmed():
                    continue
                await self._store.confirm_complete()
            except Unavailable as error:
                log.warning("Cannot note that the store is complete: %s", error)
                continue
            log.info("The store holds all that the cloud wants on this node")
            self._applying.tell(Change(resource=resource.make("pod"), uid="", gone=False))

    async def _forget_locked(self) -> None:
        """What a lost key sealed is kept until the hub has sent all that it wants here: the key may come back before."""
        if self._store.counters.locked and self._told and self._applying.idle:
            try:
                await self._store.drop_locked()
            except Unavailable as error:
                log.debug("! cannot drop what cannot be opened: %s", error)

    async def _forget_refusals(self) -> None:
        """What the hub did not offer again in this session is wanted no more, nor what only that needed.

        Raises: Unavailable."""
        if not self._told or self._line.session is None or not self._tidy:
            return
        number = self._line.session.number
        self._tidy = False

        def work(tx: Transaction) -> None:
            for key, note in tx.states(refusals.PREFIX).items():
                if refusals.read(note).session != number:
                    tx.drop_state(key)
            # what was asked for, for pods that are no more
            for key in ondemand.unused(tx.all_of("pod"), {kind: tx.all_of(kind) for kind in ondemand.KINDS}):
                tx.delete(key)

        await self._store.write(work)

    async def digest(self) -> None:
        """Tell a hub of ours now and then in short what is here.  Never returns."""
        due = self._next_digest()
        while True:
            await asyncio.sleep(DAMAGE_S)
            if clock.monotonic() < due and not self._store.damaged:
                continue
            if not self._line.ours or not self._applying.idle:
                continue  # soon again
            due = self._next_digest()
            try:
                if self._store.damaged:
                    await self._store.drop_damaged()
                held = await self._store.read(lambda view: view.held())
            except Unavailable as error:
                log.debug("! cannot say what is held: %s", error)
                continue
            found = digest({uid: version for uid, _, version in held})
            self._line.say(holding(self._line.node, Op.DIGEST, found))

    def _next_digest(self) -> float:
        # a fleet that came back together must not speak in step
        return clock.monotonic() + DIGEST_S * self._rng.uniform(0.75, 1.25)
