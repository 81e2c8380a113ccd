"""What edged reports, shown by the local API at once: while the cloud is away nobody else tells clients how a pod is."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from beehive.errors import Unavailable

log = logging.getLogger(__name__)


class Reports(Protocol):
    """See edged.ports.Reports."""

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None: ...

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None: ...

    async def event(self, event: bytes) -> None: ...


Reported = Callable[[str, str, str], Awaitable[None]]
"""Told of namespace, name and UID of a pod with another status.  Raises: Unavailable."""


async def _to_nobody(namespace: str, name: str, uid: str) -> None:
    """There is no local API yet, so nobody can watch it."""


class ShownReports:
    """The same reports.   reported, over: of the local API's mirror, which may come later (`show`)."""

    def __init__(
        self,
        reports: Reports,
        *,
        reported: Reported = _to_nobody,
        over: Callable[[str], None] = lambda uid: None,
    ) -> None:
        self._reports = reports
        self._reported = reported
        self._over = over

    def show(self, reported: Reported, over: Callable[[str], None]) -> None:
        """From now on."""
        self._reported, self._over = reported, over

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        await self._reports.pod_status(namespace, name, uid, status)
        try:
            await self._reported(namespace, name, uid)
        except Unavailable as error:
            log.warning("Cannot show how pod %s/%s is: %s", namespace, name, error)

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        await self._reports.pod_gone(namespace, name, uid)
        self._over(uid)

    async def event(self, event: bytes) -> None:
        await self._reports.event(event)
