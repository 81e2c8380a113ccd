"""The key material of a cluster: one authority for all hubs, and the hubs' server certificate, kept as Secrets in the API.

Created once by whoever comes first: a create that finds the Secret there takes what it finds, so replicas that start together
end with one authority.  Secrets and keys are KubeEdge's (`casecret`, `cloudcoresecret` in namespace `kubeedge`, DER).  While
one authority takes the place of another, `casecret` holds both and what was signed about it (identity/succession.py): each step
is one write of that Secret."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from beehive import clock
from beehive.errors import Conflict, ProtocolError, SkerryError, Unavailable
from beehive.succession import Chain, Trust, read, read_chain
from cloudcore.errors import ApiExists, ApiNotFound
from cloudcore.identity import pki, succession
from cloudcore.identity.addresses import split_names
from cloudcore.identity.subjects import HUB_GROUP, HUB_USER, NODE_GROUP, NODE_USER
from cloudcore.identity.succession import Held
from cloudcore.kube import Kube
from cloudcore.objects import NAMESPACE, SECRET, Object

log = logging.getLogger(__name__)

SYSTEM_NAMESPACE = "kubeedge"
CA_SECRET = "casecret"
SERVER_SECRET = "cloudcoresecret"
CA_LIFETIME = timedelta(days=364 * 100)
SERVER_LIFETIME = timedelta(days=365)
SERVER_RENEW = timedelta(days=90)
"""The server certificate is made anew when less than this is left of it."""
MAX_NAMES = 100
TRIES = 20
TAKEN_S = 0.1
HUB_LIFETIME = timedelta(days=1)
"""Of the certificate that a cloudcore shows another; each connection has a new one."""


@dataclass(slots=True)
class Authority:
    """The CA, as all parts of a cloudcore share it.   held: replaced when the Secret changes (identity/rotation.py)."""

    held: Held

    @property
    def pair(self) -> pki.KeyPair:
        """The newest, which signs."""
        return self.held.pair

    @property
    def der(self) -> bytes:
        """Of the one by which hubs prove themselves."""
        return pki.to_der(self.held.shown)[0]

    @property
    def fingerprint(self) -> str:
        """What a join token begins with."""
        return pki.fingerprint(self.held.shown.certificate_pem)

    @property
    def chain(self) -> bytes:
        """JSON, for whoever asks which authority follows which."""
        return msgspec.json.encode(self.held.chain)

    def issuer(self, certificate_der: bytes) -> str:
        """The hash of the authority that signed a client certificate; empty if it is unknown.  Raises pki.BadCertificate."""
        return succession.issuer(self.held, pki.der_to_pem(certificate_der))

    def refusal(self, node: str, signed_by: str) -> str:
        """Why a certificate that this authority signed counts no more; empty if it does.  An empty `node` is a hub."""
        return succession.refusal(self.held, node, signed_by, now=clock.wall())

    def sign_node(
        self,
        node: str,
        csr: bytes,
        lifetime: timedelta,
        *,
        now: datetime | None = None,
        trusts: Trust | None = None,
    ) -> bytes:
        """A certificate (PEM) for `node`, as of `now`, by an authority that it knows.   trusts: as for succession.signer.

        Raises pki.BadRequest."""
        return pki.sign_request(
            succession.signer(self.held, trusts),
            csr,
            common_name=NODE_USER + node,
            organizations=(NODE_GROUP,),
            lifetime=lifetime,
            now=now or clock.wall(),
        )


def hub_client(authority: Authority) -> pki.KeyPair:
    """What a cloudcore shows to another.

    While there is an old authority it is by that: another cloudcore may not have heard of the newest yet."""
    return pki.issue(
        authority.held.old or authority.pair,
        common_name=HUB_USER,
        organizations=(HUB_GROUP,),
        client=True,
        lifetime=HUB_LIFETIME,
        now=clock.wall(),
    )


class SecretData(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a Secret that is read here."""

    data: dict[str, str] | None = None

    def bytes(self, key: str) -> bytes:
        """Raises ProtocolError when it is missing or no base64."""
        try:
            return base64.b64decode((self.data or {})[key], validate=True)
        except (KeyError, ValueError) as error:
            raise ProtocolError(f"the Secret has no usable {key!r}") from error


def secret_body(
    name: str,
    data: dict[str, bytes],
    *,
    version: str = "",
    type_: str = "Opaque",
    labels: dict[str, str] | None = None,
) -> bytes:
    """A Secret as JSON; with `version` it replaces only that version."""
    metadata: dict[str, object] = {"name": name, "namespace": SYSTEM_NAMESPACE}
    if version:
        metadata["resourceVersion"] = version
    if labels:
        metadata["labels"] = labels
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": type_,
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
    )


async def ensure_namespace(kube: Kube) -> None:
    """The namespace of our Secrets, made if it is missing."""
    try:
        await kube.get(NAMESPACE, SYSTEM_NAMESPACE)
    except ApiNotFound:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        try:
            await kube.create(NAMESPACE, msgspec.json.encode(body))
        except ApiExists:
            return  # somebody was quicker


async def ensure_authority(kube: Kube) -> Authority:
    """The cluster's CA.  Raises ApiError; pki.BadCertificate or ProtocolError when what is stored cannot be used."""
    await ensure_namespace(kube)
    made: pki.KeyPair | None = None
    for _ in range(TRIES):
        try:
            held = read_authority(await kube.get(SECRET, CA_SECRET, SYSTEM_NAMESPACE))
            return Authority(succession.settle(held, now=clock.wall()))
        except ApiNotFound:
            pass
        if made is None:
            made = await asyncio.to_thread(pki.make_ca, "KubeEdge", lifetime=CA_LIFETIME, now=clock.wall())
        certificate, key = pki.to_der(made)
        body = secret_body(CA_SECRET, {"cadata": certificate, "cakeydata": key})
        try:
            await kube.create(SECRET, body, SYSTEM_NAMESPACE)
        except ApiExists:
            await asyncio.sleep(TAKEN_S)  # another hub's, which is being written
            continue
        log.info("Made the certificate authority %s", pki.fingerprint(made.certificate_pem)[:16])
        return Authority(Held(made))
    raise Unavailable("cannot make the certificate authority: its Secret comes and goes")


class _Succession(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the Secret that KubeEdge does not know."""

    chain: Chain = Chain()
    showsNew: bool = False
    readmitted: dict[str, float] = {}


def read_authority(secret: Object) -> Held:
    """Raises pki.BadCertificate or ProtocolError when it cannot be used."""
    data = secret.decode(SecretData)
    pair = pki.from_der(data.bytes("cadata"), data.bytes("cakeydata"))
    keys = data.data or {}
    if "succession" not in keys:
        return Held(pair)
    try:
        said = msgspec.json.decode(data.bytes("succession"), type=_Succession)
        first, statements = read_chain(msgspec.json.encode(said.chain))
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the Secret {CA_SECRET} says nothing usable of succession: {error}") from error
    old = pki.from_der(data.bytes("oldcadata"), data.bytes("oldcakeydata")) if "oldcadata" in keys else None
    named = [read(text).new_hash for text in statements]
    if not named or named[-1] != pki.fingerprint(pair.certificate_pem):
        # written by something that does not know of succession, KubeEdge's own cloudcore or a person
        return Held(pair)
    return Held(pair, old, first, tuple(statements), said.showsNew, said.readmitted)


def authority_body(held: Held, *, version: str) -> bytes:
    """The reverse of `read_authority`."""
    certificate, key = pki.to_der(held.pair)
    said = _Succession(chain=held.chain, showsNew=held.shows_new, readmitted=dict(held.readmitted))
    data = {"cadata": certificate, "cakeydata": key, "succession": msgspec.json.encode(said)}
    if held.old is not None:
        data["oldcadata"], data["oldcakeydata"] = pki.to_der(held.old)
    return secret_body(CA_SECRET, data, version=version)


async def change_authority(kube: Kube, step: Callable[[Held], Held]) -> Held:
    """Replace what the Secret says by what `step` makes of it; the same object is not written.

    Raises ApiError, ProtocolError, pki.BadCertificate, and what `step` raises."""
    for _ in range(TRIES):
        secret = await kube.get(SECRET, CA_SECRET, SYSTEM_NAMESPACE)
        before = read_authority(secret)
        after = step(before)
        if after is before:
            return before
        try:
            await kube.replace(
                SECRET, CA_SECRET, authority_body(after, version=secret.version), SYSTEM_NAMESPACE
            )
        except Conflict:
            continue  # another hub was quicker
        return after
    raise Unavailable("cannot change the certificate authority: others keep changing its Secret")


async def ensure_server(kube: Kube, authority: Authority, names: Iterable[str]) -> pki.KeyPair:
    """The hubs' server certificate, covering at least `names` besides what it covered before (other replicas' addresses).

    Made anew when it does not, when it is nearly over, or when another authority signed it than the one to be shown."""
    wanted = set(names)
    for _ in range(8):
        stored: Object | None = None
        covered: frozenset[str] = frozenset()
        try:
            stored = await kube.get(SECRET, SERVER_SECRET, SYSTEM_NAMESPACE)
            data = stored.decode(SecretData)
            pair = pki.from_der(data.bytes("cloudcoredata"), data.bytes("cloudcorekeydata"))
            facts = pki.facts(pair.certificate_pem)
            if pki.signed_by(pair.certificate_pem, authority.held.shown.certificate_pem):
                covered = facts.names
                if wanted <= covered and facts.not_after - clock.wall() > SERVER_RENEW:
                    return pair
        except ApiNotFound:
            pass
        except (ProtocolError, pki.PkiError) as error:
            log.warning("The stored server certificate cannot be used and is made anew: %s", error)
        if len(wanted | covered) > MAX_NAMES:
            covered = frozenset()  # addresses come and go; the other hubs add theirs again
        dns, ips = split_names(wanted | covered)
        pair = pki.issue(
            authority.held.shown,
            common_name="KubeEdge",
            organizations=("KubeEdge",),
            dns=dns,
            ips=ips,
            server=True,
            lifetime=SERVER_LIFETIME,
            now=clock.wall(),
        )
        certificate, key = pki.to_der(pair)
        fields = {"cloudcoredata": certificate, "cloudcorekeydata": key}
        try:
            if stored is None:
                await kube.create(SECRET, secret_body(SERVER_SECRET, fields), SYSTEM_NAMESPACE)
            else:
                body = secret_body(SERVER_SECRET, fields, version=stored.version)
                await kube.replace(SECRET, SERVER_SECRET, body, SYSTEM_NAMESPACE)
        except (ApiExists, Conflict):
            continue  # another replica was quicker; look at what it made
        log.info("Made a server certificate for %s", ", ".join([*dns, *ips]))
        return pair
    raise SkerryError("cannot make the server certificate: others keep changing it")
