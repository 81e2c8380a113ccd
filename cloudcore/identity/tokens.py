"""Join tokens: make one, keep only its hash, say whether one that is shown may be used.  Pure: time and chance are given.

    <sha256 hex of the CA's DER> . <id: 6 of a-z0-9> . <secret: 32 of a-z0-9>

The first part is for the edge: it pins the authority.  The hub is shown `<id>.<secret>`.  What is stored per token is a
`Record`; a use is recorded with the node and the key it was for, so that the same machine may ask again when the answer was
lost, and nobody else can.  The secret has 165 random bits, so one round of SHA-256 keeps it."""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import string
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from beehive import resource
from cloudcore.errors import JoinRefused

ID_CHARS, SECRET_CHARS = 6, 32
_ALPHABET = string.ascii_lowercase + string.digits
_SHOWN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{32})")
MAX_USES = 10_000
"""Uses are kept in one Secret of at most 1 MiB."""
MAX_TTL = timedelta(days=365)


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One use: the node's name, the SHA-256 of its key, and when (RFC 3339)."""

    node: str
    key: str
    at: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a token.  `uses`: how many nodes may join by it.   `node`: the only name it is for, or empty."""

    id: str
    hash: str
    expires: str
    uses: int = 1
    node: str = ""
    used: list[Use] = []

    @property
    def left(self) -> int:
        return max(0, self.uses - len(self.used))

    def expired(self, now: datetime) -> bool:
        return now >= datetime.fromisoformat(self.expires)


@dataclass(frozen=True, slots=True)
class Made:
    """A new token: what to show once, and what to store."""

    shown: str
    record: Record

    def __repr__(self) -> str:
        return f"Made({self.record.id})"


def make(*, ttl: timedelta, now: datetime, rng: random.Random, uses: int = 1, node: str = "") -> Made:
    """A token for `uses` nodes, or for the node of that name only.  Raises JoinRefused for what makes no sense.

    rng: secrets.SystemRandom() except in tests."""
    if not timedelta(0) < ttl <= MAX_TTL:
        raise JoinRefused(f"a token must live between a second and {MAX_TTL.days} days", reason="BadToken")
    if not 1 <= uses <= MAX_USES:
        raise JoinRefused(f"a token can be for 1 to {MAX_USES} uses", reason="BadToken")
    if node and not resource.is_name(node):
        raise JoinRefused(f"{node!r} is not a node name", reason="BadName")
    token_id = "".join(rng.choices(_ALPHABET, k=ID_CHARS))
    secret = "".join(rng.choices(_ALPHABET, k=SECRET_CHARS))
    expires = (now + ttl).isoformat(timespec="seconds")
    record = Record(id=token_id, hash=_hash(token_id, secret), expires=expires, uses=uses, node=node)
    return Made(f"{token_id}.{secret}", record)


def token_id(shown: str) -> str:
    """The id in a token that somebody shows; the CA's hash in front is allowed.  Raises JoinRefused."""
    return _split(shown)[0]


def spend(record: Record | None, shown: str, *, node: str, key: str, now: datetime) -> Record:
    """The record after `node` with this key used the token; the same record if it had done so already.

    record: what is stored under the token's id, or None.  Raises JoinRefused with one sentence."""
    found_id, secret = _split(shown)
    # the same work for an unknown id, so that time does not tell which ids exist
    stored = record.hash if record is not None else _hash(found_id, "")
    genuine = hmac.compare_digest(stored, _hash(found_id, secret))
    if record is None or not genuine or record.id != found_id:
        raise JoinRefused(
            "the join token is not valid; make a new one with `cloudcore token create`", reason="BadToken"
        )
    if record.expired(now):
        raise JoinRefused(
            f"the join token expired at {record.expires}; make a new one with `cloudcore token create`",
            reason="TokenExpired",
        )
    if record.node and record.node != node:
        raise JoinRefused(f"the join token is for node {record.node}, not for {node}", reason="BadToken")
    for use in record.used:
        if use.node == node and hmac.compare_digest(use.key, key):
            return record
    if record.left == 0:
        raise JoinRefused(
            "the join token was used already; make a new one with `cloudcore token create`",
            reason="TokenUsed",
        )
    use = Use(node=node, key=key, at=now.isoformat(timespec="seconds"))
    return msgspec.structs.replace(record, used=[*record.used, use])


def repeats(record: Record, *, node: str, key: str) -> bool:
    """Whether this node with this key used the token before."""
    return any(use.node == node and use.key == key for use in record.used)


def _split(shown: str) -> tuple[str, str]:
    # a person may paste the whole token
    match = _SHOWN.fullmatch(shown[-(ID_CHARS + 1 + SECRET_CHARS) :]) if len(shown) <= 128 else None
    if match is None:
        raise JoinRefused("the join token does not have the form of one", reason="BadToken")
    return match[1], match[2]


def _hash(token_id: str, secret: str) -> str:
    return hashlib.sha256(f"{token_id}.{secret}".encode()).hexdigest()
