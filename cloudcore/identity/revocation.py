"""Certificates that count no more, by node and serial number.

One ConfigMap names them, so that every hub hears of it by the watch it has anyway.  A whole node is revoked as of a time: what
was signed for it until then is void, and a certificate got later by a new token is not.  A revoked certificate gets no
connection, and one that is open ends."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from beehive import clock, resource
from beehive.errors import Conflict, ProtocolError, Refused, Unavailable
from beehive.message import UNREADABLE
from cloudcore.cache import Cache
from cloudcore.errors import ApiExists, ApiNotFound
from cloudcore.identity.authority import SYSTEM_NAMESPACE, ensure_namespace
from cloudcore.identity.pki import CLOCK_SKEW
from cloudcore.kube import Kube
from cloudcore.objects import CONFIGMAP, Change

log = logging.getLogger(__name__)

NAME = "revoked-certificates"
MAX_SERIALS = 100
"""Of one node; more are better revoked by revoking the node."""
TRIES = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """What is judged of a certificate.   serial: lower-case hex without leading zeros.   signed: when, about."""

    serial: str
    signed: datetime


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is revoked of one node.   until: what was signed until then (RFC 3339).   serials: single certificates."""

    until: str = ""
    serials: list[str] = []

    def covers(self, shown: Shown) -> bool:
        if shown.serial in self.serials:
            return True
        return bool(self.until) and shown.signed <= datetime.fromisoformat(self.until)


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    data: dict[str, str] | None = None


def shown(certificate: Mapping[str, Any]) -> Shown:
    """From what the TLS layer says of the peer's certificate.  Our signer dates them back for clocks that are behind."""
    seconds = ssl.cert_time_to_seconds(certificate["notBefore"])
    return Shown(
        serial=serial_text(certificate["serialNumber"]),
        signed=datetime.fromtimestamp(seconds, UTC) + CLOCK_SKEW,
    )


def serial_text(text: str) -> str:
    """A serial number as people write it, in the form that is compared.  Raises Refused."""
    try:
        return f"{int(text.replace(':', ''), 16):x}"
    except ValueError as error:
        raise Refused(
            f"{text[:64]!r} is not a serial number: hexadecimal digits", reason="BadSerial"
        ) from error


def add(held: Entry, *, serial: str, now: datetime) -> Entry:
    """`held` with one more; an empty `serial` revokes all that was signed until `now`.  Raises Refused."""
    if not serial:
        # certificates tell whole seconds
        until = (now + timedelta(seconds=1)).isoformat(timespec="seconds")
        return Entry(until=until)  # that covers each single one
    if serial in held.serials:
        return held
    if len(held.serials) >= MAX_SERIALS:
        raise Refused(f"more than {MAX_SERIALS} certificates of one node: revoke the node", reason="TooMany")
    return msgspec.structs.replace(held, serials=[*held.serials, serial])


def read(data: Mapping[str, str]) -> dict[str, Entry]:
    """By node.  Raises ProtocolError: what cannot be read must not pass for nothing revoked."""
    try:
        return {node: msgspec.json.decode(text, type=Entry) for node, text in data.items()}
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read ConfigMap {NAME}: {error}") from error


class Revocations:
    """Follows the ConfigMap.   cache: of all configmaps.   on_change: called when something was revoked."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._entries: dict[str, Entry] = {}
        self.on_change: list[Callable[[], None]] = []
        cache.subscribe(self._changed)

    async def known(self, timeout_s: float = 5.0) -> None:
        """Wait until the first list is read.  Raises Unavailable: nobody is let in unjudged."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._cache.wait_synced()
        except TimeoutError as error:
            raise Unavailable("cannot judge certificates: the Kubernetes API is away") from error

    def refusal(self, node: str, certificate: Shown) -> str:
        """Why `certificate` of `node` counts no more; empty if it does."""
        return _refusal(self._entries, node, certificate)

    def _changed(self, change: Change) -> None:
        if change.newest.key != (SYSTEM_NAMESPACE, NAME):
            return
        try:
            self._entries = read(change.new.decode(_Data).data or {}) if change.new is not None else {}
        except ProtocolError as error:
            log.error("%s; what was revoked before stays so", error)
            return
        for tell in self.on_change:
            tell()


def _refusal(entries: Mapping[str, Entry], node: str, certificate: Shown) -> str:
    entry = entries.get(node)
    if entry is None or not entry.covers(certificate):
        return ""
    return f"the certificate {certificate.serial} of node {node} was revoked; join again with a new token"


async def look(kube: Kube, node: str, certificate: Shown) -> str:
    """As `Revocations.refusal`, by what the API says at this moment.

    A certificate that is got by another one is signed as of a time before this look: so whatever is revoked after the look
    covers the new one, too, and nobody stays by renewing while the watch is behind.   Raises ApiError, ProtocolError."""
    try:
        held = await kube.get(CONFIGMAP, NAME, SYSTEM_NAMESPACE)
    except ApiNotFound:
        return ""
    return _refusal(read(held.decode(_Data).data or {}), node, certificate)


async def revoke(kube: Kube, node: str, *, serial: str = "") -> None:
    """Revoke one certificate of `node`, or all that it has.  Raises Refused, ApiError."""
    if not resource.is_name(node):
        raise Refused(f"{node[:80]!r} is not a node name", reason="BadName")
    serial = serial_text(serial) if serial else ""
    await ensure_namespace(kube)
    for _ in range(TRIES):
        metadata = {"name": NAME, "namespace": SYSTEM_NAMESPACE}
        try:
            held = await kube.get(CONFIGMAP, NAME, SYSTEM_NAMESPACE)
            data = dict(held.decode(_Data).data or {})
            metadata["resourceVersion"] = held.version
        except ApiNotFound:
            data = {}
        entry = add(read(data).get(node, Entry()), serial=serial, now=clock.wall())
        data[node] = msgspec.json.encode(entry).decode()
        body = msgspec.json.encode(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )
        try:
            if "resourceVersion" in metadata:
                await kube.replace(CONFIGMAP, NAME, body, SYSTEM_NAMESPACE)
            else:
                await kube.create(CONFIGMAP, body, SYSTEM_NAMESPACE)
        except (ApiExists, Conflict, ApiNotFound):
            continue  # somebody revoked at the same moment
        return
    raise Unavailable("cannot revoke: others keep changing what is revoked")
