"""The local Kubernetes API as a part of edgecore: built here, run here.

It never brings the daemon down: an address that is taken or a certificate that cannot be made is said once, and tried again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from beehive import clock
from beehive.errors import SkerryError, Unavailable
from beehive.message import Message
from edgecore.metaserver.access import Access
from edgecore.metaserver.api import Api
from edgecore.metaserver.http import Server
from edgecore.metaserver.mirror import Mirror
from edgecore.metaserver.offline import OfflineWrites
from edgecore.metaserver.ports import Cloud, Store
from edgecore.metaserver.remote import Remote
from edgecore.metaserver.trust import Trust

log = logging.getLogger(__name__)

RETRY_S = 10.0
RENEW_LOOK_S = 300.0
"""Two small files are read; a clock that was set meanwhile may have ended the certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaServerOptions:
    """host, port: where pods reach it; a link-local address is put on this machine's loopback device.   audiences: for whom
    tokens may be made beside the issuer's own.   offline_writes: kinds, `plural` or `plural.group`, that may be written while
    the cloud is away.   socket: for the machine's owner, mode 0600; None: none."""

    host: str
    port: int
    pki: Path
    socket: Path | None = None
    audiences: frozenset[str] = frozenset()
    offline_writes: frozenset[str] = frozenset()


class MetaServer:
    """`run` is a supervised part; `pushed` is metamanager's handler "metaserver"."""

    def __init__(
        self,
        options: MetaServerOptions,
        *,
        node: str,
        store: Store,
        cloud: Cloud,
        trust: Trust | None = None,
    ) -> None:
        """trust: what pods were told, if they were told before."""
        self._options = options
        self.trust = trust or Trust(options.host, options.port, pki=options.pki, node=node)
        self.mirror = Mirror(store)
        self.remote = Remote(cloud, self.mirror, node, monotonic=clock.monotonic)
        self.access = Access(
            store,
            fetch=self.remote.fetch,
            online=lambda: cloud.online,
            wall=lambda: clock.wall().timestamp(),
            monotonic=clock.monotonic,
            audiences=options.audiences,
        )
        self.remote.on_connected.append(self.access.refresh)
        self.writes = OfflineWrites(
            store,
            self.mirror,
            self.remote,
            options.offline_writes,
            wall=lambda: clock.wall().timestamp(),
        )
        self.api = Api(
            self.access,
            self.mirror,
            self.remote,
            store,
            self.writes,
            monotonic=clock.monotonic,
            wall=lambda: clock.wall().timestamp(),
        )
        self.server = Server(self.api.handle)
        self.port = 0
        """Where it listens, once it does."""
        self.ready = asyncio.Event()
        """Set while clients can connect by TLS."""

    async def pushed(self, message: Message) -> None:
        await self.remote.pushed(message)

    async def run(self) -> None:
        """Never returns."""
        # each by itself: one that is done must not be done again because the next could not be
        for load in (self.access.load, self.mirror.load, self.writes.load):
            await self._load(load)
        async with asyncio.TaskGroup() as group:
            for what, run in (
                ("mirror", self.mirror.run),
                ("remote", self.remote.run),
                ("writes", self.writes.run),
                ("port", self._serve_tcp),
            ):
                group.create_task(self._forever(what, run), name=f"metaserver-{what}")
            if self._options.socket is not None:
                group.create_task(self._forever("socket", self._serve_socket), name="metaserver-socket")

    async def _load(self, load: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await load()
            except Unavailable as error:
                log.error("The local API cannot read the store: %s", error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                # what was kept may be of no use to this version; ending over it would be for ever
                log.exception("The local API begins without some of what it kept")
                return
            else:
                return

    async def _forever(self, what: str, serve: Callable[[], Awaitable[None]]) -> None:
        told = ""
        while True:
            try:
                await serve()
            except (OSError, SkerryError) as error:
                text = str(error)
                if text != told:
                    log.error("The local API has no %s: %s; trying again", what, text)
                told = text
                await asyncio.sleep(RETRY_S)
            except Exception:
                # the boundary of the local API (P9): pods and the link do without it
                log.exception("The local API's %s failed; it begins anew", what)
                await asyncio.sleep(RETRY_S)

    async def _serve_socket(self) -> None:
        assert self._options.socket is not None, "only started with one"
        await self.server.serve_unix(self._options.socket)

    async def _serve_tcp(self) -> None:
        host, port, trust = self._options.host, self._options.port, self.trust
        # of a socket that clients wait at already this is the owner from here on
        with contextlib.closing(trust):
            trust.claim_address()
            serving = await trust.ensure()
            context = serving.context()
            listening = trust.take_listening()

        def ready(bound: int) -> None:
            self.port = bound
            self.ready.set()
            log.info("The local Kubernetes API listens at %s:%d", host, bound)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self.server.serve_tcp(host, port, context, ready=ready, listening=listening),
                    name="metaserver-https",
                )
                while True:
                    await asyncio.sleep(RENEW_LOOK_S)
                    fresh = await trust.ensure()
                    if fresh != serving:
                        serving = fresh
                        context.load_cert_chain(fresh.path)
        except BaseExceptionGroup as failures:
            # the server's failure is the cause; the renewal only sleeps
            raise failures.exceptions[0] from failures
        finally:
            # an address where we never listened may be another daemon's
            if self.ready.is_set():
                trust.leave_address()
            self.ready.clear()
