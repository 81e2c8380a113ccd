"""Judge a service account's token by its issuer's public keys.  Pure; the time is given.

The standard library verifies no signature, and `cryptography` costs a daemon 16 MB.  Checking a signature needs no secret, so
neither timing nor blinding matters, and it is small: RS256 is one modular power, whose whole result must equal the one
padded block that RFC 8017 allows (nothing is parsed out of it, which is where verifiers go wrong); ES256 is the textbook
formula on P-256.  Whoever signs holds its key elsewhere.

Source: RFC 7515, RFC 7517, RFC 7518; RFC 8017 8.2.2; FIPS 186-5 6.4.2; Kubernetes, pkg/serviceaccount."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from beehive.errors import Refused
from beehive.message import UNREADABLE

MAX_TOKEN = 8 * 1024
"""Characters.  A bound token has about 1,100."""
LEEWAY_S = 60.0
"""By how much two clocks may differ; Kubernetes' own."""
MAX_KEYS = 16
MAX_KEY_BITS = 8192

_TEXT = re.compile(r"[A-Za-z0-9_-]+")
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}
# DER of DigestInfo up to the digest, RFC 8017 9.2 note 1
_DIGEST_INFO = {
    "256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class BadToken(Refused):
    """The token proves nothing; the text says why, for the log only."""

    reason = "Unauthorized"


class BadSignature(BadToken):
    """No key that is known made the signature; the issuer may have a newer one."""


class Expired(BadToken):
    """The token was good until `at` (Unix seconds)."""

    def __init__(self, at: float, claims: Claims) -> None:
        super().__init__("the token has expired")
        self.at = at
        self.claims = claims


class Early(BadToken):
    """The token is not valid yet: no issuer makes such, so it is this machine's clock that is behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """`kid` is empty for a key that came without one."""

    n: int
    e: int
    kid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EcKey:
    """A point on P-256."""

    x: int
    y: int
    kid: str = ""


Key = RsaKey | EcKey


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An object that a token is bound to."""

    name: str
    uid: str = ""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The claim `kubernetes.io`."""

    namespace: str = ""
    serviceaccount: Named | None = None
    pod: Named | None = None
    secret: Named | None = None
    node: Named | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a service account's token says."""

    iss: str
    sub: str
    exp: float
    aud: str | list[str] = []
    nbf: float = 0.0
    iat: float = 0.0
    bound: Bound = msgspec.field(name="kubernetes.io", default=Bound())

    @property
    def audiences(self) -> list[str]:
        return [self.aud] if isinstance(self.aud, str) else self.aud


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    alg: str
    kid: str = ""
    crit: msgspec.Raw | None = None


class _Jwk(msgspec.Struct, frozen=True, kw_only=True):
    kty: str
    kid: str = ""
    use: str = "sig"
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _Jwks(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[_Jwk]


def read_jwks(data: bytes) -> list[Key]:
    """The keys of a JSON Web Key Set that can be used here; others are left out.  Raises BadToken when it is none."""
    try:
        found = msgspec.json.decode(data, type=_Jwks)
    except UNREADABLE as error:
        raise BadToken(f"cannot read the issuer's keys: {error}") from error
    keys: list[Key] = []
    for item in found.keys[:MAX_KEYS]:
        if item.use not in ("sig", ""):
            continue
        try:
            if item.kty == "RSA":
                rsa = RsaKey(n=_integer(item.n), e=_integer(item.e), kid=item.kid)
                if _usable(rsa):
                    keys.append(rsa)
            elif item.kty == "EC" and item.crv == "P-256":
                point = EcKey(x=_integer(item.x), y=_integer(item.y), kid=item.kid)
                if on_curve(point.x, point.y):
                    keys.append(point)
        except BadToken:
            continue
    return keys


def verify(
    token: str,
    keys: Iterable[Key],
    *,
    issuers: Collection[str],
    audiences: Collection[str],
    now: float,
) -> Claims:
    """The claims of a good token.

    Raises Expired for one that was good and is only too old, BadToken for anything else."""
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3 or not all(map(_TEXT.fullmatch, parts)):
        raise BadToken("the token is not a JWT")
    try:
        header = msgspec.json.decode(_bytes(parts[0]), type=_Header)
    except UNREADABLE as error:
        raise BadToken("the token's header cannot be read") from error
    if header.crit is not None:
        raise BadToken("the token demands an extension")
    signed, signature = f"{parts[0]}.{parts[1]}".encode(), _bytes(parts[2])
    fitting = [key for key in keys if not (header.kid and key.kid) or key.kid == header.kid]
    if not any(_signed(header.alg, key, signed, signature) for key in fitting):
        raise BadSignature("no key of the issuer made the token's signature")
    claims = _claims(parts)
    judge(claims, issuers=issuers, audiences=audiences, now=now)
    return claims


def unverified(token: str) -> Claims:
    """The claims of a token that is trusted for another reason than its signature.  Raises BadToken."""
    if len(token) > MAX_TOKEN:
        raise BadToken("the token is not a JWT")
    return _claims(token.split("."))


def judge(claims: Claims, *, issuers: Collection[str], audiences: Collection[str], now: float) -> None:
    """Whether a token that is authentic counts here and now.  Raises Early, Expired, BadToken."""
    if claims.iss not in issuers:
        raise BadToken("the token is of another issuer")
    if not set(claims.audiences) & set(audiences):
        raise BadToken("the token is for another audience")
    account = claims.bound.serviceaccount
    if account is None or claims.sub != f"system:serviceaccount:{claims.bound.namespace}:{account.name}":
        raise BadToken("the token is of no service account")
    if now < claims.nbf - LEEWAY_S:
        raise Early("the token is not valid yet")
    if now > claims.exp + LEEWAY_S:
        raise Expired(claims.exp, claims)


def _claims(parts: list[str]) -> Claims:
    if len(parts) != 3 or not _TEXT.fullmatch(parts[1]) or len(parts[1]) > MAX_TOKEN:
        raise BadToken("the token is not a JWT")
    try:
        return msgspec.json.decode(_bytes(parts[1]), type=Claims)
    except UNREADABLE as error:
        raise BadToken("the token's claims cannot be read") from error


def _signed(alg: str, key: Key, message: bytes, signature: bytes) -> bool:
    if isinstance(key, RsaKey) and alg[:2] == "RS" and alg[2:] in _HASHES:
        return rsa_verifies(key, alg[2:], message, signature)
    if isinstance(key, EcKey) and alg == "ES256":
        return ec_verifies(key, message, signature)
    return False


def rsa_verifies(key: RsaKey, bits: str, message: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5.  `bits`: of the hash."""
    size = (key.n.bit_length() + 7) // 8
    number = int.from_bytes(signature, "big")
    tail = _DIGEST_INFO[bits] + _HASHES[bits](message).digest()
    if len(signature) != size or number >= key.n or size < len(tail) + 11:
        return False
    expected = b"\x00\x01" + b"\xff" * (size - len(tail) - 3) + b"\x00" + tail
    return pow(number, key.e, key.n).to_bytes(size, "big") == expected


def _usable(key: RsaKey) -> bool:
    return (
        2048 <= key.n.bit_length() <= MAX_KEY_BITS
        and key.n % 2 == 1
        and 3 <= key.e < 2**32
        and key.e % 2 == 1
    )


# P-256, FIPS 186-5 / SEC 2
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_A = _P - 3
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int, int]
_INFINITY: _Point = (0, 1, 0)


def ec_verifies(key: EcKey, message: bytes, signature: bytes) -> bool:
    """ECDSA on P-256 with SHA-256; the signature is r and s, 32 bytes each."""
    if len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, _ORDER)
    total = _add(_times(digest * inverse % _ORDER, (*_G, 1)), _times(r * inverse % _ORDER, (key.x, key.y, 1)))
    if total[2] == 0:
        return False
    z = pow(total[2], -1, _P)
    return total[0] * z * z % _P % _ORDER == r


def on_curve(x: int, y: int) -> bool:
    return 0 <= x < _P and 0 <= y < _P and (y * y - (x * x * x + _A * x + _B)) % _P == 0


def _double(point: _Point) -> _Point:
    x, y, z = point
    if not y or not z:
        return _INFINITY
    yy = y * y % _P
    s = 4 * x * yy % _P
    m = 3 * (x - z * z) * (x + z * z) % _P  # a = -3
    out = (m * m - 2 * s) % _P
    return out, (m * (s - out) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(one: _Point, two: _Point) -> _Point:
    if not one[2]:
        return two
    if not two[2]:
        return one
    z1, z2 = one[2] * one[2] % _P, two[2] * two[2] % _P
    u1, u2 = one[0] * z2 % _P, two[0] * z1 % _P
    s1, s2 = one[1] * z2 * two[2] % _P, two[1] * z1 * one[2] % _P
    if u1 == u2:
        return _double(one) if s1 == s2 else _INFINITY
    h, r = u2 - u1, s2 - s1
    hh = h * h % _P
    hhh, v = h * hh % _P, u1 * hh % _P
    x = (r * r - hhh - 2 * v) % _P
    return x, (r * (v - x) - s1 * hhh) % _P, one[2] * two[2] * h % _P


def _times(factor: int, point: _Point) -> _Point:
    out = _INFINITY
    for bit in bin(factor)[2:]:
        out = _double(out)
        if bit == "1":
            out = _add(out, point)
    return out


def _bytes(text: str) -> bytes:
    """Base64url without padding, RFC 7515 2."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise BadToken("the token is not base64") from error


def _integer(text: str) -> int:
    if not _TEXT.fullmatch(text) or len(text) > MAX_KEY_BITS // 6 + 4:
        raise BadToken("a key's number cannot be read")
    return int.from_bytes(_bytes(text), "big")
