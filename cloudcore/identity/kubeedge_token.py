"""The join token of KubeEdge, so that a stock edge can join.  Pure.

    <sha256 hex of the CA's DER> . <JWT header> . <JWT claims> . <JWT signature>

The JWT is HS256 with the CA's private key (SEC1 DER) as its secret, and `exp` is its only claim: one token joins any number of
nodes until it expires.  Our own edges do not use this form; it is accepted only where `compat.kubeedge` is on.
Source: KubeEdge, pkg/security/token."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta

import msgspec

from beehive.errors import Refused

MAX_TOKEN = 4096


class _Header(msgspec.Struct, frozen=True):
    alg: str


class _Claims(msgspec.Struct, frozen=True):
    exp: int | float


# KubeEdge's verifier takes any HMAC algorithm
_DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def make(ca_der: bytes, key_der: bytes, *, now: datetime, lifetime: timedelta) -> str:
    """A token that is valid for `lifetime` from `now`."""
    head = _encode(b'{"alg":"HS256","typ":"JWT"}')
    claims = _encode(b'{"exp":%d}' % int((now + lifetime).timestamp()))
    signature = hmac.new(key_der, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{hashlib.sha256(ca_der).hexdigest()}.{head}.{claims}.{_encode(signature)}"


def verify(jwt: str, key_der: bytes, *, now: datetime) -> None:
    """Check the JWT part (what a stock edge sends after `Bearer `).  Raises Refused, saying what is wrong."""
    parts = jwt.split(".") if len(jwt) <= MAX_TOKEN else []
    if len(parts) != 3:
        raise Refused("token validation failure, it does not have three parts", reason="InvalidToken")
    try:
        digest = _DIGESTS[msgspec.json.decode(_decode(parts[0]), type=_Header).alg]
        claims = msgspec.json.decode(_decode(parts[1]), type=_Claims)
        signature = _decode(parts[2])
    except (ValueError, KeyError, RecursionError) as error:
        raise Refused("token validation failure, it cannot be read", reason="InvalidToken") from error
    expected = hmac.new(key_der, f"{parts[0]}.{parts[1]}".encode(), digest).digest()
    if not hmac.compare_digest(expected, signature):
        raise Refused("token validation failure, its signature is wrong", reason="InvalidToken")
    if now.timestamp() >= claims.exp:
        raise Refused("token validation failure, it has expired", reason="ExpiredToken")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
