"""Let a machine become a node: token and signing request in, certificate out; and the tokens' life in the API.

Tokens are Secrets `join-token-<id>` in namespace `kubeedge` that hold only a hash.  A use is written by compare-and-swap
before the certificate is signed, so a token for one node joins one node, whatever the number of hubs.

A name that exists as a Node can be taken over only with a token that was made for that very name: whoever runs the cluster said
so.  Otherwise a token for any node could replace a running one."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from beehive import clock, resource
from beehive.errors import Conflict, ProtocolError, Unavailable
from beehive.message import JoinAnswer, JoinRequest
from beehive.succession import Trust
from cloudcore.cache import Cache
from cloudcore.errors import ApiExists, ApiNotFound, JoinRefused
from cloudcore.identity import pki, revocation, tokens
from cloudcore.identity.authority import (
    SYSTEM_NAMESPACE,
    Authority,
    SecretData,
    ensure_namespace,
    secret_body,
)
from cloudcore.identity.revocation import Shown
from cloudcore.kube import Kube
from cloudcore.objects import NODE, SECRET, Change, Object

log = logging.getLogger(__name__)

TOKEN_TYPE = "skerry.dev/join-token"
TOKEN_LABEL = "skerry.dev/join-token"
PREFIX = "join-token-"
TRIES = 8
RESERVED = timedelta(minutes=10)
"""A node registers seconds after it joined."""


@dataclass(slots=True)
class Limiter:
    """A leaky bucket of failed attempts for each address: guessing is slow, and only for who guesses.

    burst failures at once, then one every rate_s seconds.  What is kept is bounded: of more than `sources` addresses the
    one that failed longest ago is forgotten.  An IPv6 host may use any address of its /64, so that counts as one."""

    burst: int = 20
    rate_s: float = 0.5
    sources: int = 4096
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def blocked(self, now: float, source: str) -> bool:
        return self._level(now, _network(source)) + 1 > self.burst

    def failed(self, now: float, source: str) -> None:
        key = _network(source)
        self._buckets[key] = (self._level(now, key) + 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self.sources:
            self._buckets.popitem(last=False)

    def _level(self, now: float, key: str) -> float:
        level, at = self._buckets.get(key, (0.0, now))
        return max(0.0, level - (now - at) / self.rate_s)


def _network(source: str) -> str:
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return source
    return str(ipaddress.ip_network((address, 64), strict=False))


class Reservations:
    """Names of nodes that have joined and not registered yet: nobody else may have them meanwhile.

    A use of a token holds its node's name for RESERVED, or until a Node of that name went after it.  What another hub let in
    at the very same moment is not seen."""

    def __init__(self, secrets: Cache, nodes: Cache) -> None:
        self._uses: dict[str, list[tokens.Use]] = {}  # by the name of the token's Secret
        self._freed: dict[str, datetime] = {}
        secrets.subscribe(self._on_secret)
        nodes.subscribe(self._on_node)

    def keys(self, node: str, now: datetime) -> set[str]:
        """The keys that hold `node`; empty if it is free."""
        since = max(self._freed.get(node, now - RESERVED), now - RESERVED)
        return {
            use.key
            for uses in self._uses.values()
            for use in uses
            if use.node == node and datetime.fromisoformat(use.at) > since
        }

    def _on_secret(self, change: Change) -> None:
        secret = change.newest
        if secret.namespace != SYSTEM_NAMESPACE or not secret.name.startswith(PREFIX):
            return
        record = _record(change.new) if change.new is not None else None
        if record is not None and record.used:
            self._uses[secret.name] = record.used
        else:
            self._uses.pop(secret.name, None)

    def _on_node(self, change: Change) -> None:
        if change.new is None:
            now = clock.wall()
            self._freed = {name: at for name, at in self._freed.items() if now - at < RESERVED}
            self._freed[change.newest.name] = now


@dataclass(slots=True)
class Joiner:
    """Answers join and renew requests."""

    kube: Kube
    authority: Authority
    lifetime: timedelta
    reservations: Reservations | None = None
    limiter: Limiter = field(default_factory=Limiter)
    _spending: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def join(self, request: JoinRequest, source: str = "", trusts: Trust | None = None) -> JoinAnswer:
        """`source`: the address it came from.   trusts: what the machine says of authorities; see succession.signer.

        Raises JoinRefused with one sentence for the person at the edge, or ApiError when the API is away."""
        if not resource.is_name(request.node):
            raise JoinRefused(
                f"{request.node[:80]!r} is not a node name: use lower-case letters, digits, - and .",
                reason="BadName",
            )
        if self.limiter.blocked(clock.monotonic(), source):
            raise JoinRefused("too many join attempts failed lately; try again in a minute", reason="TooMany")
        try:
            return await self._join(request, trusts)
        except JoinRefused as error:
            self.limiter.failed(clock.monotonic(), source)
            log.warning("Refused to let %s join from %s: %s", request.node, source, error)
            raise

    async def _join(self, request: JoinRequest, trusts: Trust | None) -> JoinAnswer:
        csr = request.csr.encode()
        try:
            key = pki.request_key(csr)
        except pki.BadRequest as error:
            raise JoinRefused(str(error), reason="BadRequest") from error
        taken = await self._exists(request.node)
        async with self._spending:
            # one at a time here, so that a fleet with one token only meets other replicas in the compare-and-swap
            if self.reservations is not None:
                holders = self.reservations.keys(request.node, clock.wall())
                taken = taken or bool(holders - {key})
            await self._spend(request, key, taken=taken)
        certificate = self._sign(request.node, csr, trusts=trusts)
        log.info("Node %s joined with token %s", request.node, tokens.token_id(request.token))
        return JoinAnswer(
            certificate=certificate.decode(), ca=self.authority.held.shown.certificate_pem.decode()
        )

    async def renew(
        self, node: str, csr: str, held: Shown | None = None, trusts: Trust | None = None
    ) -> JoinAnswer:
        """For the node that the connection's certificate, `held`, names.  Raises JoinRefused, or ApiError."""
        now = clock.wall()
        if held is not None and (refusal := await revocation.look(self.kube, node, held)):
            raise JoinRefused(refusal, reason="Revoked")
        certificate = self._sign(node, csr.encode(), now=now, trusts=trusts)
        log.info("Renewed the certificate of node %s", node)
        return JoinAnswer(
            certificate=certificate.decode(), ca=self.authority.held.shown.certificate_pem.decode()
        )

    def _sign(self, node: str, csr: bytes, *, now: datetime | None = None, trusts: Trust | None) -> bytes:
        try:
            return self.authority.sign_node(node, csr, self.lifetime, now=now, trusts=trusts)
        except pki.BadRequest as error:
            raise JoinRefused(str(error), reason="BadRequest") from error

    async def _exists(self, node: str) -> bool:
        try:
            await self.kube.get(NODE, node)
        except ApiNotFound:
            return False
        return True

    async def _spend(self, request: JoinRequest, key: str, *, taken: bool) -> None:
        name = PREFIX + tokens.token_id(request.token)
        for _ in range(TRIES):
            secret, record = await _stored(self.kube, name)
            spent = tokens.spend(record, request.token, node=request.node, key=key, now=clock.wall())
            if (
                taken
                and spent.node != request.node
                and not tokens.repeats(record or spent, node=request.node, key=key)
            ):
                raise JoinRefused(
                    f"the name {request.node} is taken by another node, or was given to one lately; delete that node, or "
                    f"make a token for it with "
                    f"`cloudcore token create --node {request.node}`",
                    reason="NameTaken",
                )
            if spent is record:
                return
            assert secret is not None, "a record without its Secret"
            body = _body(spent, version=secret.version)
            try:
                await self.kube.replace(SECRET, name, body, SYSTEM_NAMESPACE)
            except (Conflict, ApiNotFound):
                continue  # used or revoked at the same moment: judge again
            return
        raise Unavailable("cannot use the join token: too many use it at once")


async def create_token(kube: Kube, *, ttl: timedelta, uses: int = 1, node: str = "") -> tokens.Made:
    """Make and store one.  Raises JoinRefused for wrong arguments."""
    await ensure_namespace(kube)
    while True:
        made = tokens.make(ttl=ttl, now=clock.wall(), rng=secrets.SystemRandom(), uses=uses, node=node)
        try:
            await kube.create(SECRET, _body(made.record), SYSTEM_NAMESPACE)
        except ApiExists:
            continue  # one id in two thousand million
        return made


async def list_tokens(kube: Kube) -> Sequence[tokens.Record]:
    """All that are stored, by id."""
    page = await kube.list_all(SECRET, SYSTEM_NAMESPACE, query={"labelSelector": f"{TOKEN_LABEL}=true"})
    records = [record for item in page.objects if (record := _record(item)) is not None]
    return sorted(records, key=lambda record: record.id)


async def revoke_token(kube: Kube, token_id: str) -> bool:
    """Whether there was one."""
    try:
        await kube.delete(SECRET, PREFIX + token_id, SYSTEM_NAMESPACE)
    except ApiNotFound:
        return False
    return True


async def drop_expired_tokens(kube: Kube) -> int:
    """Delete the Secrets of tokens that ended more than a day ago; how many."""
    dropped = 0
    for record in await list_tokens(kube):
        if record.expired(clock.wall() - timedelta(days=1)) and await revoke_token(kube, record.id):
            dropped += 1
    return dropped


async def _stored(kube: Kube, name: str) -> tuple[Object | None, tokens.Record | None]:
    try:
        secret = await kube.get(SECRET, name, SYSTEM_NAMESPACE)
    except ApiNotFound:
        return None, None
    return secret, _record(secret)


def _record(secret: Object) -> tokens.Record | None:
    try:
        return msgspec.json.decode(secret.decode(SecretData).bytes("record"), type=tokens.Record)
    except (ProtocolError, msgspec.DecodeError) as error:
        log.warning("The Secret %s is no join token: %s", secret.name, error)
        return None


def _body(record: tokens.Record, *, version: str = "") -> bytes:
    return secret_body(
        PREFIX + record.id,
        {"record": msgspec.json.encode(record)},
        version=version,
        type_=TOKEN_TYPE,
        labels={TOKEN_LABEL: "true"},
    )
