"""Who asks, and whether they may: by what the edge has stored, link or no link.

A caller is a service account's token, nobody (`system:anonymous`), or the owner of this machine on the local socket.  A token's
signature is judged by the issuer's public keys, which the hub passes on and the store keeps; where they cannot be had (a
stock hub), only a token counts that this edge itself got for one of its pods, letter for letter.  A token that is bound to
a pod counts while that pod is here.  Rights come from the account's ServiceAccountAccess; what is not granted there is
forbidden.

An expired token is a 401, as at an API server, with one exception that autonomy needs: while the cloud is away nobody can get
a new one, so a token whose pod is here counts on until the link is back.  One of such a pod that is not valid yet says that the
clock here is behind, and counts.

Source: protocol notes on the metaserver, 4; Kubernetes' default cluster roles for discovery and public information."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from beehive import application, rbac
from beehive.errors import SkerryError
from beehive.message import UNREADABLE
from beehive.rbac import Attributes, Rule, ServiceAccountAccess, User
from edgecore.metaserver import jwt, status
from edgecore.metaserver.jwt import BadToken, Claims, Key
from edgecore.metaserver.ports import Store
from edgecore.metaserver.request import Info

log = logging.getLogger(__name__)

ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))
ISSUER_NOTE = "issuer"
KEYS_NOTE = "keys"
MAX_VERDICTS = 256
REFRESH_S = 60.0
"""The issuer's keys are asked for again at most so often when a signature fits none."""

TELL_S = 60.0

_API_AUDIENCES = frozenset({"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"})
"""Beside the issuer's own name: what clusters whose issuer is elsewhere make their API's tokens for."""
_PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_SELF = frozenset({"selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"})

_EVERYTHING = Rule(verbs=(rbac.ALL,), api_groups=(rbac.ALL,), resources=(rbac.ALL,))
_BASIC = (
    Rule(
        verbs=("create",),
        api_groups=("authorization.k8s.io",),
        resources=("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
    ),
    Rule(verbs=("create",), api_groups=("authentication.k8s.io",), resources=("selfsubjectreviews",)),
    Rule(
        verbs=("get",),
        non_resource_urls=(
            *("/.well-known/openid-configuration", "/openid/v1/jwks"),
            *("/api", "/api/*", "/apis", "/apis/*", "/openapi/*"),
            *sorted(_PUBLIC),
        ),
    ),
)
"""What `allowed` lets every account do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`account`: `<namespace>:<name>` of a service account, or empty.  `owner`: of this machine; may do everything here and
    reaches the cloud as the node."""

    user: User
    account: str = ""
    owner: bool = False


OWNER = Caller(user=User(name="owner"), owner=True)
NOBODY = Caller(user=ANONYMOUS)


class _Discovery(msgspec.Struct, frozen=True, kw_only=True):
    issuer: str


class Access:
    """See the module.  `load` once; `refresh` whenever the link has come.

    fetch: a path at the API server, through the hub; raises Unavailable or another SkerryError.   audiences: what tokens may be
    for beside the issuer itself.   online: whether the hub is there."""

    def __init__(
        self,
        store: Store,
        *,
        fetch: Callable[[str], Awaitable[bytes]],
        online: Callable[[], bool],
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        audiences: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._online = online
        self._wall = wall
        self._monotonic = monotonic
        self._audiences = audiences
        self._issuer = ""
        self._keys: list[Key] = []
        self._verdicts: OrderedDict[bytes, Claims] = OrderedDict()
        self._asked_at = -REFRESH_S
        self._told_at = -TELL_S
        self.refused = 0
        """Requests with a token that counts for nothing."""

    async def load(self) -> None:
        """Raises Unavailable (the disk)."""
        issuer, keys = await self._store.note(ISSUER_NOTE), await self._store.note(KEYS_NOTE)
        if issuer and keys:
            self._take(issuer.decode(), keys)

    async def refresh(self) -> None:
        """Ask for the issuer and its keys, and keep them.  Raises SkerryError: then the old ones stay."""
        self._asked_at = self._monotonic()
        raw = await self._fetch("/.well-known/openid-configuration")
        try:
            issuer = msgspec.json.decode(raw, type=_Discovery).issuer
        except UNREADABLE as error:
            raise BadToken(f"cannot read the issuer's description: {error}") from error
        keys = await self._fetch("/openid/v1/jwks")
        before = (self._issuer, self._keys)
        self._take(issuer, keys)
        if before != (self._issuer, self._keys):
            await self._store.write_notes({ISSUER_NOTE: issuer.encode(), KEYS_NOTE: keys})

    def _take(self, issuer: str, keys: bytes) -> None:
        self._keys = jwt.read_jwks(keys)
        self._issuer = issuer
        self._verdicts.clear()

    # -- who -----------------------------------------------------------------------------------------------------

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller that an Authorization header proves.  Raises ApiError 401, Unavailable (the disk)."""
        if authorization is None:
            return NOBODY
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return NOBODY
        try:
            claims = await self._judge(token.strip())
        except BadToken as error:
            self._tell_refused(error)
            raise status.unauthorized() from error
        account = claims.bound.serviceaccount
        assert account is not None, "judged tokens name their account"
        return Caller(
            user=rbac.service_account_user(claims.bound.namespace, account.name),
            account=f"{claims.bound.namespace}:{account.name}",
        )

    def _tell_refused(self, error: BadToken) -> None:
        """One line a minute: whoever tries in a loop must not fill the disk."""
        self.refused += 1
        now = self._monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            log.warning("A token is refused (%d so far): %s", self.refused, error)

    async def _judge(self, token: str) -> Claims:
        now = self._wall()
        claims = await self._authentic(token)
        try:
            jwt.judge(
                claims,
                issuers={self._issuer or claims.iss},
                audiences=self._audiences | _API_AUDIENCES | {claims.iss},
                now=now,
            )
        except jwt.Expired:
            if self._online() or claims.bound.pod is None:
                raise
        except jwt.Early:
            # a board without a clock of its own starts years back, and away from the cloud nobody tells it the time
            if claims.bound.pod is None:
                raise
        await self._still_bound(claims)
        return claims

    async def _authentic(self, token: str) -> Claims:
        """The claims of a token that is what it says, whatever its time.  Raises BadToken."""
        digest = hashlib.sha256(token.encode()).digest()
        found = self._verdicts.get(digest)
        if found is None:
            found = await self._check(token)
            self._verdicts[digest] = found
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        else:
            self._verdicts.move_to_end(digest)
        return found

    async def _check(self, token: str) -> Claims:
        if not self._keys and self._online():
            await self._refresh_quietly()
        if not self._keys:
            if await self._got_here(token):
                return jwt.unverified(token)
            raise BadToken("the issuer's keys are not known and no pod here was given this token")
        try:
            return self._signed(token)
        except jwt.BadSignature:
            if not await self._refresh_quietly():
                raise
            return self._signed(token)

    def _signed(self, token: str) -> Claims:
        # time and audience are judged on every request: only what cannot change is remembered
        claims = jwt.unverified(token)
        return jwt.verify(
            token,
            self._keys,
            issuers={self._issuer},
            audiences=claims.audiences,
            now=min(max(self._wall(), claims.nbf), claims.exp),
        )

    async def _refresh_quietly(self) -> bool:
        if not self._online() or self._monotonic() - self._asked_at < REFRESH_S:
            return False
        try:
            await self.refresh()
        except SkerryError as error:
            log.info("Cannot get the keys that tokens are signed by: %s", error)
            return False
        return True

    async def _got_here(self, token: str) -> bool:
        return any(hmac.compare_digest(held, token.encode()) for held in await self._store.pod_tokens())

    async def _still_bound(self, claims: Claims) -> None:
        namespace, account = claims.bound.namespace, claims.bound.serviceaccount
        assert account is not None, "judged tokens name their account"
        if claims.bound.pod is not None:
            pod = await self._store.held_one("pod", namespace, claims.bound.pod.name)
            if pod is None or pod.uid != claims.bound.pod.uid:
                raise BadToken("the token's pod is not on this node")
        access = await self._rights(namespace, account.name)
        uid = access.spec.service_account_uid if access is not None else ""
        if uid and account.uid and uid != account.uid:
            raise BadToken("the token is of an earlier account of that name")
        if access is None and claims.bound.pod is None:
            raise BadToken("nothing is known here of the token's account")

    # -- whether -------------------------------------------------------------------------------------------------

    async def authorize(self, caller: Caller, info: Info) -> None:
        """Raises ApiError 403, Unavailable (the disk)."""
        if not await self.allowed(caller, info):
            raise status.forbidden(caller.user.name, info)

    async def allowed(self, caller: Caller, info: Info) -> bool:
        """Whether `caller` may do that here.  Raises Unavailable (the disk)."""
        if caller.owner:
            return True
        path = application.pass_through(info.path) if info.path else None
        if info.verb == "get" and path in _PUBLIC:
            return True
        if not caller.account:
            return False
        if info.verb == "get" and path is not None:
            return True  # system:discovery and service-account-issuer-discovery
        if info.verb == "create" and info.group.endswith(".k8s.io") and info.resource in _SELF:
            return True  # system:basic-user
        namespace, _, name = caller.account.partition(":")
        access = await self._rights(namespace, name)
        if access is None:
            return False
        asked = Attributes(
            verb=info.verb,
            group=info.group,
            resource=info.resource,
            subresource=info.subresource,
            namespace=info.namespace,
            name=info.name,
            path=info.path,
        )
        return rbac.granted(access, caller.user, asked)

    async def rules(self, caller: Caller, namespace: str) -> list[Rule]:
        """What `caller` may do here in a namespace.  Raises Unavailable (the disk)."""
        if caller.owner:
            return [_EVERYTHING, Rule(verbs=(rbac.ALL,), non_resource_urls=(rbac.ALL,))]
        if not caller.account:
            return [Rule(verbs=("get",), non_resource_urls=tuple(sorted(_PUBLIC)))]
        where, _, name = caller.account.partition(":")
        access = await self._rights(where, name)
        return [*_BASIC, *(rbac.rules(access, caller.user, namespace) if access is not None else ())]

    async def _rights(self, namespace: str, name: str) -> ServiceAccountAccess | None:
        held = await self._store.held_one("serviceaccountaccess", namespace, name)
        if held is None:
            return None
        try:
            return msgspec.json.decode(held.value, type=ServiceAccountAccess)
        except UNREADABLE as error:
            log.warning("Cannot read the rights of account %s/%s: %s", namespace, name, error)
            return None
