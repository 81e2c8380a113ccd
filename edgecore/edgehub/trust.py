"""Which authorities of the cloud a node trusts, when, and whom it follows to a new one.  Pure; the time is given.

What is kept is a chain, oldest first: each authority was named by the one before it, and the last is the newest.  All but the
newest are trusted until their window is over.  Three rules keep a thief of an old key out:

* only the *newest* authority can name a new one, so one that has a successor cannot name another;
* a repeated statement about the same two changes only how long the old one is trusted, and only while it is;
* who knows only the old authority follows it after its window, too, as it may have been away the whole time, but no
  longer than the statement says: after that a token is needed.

In `ca.pem` each authority that has a successor has two lines in front of it, which PEM readers skip."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from beehive import succession
from beehive.errors import ConfigError, ProtocolError, Refused
from beehive.succession import MAX_CHAIN, Trust, fingerprint
from edgecore.edgehub.certkey import p256_key
from edgecore.metaserver.jwt import ec_verifies

SPREAD_CAP_S = 3600.0
RETRY_CAP_S, RETRY_LEAST_S = 300.0, 3.0

_BLOCK = re.compile(
    r"([^-]*?)-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)


class NotFollowed(Refused):
    """A statement of succession that counts for nothing here; the text says why."""

    reason = "NotFollowed"


class UnknownSigner(NotFollowed):
    """It is signed by an authority that is not known here."""


class Stale(NotFollowed):
    """It is genuine, and older than what is known."""


@dataclass(frozen=True, slots=True)
class Known:
    """An authority.   until, issue: of the statement that names the next one; None and 0 for the newest."""

    der: bytes
    until: float | None = None
    issue: int = 0

    @property
    def hash(self) -> str:
        return fingerprint(self.der)

    @property
    def pem(self) -> str:
        body = base64.encodebytes(self.der).decode("ascii")  # lines of 76: readers take up to that
        return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


Chain = tuple[Known, ...]
"""Never empty."""


def read(text: str) -> Chain:
    """The content of `ca.pem`.  Raises ConfigError."""
    found: list[Known] = []
    for match in _BLOCK.finditer(text):
        notes = dict(re.findall(r"^([a-z]+): (\d{1,16})$", match[1], re.MULTILINE))
        try:
            der = base64.b64decode("".join(match[2].split()), validate=True)
        except binascii.Error as error:
            raise ConfigError("the authority in ca.pem is not PEM: join again") from error
        until = notes.get("until")
        found.append(Known(der, float(until) if until is not None else None, int(notes.get("issue", 0))))
    if not found:
        raise ConfigError("there is no authority in ca.pem: join again")
    # a file that somebody put together by hand: what has no end is the newest, and what is before it says when it ends
    if found[-1].until is not None or any(known.until is None for known in found[:-1]):
        raise ConfigError("ca.pem does not say which authority is the newest: join again")
    return tuple(found)


def write(chain: Chain) -> str:
    """The reverse of `read`."""
    return "".join(
        known.pem if known.until is None else f"until: {known.until:.0f}\nissue: {known.issue}\n{known.pem}"
        for known in chain
    )


def in_force(chain: Chain, now: float) -> Chain:
    """Those that are trusted at `now`."""
    return tuple(known for known in chain if known.until is None or now < known.until)


def told(chain: Chain) -> Trust:
    """What the hub is told of it."""
    return Trust(chain[-1].hash, chain[-2].issue if len(chain) > 1 else None)


def follow(chain: Chain, text: str, now: float) -> Chain:
    """The chain after one statement; the same object if it says nothing new.  Raises NotFollowed."""
    try:
        said = succession.read(text)
        place = _place(chain, said.statement.old)
        if place is None:
            raise UnknownSigner("it is signed by an authority that this node does not trust")
        old = chain[place]
        if not ec_verifies(p256_key(old.der), said.signed, said.signature):
            raise NotFollowed("its signature is not the old authority's")
        p256_key(said.new)
    except ProtocolError as error:
        raise NotFollowed(str(error)) from error
    statement = said.statement
    until = float(statement.until)
    if old.until is None:
        if now > statement.follow:
            raise NotFollowed("it came too late: this node was away for too long")
        if _place(chain, said.new_hash) is not None:
            raise NotFollowed("it goes back to an authority that was replaced")
        longer = (*chain[:-1], replace(old, until=until, issue=statement.issue), Known(said.new))
        return longer[-MAX_CHAIN - 1 :]
    if chain[place + 1].hash != said.new_hash:
        raise NotFollowed("the authority that signed it has another successor already")
    if statement.issue == old.issue:
        return chain
    if statement.issue < old.issue:
        raise Stale("it is older than what is known about the same two")
    if now >= old.until:
        raise NotFollowed("the authority that signed it is not trusted any more: its window is over")
    return (*chain[:place], replace(old, until=until, issue=statement.issue), *chain[place + 1 :])


def follow_all(chain: Chain, texts: Sequence[str], now: float) -> Chain:
    """After several, of which those count that begin where this node is.  Raises NotFollowed with the first that does not
    count; nothing is followed then.

    Those about authorities that this node does not know, or that it knows better, are passed over in front of one that
    counts: the chain that a hub gives begins with the oldest.  A signature that is wrong ends it: each costs a small board
    a while to try."""
    known = False
    reason: NotFollowed | None = None
    for text in texts:
        try:
            chain = follow(chain, text, now)
            known = True
        except (UnknownSigner, Stale) as error:
            if known:
                raise
            reason = error
    if known or reason is None or (isinstance(reason, UnknownSigner) and _leads_here(chain, texts[-1])):
        return chain
    raise reason


def _leads_here(chain: Chain, text: str) -> bool:
    """Whether a statement is about how the newest came to be, which a node that joined later need not know."""
    try:
        return succession.read(text).new_hash == chain[-1].hash
    except ProtocolError:
        return False


def without_lapsed(chain: Chain, now: float) -> Chain:
    """What is left when those whose window is over go; the same object if none does."""
    left = in_force(chain, now)
    return chain if len(left) == len(chain) else left


def spread_s(chain: Chain, now: float) -> float:
    """A node that followed renews its certificate at a random time within so many seconds, so that a fleet does not do it at
    once, and most of the window is left for trying again."""
    until = chain[-2].until if len(chain) > 1 else None
    return min(max(0.0, ((until or now) - now) / 4), SPREAD_CAP_S)


def retry_s(chain: Chain, now: float) -> float:
    """The pause after a renewal that failed."""
    until = chain[-2].until if len(chain) > 1 else None
    left = RETRY_CAP_S if until is None or now >= until else (until - now) / 10
    return min(max(RETRY_LEAST_S, left), RETRY_CAP_S)


def _place(chain: Chain, hash_: str) -> int | None:
    return next((place for place, known in enumerate(chain) if known.hash == hash_), None)
