"""The service account tokens of this node's pods: got from the cloud, kept for the time without it.

A pod's first token is durable before the pod has it.  The ones after that come by the hour for every pod, and each would cost a
flash card some pages; so they are written together, and only while the one that is stored still counts: nothing is lost with
power but a token whose predecessor is good.  When the link goes, and when the daemon stops, they are written at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from beehive import clock
from beehive.errors import SkerryError, Unavailable
from beehive.message import Op
from edgecore.metamanager import tokens
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""After the disk refused."""

Ask = Callable[[str, str, msgspec.Raw], Awaitable[msgspec.Raw | None]]


class PodTokens:
    """`run` beside it.   ask: a question to the cloud, as MetaManager.ask."""

    def __init__(self, store: Store, ask: Ask) -> None:
        self._store = store
        self._ask = ask
        self._new: dict[str, bytes] = {}
        """By key: newer than the stored ones."""
        self._due: float | None = None
        self._wake = asyncio.Event()

    async def get(self, namespace: str, service_account: str, request: bytes) -> bytes:
        """Held until 80 % of its life, then asked for again; offline the old one stays.  Raises: Unavailable."""
        key = tokens.key(namespace, service_account, request)
        stored = await self._store.read(lambda view: view.state(key))
        newest = self._new.get(key, stored)
        held = tokens.read(newest) if newest else None
        if held is not None and held.is_fresh(clock.wall().timestamp()):
            return bytes(held.token)
        try:
            answer = await self._ask(
                Op.QUERY, f"{namespace}/serviceaccounttoken/{service_account}", msgspec.Raw(request)
            )
            if answer is None:
                raise Unavailable("the cloud answered without a token")
            fresh = tokens.accept(bytes(answer), now=clock.wall().timestamp())
        except SkerryError as error:
            if held is not None:
                log.debug("! token of %s/%s stays: %s", namespace, service_account, error)
                return bytes(held.token)
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(
                f"no token for service account {namespace}/{service_account}: {error}"
            ) from error
        await self._keep(key, msgspec.json.encode(fresh), tokens.read(stored) if stored else None)
        return bytes(fresh.token)

    async def texts(self) -> list[bytes]:
        """All tokens that are held.  Raises: Unavailable."""
        found = await self._store.read(lambda view: view.states(tokens.ALL))
        return [token for note in (found | self._new).values() if (token := tokens.text(note))]

    async def _keep(self, key: str, value: bytes, stored: tokens.Held | None) -> None:
        """Raises: Unavailable."""
        if stored is None:
            await self._store.write(lambda tx: tx.set_state(key, value))
            return
        self._new[key] = value
        due = clock.monotonic() + tokens.save_within(stored, clock.wall().timestamp())
        self._due = due if self._due is None else min(self._due, due)
        self._wake.set()

    def save_soon(self) -> None:
        """Nobody knows when the next token comes."""
        if self._new:
            self._due = clock.monotonic()
            self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            self._wake.clear()
            left = None if self._due is None else self._due - clock.monotonic()
            if left is not None and left <= 0:
                try:
                    await self.save()
                except Unavailable as error:
                    log.debug("! tokens are kept in memory only: %s", error)
                    self._due = clock.monotonic() + RETRY_S
                continue
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def save(self) -> None:
        """Bring the disk up to date.  Raises: Unavailable."""
        new, self._due = dict(self._new), None
        if not new:
            return

        def work(tx: Transaction) -> None:
            for key, value in new.items():
                if tx.state(key) is not None:  # or its pod has gone meanwhile, and its tokens with it
                    tx.set_state(key, value)

        await self._store.write(work)
        self._new = {key: value for key, value in self._new.items() if new.get(key) is not value}
