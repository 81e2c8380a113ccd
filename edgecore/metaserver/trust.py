"""What pods are told of the local API before it serves: where it is, and whose signature to trust.

Pods of a machine that was switched on start before the local API does, so this loads nothing that serves.  Its port is opened
here and served later (`module`): a client that is faster waits a moment instead of being refused."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from beehive import clock
from beehive.errors import SkerryError
from edgecore.metaserver import addresses, inject
from edgecore.metaserver.serving import Serving, ServingFiles

log = logging.getLogger(__name__)

EPOCH = 1_767_225_600.0
"""2026-01-01: no clock that stands before this is set."""

BACKLOG = 32
"""Callers that wait before anybody serves."""


class Trust:
    """Of the local API at host:port.  A link-local address is put on this machine's loopback device."""

    def __init__(self, host: str, port: int, *, pki: Path, node: str) -> None:
        self.host = host
        self.port = port
        self._files = ServingFiles(pki, node)
        self._serving: Serving | None = None
        self._listening: socket.socket | None = None

    @property
    def env(self) -> dict[str, str]:
        """For every container of the node."""
        return inject.service_env(self.host, self.port)

    def ca(self) -> bytes:
        """The authority that pods are to trust (PEM); empty until there is one."""
        return self._serving.ca if self._serving is not None else b""

    async def prepare(self) -> None:
        """Before pods are started: make sure that there is a certificate, so that they are told of it.  Raises nothing."""
        try:
            # one that is to be renewed soon will do: that takes time, and pods wait for nobody
            self._serving = await self._files.current(self._names, now()) or await self._files.ensure(
                self._names, now()
            )
        except SkerryError as error:
            log.error("Pods cannot trust the local API yet: %s", error)

    async def ensure(self) -> Serving:
        """A certificate that is good for a while; pods are told of its authority from now on.  Raises CertificateError."""
        self._serving = await self._files.ensure(self._names, now())
        return self._serving

    def knock(self) -> None:
        """Let clients connect; who serves them comes later.  Raises nothing: whoever serves says what is wrong."""
        try:
            self.claim_address()
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            self._listening = socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        except (OSError, SkerryError) as error:
            log.debug("! nobody can wait for the local API yet: %s", error)

    def take_listening(self) -> socket.socket | None:
        """What `knock` opened, once: it is the caller's from then on."""
        found, self._listening = self._listening, None
        return found

    def claim_address(self) -> None:
        """Have the address here, if it is one that this machine may give itself.  Raises Unavailable."""
        if addresses.is_link_local(self.host) and not addresses.is_here(self.host):
            addresses.add(self.host)

    def leave_address(self) -> None:
        """Raises Unavailable."""
        if addresses.is_link_local(self.host):
            addresses.remove(self.host)

    def close(self) -> None:
        """Nobody will serve."""
        if (listening := self.take_listening()) is not None:
            listening.close()

    @property
    def _names(self) -> set[str]:
        return {self.host, "127.0.0.1"}


def now() -> float:
    """Unix seconds for certificates: pods look at them with the machine's clock, right or wrong."""
    return max(EPOCH, clock.machine().timestamp())
