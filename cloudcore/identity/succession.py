"""One authority takes the place of another: what signs, what is shown, what is accepted, and who is told what.  Pure.

`Held` is all that the Secret says; each step makes another `Held` out of one, and the caller writes it by one compare-and-swap,
so that whoever dies in between leaves the state before or after.

    begin ──▶ both are trusted, the old one's server certificate is shown ── every node follows ──▶ the new one's is shown
          └────────────────────────── the window is over, or `finish` ──▶ the old key is gone ◀──────────┘

What a node is told is in beehive/succession.py, and what it makes of that in edgecore/edgehub/trust.py."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from beehive import succession
from beehive.errors import Conflict, Refused
from beehive.succession import MAX_CHAIN, MAX_ISSUE, Chain, Said, Statement, Trust
from cloudcore.identity import pki
from cloudcore.identity.pki import KeyPair

MIN_WINDOW, MAX_WINDOW = timedelta(minutes=1), timedelta(days=3650)
MAX_READMITTED = 100


@dataclass(frozen=True, slots=True)
class Held:
    """pair: the newest authority.   old: the one before it, until its window is over.

    first, statements: the chain that leads to the newest, first the DER of the oldest.
    shows_new: whether hubs prove themselves by the newest though the window is open.
    readmitted: nodes that may come with a certificate of a replaced authority all the same, until when (Unix seconds)."""

    pair: KeyPair
    old: KeyPair | None = None
    first: bytes = b""
    statements: tuple[str, ...] = ()
    shows_new: bool = False
    readmitted: Mapping[str, float] = field(default_factory=dict)

    @property
    def shown(self) -> KeyPair:
        """The authority by which hubs prove themselves, and that tokens mean."""
        return self.pair if self.old is None or self.shows_new else self.old

    @property
    def newest(self) -> str:
        return _hash(self.pair)

    @property
    def last(self) -> Said | None:
        """The statement about the newest."""
        return succession.read(self.statements[-1]) if self.statements else None

    @property
    def until(self) -> float | None:
        """When the window is over (Unix seconds); None: none is open."""
        return float(self.last.statement.until) if self.old is not None and self.last is not None else None

    @property
    def chain(self) -> Chain:
        """For anybody who asks."""
        return Chain(statements=list(self.statements), first=_base64(self.first))


def begin(held: Held, new: KeyPair, *, now: datetime, window: timedelta, certificate_life: timedelta) -> Held:
    """`new` takes the place of the newest.  certificate_life: of nodes' certificates, which bounds how late a node can follow.

    Raises: Conflict (a rotation goes on), Refused (the window makes no sense), pki.BadCertificate."""
    if held.old is not None:
        raise Conflict(
            "a rotation goes on already: see `authority status`, or end it with `authority finish`"
        )
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise Refused(f"the window must be between a minute and {MAX_WINDOW.days} days", reason="BadWindow")
    old_der = pki.to_der(held.pair)[0]
    until = now + window
    statement = Statement(
        old=succession.fingerprint(old_der),
        new=_base64(pki.to_der(new)[0]),
        begins=int(now.timestamp()),
        until=int(until.timestamp()),
        follow=int(max(until, now + certificate_life).timestamp()),
        issue=1,
    )
    first, statements = held.first or old_der, [*held.statements, _signed(held.pair, statement)]
    while len(statements) > MAX_CHAIN:
        first = succession.read(statements.pop(0)).new
    return replace(held, pair=new, old=held.pair, first=first, statements=tuple(statements), shows_new=False)


def extend(held: Held, *, until: datetime) -> Held:
    """The window ends at another time.  Raises: Conflict (none is open), Refused."""
    if held.old is None or held.last is None:
        raise Conflict("no rotation goes on")
    statement = held.last.statement
    at = int(until.timestamp())
    if not statement.begins <= at <= statement.begins + MAX_WINDOW.total_seconds():
        raise Refused("the window cannot end then", reason="BadWindow")
    if statement.issue >= MAX_ISSUE:
        raise Refused("the window was changed too often", reason="BadWindow")
    changed = Statement(
        old=statement.old,
        new=statement.new,
        begins=statement.begins,
        until=at,
        follow=max(at, statement.follow),
        issue=statement.issue + 1,
    )
    return replace(held, statements=(*held.statements[:-1], _signed(held.old, changed)))


def show_new(held: Held) -> Held:
    """Hubs prove themselves by the newest from now on: every node knows it."""
    return replace(held, shows_new=True) if held.old is not None else held


def finish(held: Held, *, now: datetime) -> Held:
    """End the window now: nodes are told, and the old key is not in what comes back.  Raises: Conflict (none is open)."""
    if held.until is not None and held.until <= now.timestamp():
        return settle(held, now=now)
    ended = extend(held, until=now)
    return replace(ended, old=None, shows_new=False)


def settle(held: Held, *, now: datetime) -> Held:
    """What time alone changes; the same object if it is nothing.

    The old key goes at the window's end; statements go when no node can follow by them any more."""
    at = now.timestamp()
    after = held
    if held.until is not None and held.until <= at:
        after = replace(after, old=None, shows_new=False)
    kept = list(after.statements)
    first = after.first
    while kept and after.old is None and (said := succession.read(kept[0])).statement.follow < at:
        first, kept = said.new, kept[1:]
    if len(kept) != len(after.statements):
        after = replace(after, first=first if kept else b"", statements=tuple(kept))
    left = {node: until for node, until in after.readmitted.items() if until > at and after.statements}
    if len(left) != len(after.readmitted):
        after = replace(after, readmitted=left)
    return after


def readmit(held: Held, node: str, *, until: datetime) -> Held:
    """Let one node in with a certificate of a replaced authority, until it has a new one.  Raises: Conflict, Refused."""
    if not held.statements:
        raise Conflict("no authority was replaced that a node could follow from: make a join token for it")
    if node not in held.readmitted and len(held.readmitted) >= MAX_READMITTED:
        raise Refused(f"more than {MAX_READMITTED} nodes at a time", reason="TooMany")
    return replace(held, readmitted={**held.readmitted, node: until.timestamp()})


def came_back(held: Held, nodes: Collection[str]) -> Held:
    """These showed a certificate of the newest."""
    left = {name: until for name, until in held.readmitted.items() if name not in nodes}
    return replace(held, readmitted=left) if len(left) != len(held.readmitted) else held


def accepted(held: Held) -> list[bytes]:
    """The authorities (PEM) whose client certificates pass TLS.  Who of these may come in, `refusal` says."""
    found = [held.pair.certificate_pem]
    if held.readmitted:
        found += [pki.der_to_pem(der) for der in retired(held)]
    elif held.old is not None:
        found.append(held.old.certificate_pem)
    return found


def retired(held: Held) -> list[bytes]:
    """The authorities (DER) in the chain before the newest."""
    named = [succession.read(text).new for text in held.statements]
    return [held.first, *named[:-1]] if named else []


def issuer(held: Held, certificate_pem: bytes) -> str:
    """The hash of the authority that signed a client certificate which passed TLS; empty if it is none that we know.

    TLS does not say which, and a session that is resumed was let in by what counted before."""
    candidates = [held.pair.certificate_pem, *(pki.der_to_pem(der) for der in reversed(retired(held)))]
    for ca_pem in candidates:
        if pki.signed_by(certificate_pem, ca_pem):
            return pki.fingerprint(ca_pem)
    return ""


def refusal(held: Held, node: str, signed_by: str, *, now: datetime) -> str:
    """Why a certificate of `node` that this authority signed counts no more; empty if it does.  An empty `node` is a hub."""
    if signed_by == held.newest:
        return ""
    if held.old is not None and signed_by == _hash(held.old) and (held.until or 0.0) > now.timestamp():
        return ""
    if held.readmitted.get(node, 0.0) > now.timestamp():
        return ""
    return "the authority that signed this certificate was replaced, and its window is over; join again with a new token"


def signer(held: Held, trusts: Trust | None) -> KeyPair:
    """Who signs a certificate for a node that trusts this.  None: a stock edge, which does not look at who signed its own.

    The newest, unless the node does not know it yet: it could not use what that signed."""
    if held.old is not None and trusts is not None and trusts.newest in ("", _hash(held.old)):
        return held.old
    return held.pair


def due(held: Held, trusts: Trust) -> list[str]:
    """The statements that a node has to be told; none if it knows all, or nothing leads from what it trusts to the newest."""
    said = [succession.read(text) for text in held.statements]
    if trusts.newest == held.newest:
        # it may have heard of another end of the window
        stale = said and trusts.issue is not None and trusts.issue < said[-1].statement.issue
        return [held.statements[-1]] if stale else []
    for place, one in enumerate(said):
        if one.statement.old == trusts.newest:
            return list(held.statements[place:])
    return []


@dataclass(frozen=True, slots=True)
class NodeTrust:
    """What a Node says.   newest: the hash of the newest authority that it trusts; empty: a stock edge, or one that is older.
    signed_by: the hash of the one that signed the certificate it showed last."""

    name: str
    newest: str = ""
    signed_by: str = ""


def waits_for(held: Held, nodes: Iterable[NodeTrust]) -> list[NodeTrust]:
    """The nodes that do not trust the newest yet."""
    return [node for node in nodes if node.newest != held.newest]


def would_lose(held: Held, nodes: Iterable[NodeTrust]) -> list[NodeTrust]:
    """The nodes that are shut out when the window is over."""
    return [node for node in nodes if node.newest != held.newest or node.signed_by != held.newest]


def _signed(by: KeyPair, statement: Statement) -> str:
    return succession.write(statement, lambda message: pki.sign(by, message))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _hash(pair: KeyPair) -> str:
    return pki.fingerprint(pair.certificate_pem)
