"""The tunnel from the edge's side: dial, serve what the hub opens, come back.

A second connection to the hub's port, so that bulk never waits before a message of the link, nor a message before bulk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from beehive import clock, tunnel
from beehive.backoff import Backoff
from beehive.errors import SkerryError
from beehive.tunnelpeer import BinaryConnection, Peer
from edgecore.edgestream.kubelet import Kubelet
from edgecore.edgestream.ports import StreamRuntime
from edgecore.edgestream.stock import StockConnection, StockTunnel

log = logging.getLogger(__name__)

STEADY_S = 5.0
"""A tunnel that lasted so long was a success: the next dial starts with the shortest back-off."""
CLOSE_S = 3.0

Dial = Callable[[], Awaitable[BinaryConnection]]
DialStock = Callable[[], Awaitable[StockConnection]]


class EdgeStream:
    """A part of edgecore: `run` keeps a tunnel for ever.

    dial: opens the connection; raises SkerryError.   dial_stock: the same to a cloud that is stock KubeEdge, as is_stock says.
    switches: verbs that are off have False (`routes.Verb`)."""

    name = "edgestream"

    def __init__(
        self,
        *,
        dial: Dial,
        runtime: StreamRuntime,
        dial_stock: DialStock | None = None,
        is_stock: Callable[[], bool] = lambda: False,
        switches: Mapping[str, bool] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._dial = dial
        self._dial_stock = dial_stock
        self._is_stock = is_stock
        self._kubelet = Kubelet(runtime, switches)
        self._rng = rng or random.Random()
        self._retry = asyncio.Event()
        self.connected = False
        self.last_error = ""

    def retry_now(self) -> None:
        """Do not wait before the next dial: the link has just been made, say."""
        self._retry.set()

    async def run(self) -> None:
        """Never returns."""
        backoff = Backoff()
        while True:
            self._retry.clear()
            began = clock.monotonic()
            try:
                if self._dial_stock is not None and self._is_stock():
                    stock = await self._dial_stock()
                    await self._carry(stock, StockTunnel(stock, self._kubelet.serve).run())
                else:
                    connection = await self._dial()
                    peer = Peer(connection, tunnel.Role.EDGE, handler=self._kubelet.serve)
                    await self._carry(connection, peer.run())
            except SkerryError as error:
                if self.connected:
                    log.warning("Tunnel for logs and exec lost: %s", error)
                elif str(error) != self.last_error:
                    log.info("No tunnel for logs and exec, trying on: %s", error)
                self.last_error = str(error)
            finally:
                self.connected = False
            if clock.monotonic() - began >= STEADY_S:
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_s(self._rng)):
                    await self._retry.wait()

    async def _carry(self, connection: BinaryConnection, serving: Coroutine[Any, Any, None]) -> None:
        self.connected = True
        log.info("Tunnel for logs and exec is up")
        try:
            await serving
        finally:
            with contextlib.suppress(TimeoutError, SkerryError):
                async with asyncio.timeout(CLOSE_S):
                    await connection.close()
            # a wish from before the loss was granted by the tunnel that is lost now
            self._retry.clear()
