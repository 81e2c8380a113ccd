"""When a stored service account token may be used and when another should be asked for.  Pure.

A token is asked for again at 80 % of its life or after a day, as a kubelet does.  Offline an old one is kept: what checks it
decides whether it still counts, and the pod goes on.   Source: kubelet, token_manager.go."""

from __future__ import annotations

import hashlib

import msgspec

from beehive import clock
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE

MAX_AGE_S = 24 * 3600.0
LIFE_USED = 0.8

SAVE_S = 600.0
"""How long newer tokens wait for others at most, to be written together: of an hour's token, 12 minutes are left."""


class _BoundTo(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    audiences: list[str] | None = None
    expiration_seconds: int | None = None
    bound_object_ref: _BoundTo | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    token: str = ""
    expiration_timestamp: str = ""


class _TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()
    status: _Status = _Status()


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is stored: the whole TokenRequest, when it came and when it ends, in Unix seconds."""

    token: msgspec.Raw
    came: float
    ends: float

    def is_fresh(self, now: float) -> bool:
        """Whether it need not be asked for again.  A clock that was turned back makes it stale, which is harmless."""
        age = now - self.came
        return 0 <= age < min(MAX_AGE_S, (self.ends - self.came) * LIFE_USED)


ALL = "token/"
"""Where the tokens of all pods are."""


def text(stored: bytes) -> bytes:
    """The token itself, or nothing if it cannot be read."""
    held = read(stored)
    try:
        return _decode(bytes(held.token)).status.token.encode() if held is not None else b""
    except ProtocolError:
        return b""


def prefix(uid: str) -> str:
    """Where the tokens bound to a pod are: they go with it."""
    return f"{ALL}{uid or '-'}/"


def key(namespace: str, service_account: str, request: bytes) -> str:
    """Where the token for this request is stored.  Raises: ProtocolError."""
    spec = _decode(request).spec
    what = msgspec.json.encode([sorted(spec.audiences or []), spec.expiration_seconds])
    uid = spec.bound_object_ref.uid if spec.bound_object_ref else ""
    return f"{prefix(uid)}{namespace}/{service_account}/{hashlib.sha256(what).hexdigest()[:32]}"


def accept(answer: bytes, *, now: float) -> Held:
    """The cloud's answer, to be stored.  Raises: ProtocolError when there is no token in it."""
    status = _decode(answer).status
    if not status.token:
        raise ProtocolError("the answer to a token request has no token")
    try:
        ends = clock.parse_rfc3339(status.expiration_timestamp).timestamp()
    except ValueError as error:
        raise ProtocolError("the answer to a token request has no expirationTimestamp") from error
    return Held(token=msgspec.Raw(answer), came=now, ends=ends)


def read(stored: bytes) -> Held | None:
    """A stored token, or None if it cannot be read."""
    try:
        return msgspec.json.decode(stored, type=Held)
    except UNREADABLE:
        return None


def save_within(stored: Held, now: float) -> float:
    """How long a newer token may be in memory only, in seconds: `stored` must count until it is written."""
    return max(0.0, min(SAVE_S, (stored.ends - now) / 2))


def _decode(text: bytes) -> _TokenRequest:
    try:
        return msgspec.json.decode(text, type=_TokenRequest)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read a TokenRequest: {error}") from error
