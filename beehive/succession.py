"""One authority of certificates says which one follows it: the statement, as both ends read it byte for byte.  Pure.

    skerry-succession-v1 . <base64url of the JSON of a Statement> . <base64url of a signature>

The old authority's key signs all that is before the last dot, by ES256 (r and s, 32 bytes each).  The first word says what was
signed and in which version, so that nothing else this key signs can pass for it: a certificate begins with 0x30.
Several rotations are a chain of such texts, oldest first, each signed by the authority that the one before it named."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from beehive.errors import ProtocolError
from beehive.message import UNREADABLE

KIND = "skerry-succession-v1"
PATH = "/succession"
"""Where a hub gives its `Chain` to anybody: what is signed needs no trust in who passes it on."""
HEADER = "Skerry-Authority"
"""Of an edge's upgrade: the `Trust` it has."""
MAX_TEXT = 8 * 1024
MAX_CERTIFICATE = 4 * 1024
MAX_CHAIN = 16
"""Rotations that a hub remembers; who missed more needs a token."""
MAX_TIME = 2**40
MAX_ISSUE = 1000

_FORM = re.compile(rf"({KIND}\.[A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{{86}})")
_HASH = re.compile(r"[0-9a-f]{64}")
_TRUST = re.compile(r"([0-9a-f]{64})(?: (\d{1,4}))?")


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """old: SHA-256 of the old authority's DER, hex.   new: the new one's DER, base64.   Times are Unix seconds.

    until: the old one is trusted beside the new one so long.   follow: who only knows the old one may go over to the new one
    so long, since it may have been away.   issue: of several about the same two, the highest counts."""

    old: str
    new: str
    begins: int
    until: int
    follow: int
    issue: int


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub tells.  first: the DER of the authority that the first statement is signed by, base64; empty over a link."""

    statements: list[str] = []
    first: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A statement taken apart; nothing of it is verified.   new: DER."""

    statement: Statement
    new: bytes
    signed: bytes
    signature: bytes

    @property
    def new_hash(self) -> str:
        return fingerprint(self.new)


@dataclass(frozen=True, slots=True)
class Trust:
    """newest: the hash of the newest authority that an edge trusts; empty: it cannot say.
    issue: of the newest statement it knows about it; None if it knows no authority before it."""

    newest: str = ""
    issue: int | None = None

    def __str__(self) -> str:
        return self.newest if self.issue is None else f"{self.newest} {self.issue}"


def fingerprint(der: bytes) -> str:
    """As join tokens name an authority."""
    return hashlib.sha256(der).hexdigest()


def read_trust(text: str) -> Trust:
    """Whatever a header holds; what makes no sense is no trust."""
    found = _TRUST.fullmatch(text)
    if found is None:
        return Trust()
    return Trust(found[1], int(found[2]) if found[2] else None)


def write(statement: Statement, sign: Callable[[bytes], bytes]) -> str:
    """sign: ES256 by the old authority's key."""
    signed = f"{KIND}.{_text(msgspec.json.encode(statement))}"
    return f"{signed}.{_text(sign(signed.encode()))}"


def read(text: str) -> Said:
    """Take a statement apart.  Raises ProtocolError for one that is malformed or makes no sense in itself."""
    found = _FORM.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None:
        raise ProtocolError("a statement of succession does not have the form of one")
    try:
        payload = _bytes(found[1].partition(".")[2])
        signature = _bytes(found[2])
        statement = msgspec.json.decode(payload, type=Statement)
        new = base64.b64decode(statement.new, validate=True)
    except (*UNREADABLE, binascii.Error) as error:
        raise ProtocolError(f"a statement of succession cannot be read: {error}") from error
    if not 0 < len(new) <= MAX_CERTIFICATE or _HASH.fullmatch(statement.old) is None:
        raise ProtocolError("a statement of succession names no two authorities")
    if not 0 <= statement.begins <= statement.until <= statement.follow <= MAX_TIME:
        raise ProtocolError("a statement of succession has times in the wrong order")
    if not 1 <= statement.issue <= MAX_ISSUE:
        raise ProtocolError("a statement of succession has no usable number")
    if fingerprint(new) == statement.old:
        raise ProtocolError("a statement of succession says that an authority follows itself")
    return Said(statement, new, found[1].encode(), signature)


def read_chain(body: bytes) -> tuple[bytes, list[str]]:
    """The oldest authority's DER (empty if it was not told) and the statements.  Raises ProtocolError."""
    try:
        chain = msgspec.json.decode(body, type=Chain)
        first = base64.b64decode(chain.first, validate=True)
    except (*UNREADABLE, binascii.Error) as error:
        raise ProtocolError(f"cannot read a chain of statements of succession: {error}") from error
    if len(chain.statements) > MAX_CHAIN or len(first) > MAX_CERTIFICATE:
        raise ProtocolError("a chain of statements of succession is too long")
    return first, chain.statements


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
