"""The node's identity: getting it with a token, renewing it before it ends, and the TLS contexts made of it.

The authority is trusted because its hash was in the token; the hub is recognised by this authority alone, not by its name or
address, so that it may move.  While one authority takes the place of another, `ca.pem` holds both (edgehub/trust.py)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from beehive import clock, codec, session, succession
from beehive.backoff import Backoff
from beehive.codec import MAX_JOIN_BYTES
from beehive.errors import ConfigError, ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import Failure, Group, JoinAnswer, JoinRequest, Message, Op, RenewRequest, Source, new
from edgecore.edgehub import https, keys, kubeedge, trust
from edgecore.edgehub.identity import Identity, IdentityFiles
from edgecore.edgehub.websocket import NO_CHECK_TIME, OVER, dial
from edgecore.errors import JoinRefused

log = logging.getLogger(__name__)

JOIN_S = 30.0
"""How long the cloud may take to answer a request for a certificate."""

RENEW_AGAIN_S, RENEW_RETRY_S = 10.0, 300.0
"""First and longest pause after a renewal that failed.  A board may be online for a minute a day: what kept the cloud from
signing is over soon, as a rule, and the minute must not be slept away."""

MAX_SLEEP_S = 3600.0
"""The wall clock may be set while we wait, so look at it again now and then."""

_TOKEN = re.compile(r"([0-9a-f]{64})\.([a-z0-9]{6})\.([a-z0-9]{32})")


@dataclass(frozen=True, slots=True)
class Token:
    """ca_hash: SHA-256 of the authority's DER, hex.   secret: `<id>.<secret>`, what the hub checks."""

    ca_hash: str
    secret: str


def parse_token(text: str) -> Token:
    """Raises: ConfigError, without the token in its text."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            "the join token is not <hash>.<id>.<secret>: copy it whole from `skerry token create` or `skerry join`"
        )
    return Token(found[1], f"{found[2]}.{found[3]}")


class Files(IdentityFiles):
    """With the authorities that are trusted, and the contexts that are made of them."""

    def trusted(self) -> trust.Chain:
        """The authorities that are known, the newest last.  Raises: ConfigError."""
        try:
            return trust.read(self.ca.read_text("ascii"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self.ca}: {error}") from error

    def replace_trusted(self, chain: trust.Chain) -> None:
        """Replace what is trusted, as a whole.  Raises: ConfigError, also for an authority that TLS cannot use."""
        text = trust.write(chain)
        try:
            trusting(text)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot trust the new authority: {error}") from error
        self._put(self.ca, text)

    def tls(self) -> ssl.SSLContext:
        """The context for the link.  Raises: Refused (expired), ConfigError.

        A board without a clock of its own starts years back, and may have nobody but its hub to reach.  So a hub's
        certificate may be from what this machine takes for the future; one that is over is still refused (`dial`)."""
        return self.context(clock.wall().timestamp())

    def context(self, now: float | None) -> ssl.SSLContext:
        """As `tls`, by that time (Unix seconds); None: without looking at what is over, a replaced authority, too.
        Raises: Refused (reason `Over`), ConfigError."""
        identity = self.identity()
        if now is not None and now >= identity.not_after:
            raise Refused(
                f"the certificate of node {identity.node} has expired: run `edgecore join --token …` with a new token",
                reason=OVER,
            )
        chain = self.trusted()
        try:
            if now is not None:
                chain = tuple(known for known in trust.in_force(chain, now) if now < _ends(known))
            context = trusting(trust.write(chain)) if chain else None
            if context is not None:
                context.load_cert_chain(self.node)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"cannot use the certificate in {self.folder}: {error}") from error
        if context is None:
            raise Refused(
                "the cloud's authority that this node trusts has expired: run `edgecore join --token …` with a new token",
                reason=OVER,
            )
        context.verify_flags |= NO_CHECK_TIME
        return context


def _ends(known: trust.Known) -> float:
    """When the authority's own certificate is over (Unix seconds)."""
    (found,) = trusting(known.pem).get_ca_certs()
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


def trusting(ca_pem: str) -> ssl.SSLContext:
    """A client's context that trusts whoever this authority (or one of several) made a server, wherever it is.

    A node's certificate does not pass for a server's: OpenSSL checks the purpose."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca_pem)
    return context


# joining


async def join(
    files: Files, *, node: str, addresses: Sequence[str], token: Token, remember: Sequence[str] = ()
) -> Identity:
    """Get an identity with a token and store it.  Nothing is written unless all of it worked.

    remember: addresses to note beside it, if the configuration does not name them.
    Raises: JoinRefused, Unavailable, ConfigError."""
    last: SkerryError = Unavailable("cannot reach the cloud")
    request = await keys.make_request(node)
    for address in addresses:
        now = clock.wall().timestamp()
        try:
            chain = await _authorities(address, token.ca_hash, now)
            ca_pem = trust.write(trust.in_force(chain, now))
            answer = await _ask_to_join(address, ca_pem, node, request.csr, token, trust.told(chain))
        except Unavailable as error:
            last = error
            continue
        validity = await keys.check(
            node, key=request.key, certificate=answer.certificate, ca=ca_pem, now=clock.wall().timestamp()
        )
        identity = Identity(
            node=node,
            clouds=tuple(remember),
            not_before=validity.not_before,
            not_after=validity.not_after,
            authority=validity.authority,
        )
        files.write(identity, key=request.key, certificate=answer.certificate, ca=trust.write(chain))
        return identity
    raise last


async def _authorities(address: str, ca_hash: str, now: float) -> trust.Chain:
    """The authority that a token means, and those that it says follow it.

    Raises: JoinRefused, Unavailable, ProtocolError."""
    served = await _fetch_ca(address)
    first, statements = await fetch_successions(address)
    meant = served
    if hashlib.sha256(served).hexdigest() != ca_hash and statements:
        # a token from before a rotation: what it means has said who follows
        named = [first, *(succession.read(text).new for text in statements)]
        meant = next((der for der in named if hashlib.sha256(der).hexdigest() == ca_hash), served)
    chain: trust.Chain = trust.read(_read_ca(address, meant, ca_hash))
    try:
        return trust.follow_all(chain, statements, now)
    except trust.NotFollowed as error:
        log.warning("Took no other authority than the token's: %s", error)
        return chain


async def fetch_successions(address: str) -> tuple[bytes, list[str]]:
    """The chain of statements that the hub at `address` gives: the oldest authority's DER, and the statements.  Empty where it
    knows none.  Nothing of it is verified: it comes from whoever answers there.

    Raises: Unavailable, ProtocolError."""
    answer = await https.get(address, succession.PATH, tls=_unverified())
    return succession.read_chain(answer.body) if answer.status == 200 else (b"", [])


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _fetch_ca(address: str) -> bytes:
    """The authority's certificate (DER) as `address` gives it.  Not to be trusted before its hash is compared.

    Raises: Unavailable, ProtocolError."""
    answer = await https.get(address, "/ca.crt", tls=_unverified())
    if answer.status != 200 or not answer.body:
        raise ProtocolError(f"what answers at {address} is not a hub: it has no /ca.crt")
    if not answer.body.lstrip().startswith(b"-----BEGIN"):
        return answer.body
    try:
        return ssl.PEM_cert_to_DER_cert(answer.body.decode("ascii").strip())
    except ValueError as error:
        raise ProtocolError(f"what answers at {address} is not a hub: bad /ca.crt") from error


def _read_ca(address: str, der: bytes, ca_hash: str) -> str:
    """The authority as PEM, if it is the one that the token means.  Raises: JoinRefused, ProtocolError."""
    if hashlib.sha256(der).hexdigest() != ca_hash:
        raise JoinRefused(
            f"the authority at {address} is not the one in the token: wrong address, or somebody in between"
        )
    pem = ssl.DER_cert_to_PEM_cert(der)
    try:
        trusting(pem)
    except (ssl.SSLError, ValueError) as error:
        raise ProtocolError(f"the authority at {address} is not a certificate") from error
    return pem


async def join_kubeedge(
    files: Files, *, node: str, https_address: str, token: kubeedge.StockToken, remember: Sequence[str] = ()
) -> Identity:
    """Get an identity from a stock cloud.  Nothing is written unless all of it worked.

    Raises: JoinRefused, Refused, Unavailable, ProtocolError, ConfigError."""
    ca = _read_ca(https_address, await _fetch_ca(https_address), token.ca_hash)
    request = await keys.make_request(node)
    signed = await kubeedge.certificate(https_address, node, request.csr, tls=trusting(ca), token=token)
    validity = await keys.check(
        node, key=request.key, certificate=signed, ca=ca, now=clock.wall().timestamp()
    )
    identity = Identity(
        node=node,
        clouds=tuple(remember),
        not_before=validity.not_before,
        not_after=validity.not_after,
        https=https_address,
        authority=validity.authority,
    )
    files.write(identity, key=request.key, certificate=signed, ca=ca)
    return identity


async def _ask_to_join(
    address: str, ca_pem: str, node: str, csr: str, token: Token, trusts: succession.Trust
) -> JoinAnswer:
    socket = await dial(
        f"wss://{address}/join",
        tls=trusting(ca_pem),
        headers={
            session.HEADER_NODE: node,
            session.HEADER_USE: "msg",
            session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION),
            succession.HEADER: str(trusts),
        },
    )
    question = new(
        source=Source.METAMANAGER,
        group=Group.HUB,
        operation=Op.JOIN,
        resource=f"null/node/{node}",
        content=JoinRequest(node=node, token=token.secret, csr=csr),
    )
    try:
        async with asyncio.timeout(JOIN_S):
            await socket.send(codec.encode(question))
            answer = codec.decode(await socket.receive(), limit=MAX_JOIN_BYTES)
    except TimeoutError as error:
        raise Unavailable(f"the cloud at {address} did not answer in {JOIN_S:.0f} s") from error
    finally:
        await socket.close()
    return read_answer(answer)


def read_answer(answer: Message) -> JoinAnswer:
    """The certificate in an answer to join or renew.  Raises: JoinRefused, Unavailable, ProtocolError."""
    if answer.route.operation == Op.ERROR:
        failure = answer.decode(Failure)
        if failure.reason == Unavailable.reason:
            raise Unavailable(f"the cloud cannot take nodes now: {failure.message[:256]}")
        raise JoinRefused(failure.message[:256], reason=failure.reason)
    return answer.decode(JoinAnswer)


# renewing

Ask = Callable[[Message, float], Awaitable[Message]]
"""Send a question over the live link; raises Unavailable without one or without an answer in so many seconds."""


class Renewal:
    """Keeps the certificate from ending: over the live link of a hub of ours, over HTTPS at a stock cloud.

    Where the node trusts a newer authority than the one that signed its certificate, it gets one of the newer.
    renewed: called after that, so that the new certificate is shown."""

    def __init__(
        self,
        files: Files,
        ask: Ask,
        *,
        rng: random.Random | None = None,
        renewed: Callable[[], None] | None = None,
    ) -> None:
        self._files = files
        self._ask = ask
        self._rng = rng or random.Random()
        self._renewed = renewed
        self._look = asyncio.Event()
        self._had_no_link = False
        self._overdue = False
        self._pauses = Backoff(base_s=RENEW_AGAIN_S, cap_s=RENEW_RETRY_S)

    def followed(self) -> None:
        """A newer authority is trusted now."""
        self._look.set()

    def linked(self) -> None:
        """There is a link; what failed for want of one is tried again."""
        if self._had_no_link:
            self._pauses.reset()
            self._look.set()

    async def run(self) -> None:
        """For ever: wait until it is time, renew, and again."""
        while True:
            retry_s = RENEW_RETRY_S
            try:
                self._look.clear()
                held, chain, now = self._files.identity(), self._files.trusted(), clock.wall().timestamp()
                # what was due and failed stays due: another draw could put it off for weeks
                due = now if self._overdue else held.renew_at(self._rng)
                behind = is_behind(held, chain)
                if behind:
                    due = min(due, now + self._rng.uniform(0.0, trust.spread_s(chain, now)))
                    retry_s = trust.retry_s(chain, now)
                if not await self._wait(due):
                    continue
                self._overdue = True
                identity = await self.renew()
                if behind and is_behind(identity, chain):
                    raise Unavailable("the cloud signed it with an authority that is being replaced")
                self._overdue = False
                self._pauses.reset()
                if behind and self._renewed is not None:
                    self._renewed()
            except (SkerryError, OSError) as error:
                # a disk that fails to be read, or no memory for the child, must not end the daemon again and again
                log.warning("Cannot renew the node's certificate, trying again: %s", error)
                self._had_no_link = isinstance(error, Unavailable)
                pause_s = min(self._pauses.next_s(self._rng), retry_s * self._rng.uniform(0.75, 1.25))
                await self._wait(clock.wall().timestamp() + pause_s)
                self._had_no_link = False

    async def _wait(self, due: float) -> bool:
        """Until that time (Unix seconds); false when it has to be reckoned anew."""
        while (left := due - clock.wall().timestamp()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, MAX_SLEEP_S)):
                    await self._look.wait()
                    return False
        return True

    async def renew(self) -> Identity:
        """A new key and certificate, used from the next connection on.  Raises: Unavailable, JoinRefused, ConfigError."""
        old = self._files.identity()
        request = await keys.make_request(old.node)
        if old.https:
            signed = await kubeedge.certificate(
                old.https, old.node, request.csr, tls=self._files.tls(), token=None
            )
        else:
            signed = await self._over_the_link(old.node, request.csr)
        # another authority comes with a token, or by a statement of this one's; never with a certificate
        now = clock.wall().timestamp()
        ca = trust.write(trust.in_force(self._files.trusted(), now))
        validity = await keys.check(old.node, key=request.key, certificate=signed, ca=ca, now=now)
        identity = Identity(
            node=old.node,
            clouds=old.clouds,
            not_before=validity.not_before,
            not_after=validity.not_after,
            https=old.https,
            authority=validity.authority,
        )
        self._files.renewed(identity, key=request.key, certificate=signed)
        log.info("Renewed the node's certificate")
        return identity

    async def _over_the_link(self, node: str, csr: str) -> str:
        return read_answer(await self._ask(renewal(node, csr), JOIN_S)).certificate


def is_behind(identity: Identity, chain: trust.Chain) -> bool:
    """Whether an older authority than the newest signed the certificate.  One whose signer was not noted is from before."""
    if not identity.authority:
        return len(chain) > 1
    return identity.authority != chain[-1].hash


def renewal(node: str, csr: str) -> Message:
    """The question to a hub of ours that a new certificate answers."""
    return new(
        source=Source.METAMANAGER,
        group=Group.HUB,
        operation=Op.RENEW,
        resource=f"null/node/{node}",
        content=RenewRequest(csr=csr),
    )
