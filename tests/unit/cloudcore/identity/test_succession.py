"""What the hub signs with, shows, accepts and tells, at each point of a rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from beehive import succession as wire
from beehive.errors import Conflict, Refused
from beehive.succession import MAX_CHAIN, Trust
from cloudcore.identity import pki
from cloudcore.identity.succession import (
    Held,
    NodeTrust,
    accepted,
    begin,
    came_back,
    due,
    extend,
    finish,
    issuer,
    readmit,
    refusal,
    retired,
    settle,
    show_new,
    signer,
    waits_for,
    would_lose,
)
from edgecore.edgehub import trust as edge

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365 * DAY


def ca(name: str) -> pki.KeyPair:
    return pki.make_ca(name, lifetime=100 * YEAR, now=NOW - YEAR)


A, B, C = ca("KubeEdge"), ca("KubeEdge 2"), ca("KubeEdge 3")


def hash_(pair: pki.KeyPair) -> str:
    return pki.fingerprint(pair.certificate_pem)


def rotated(held: Held, new: pki.KeyPair, *, now: datetime = NOW, window: timedelta = 30 * DAY) -> Held:
    return begin(held, new, now=now, window=window, certificate_life=YEAR)


def node_certificate(by: pki.KeyPair, name: str = "edge-1") -> bytes:
    return pki.issue(
        by, common_name=f"system:node:{name}", client=True, lifetime=YEAR, now=NOW
    ).certificate_pem


def chain_of(pair: pki.KeyPair) -> edge.Chain:
    return (edge.Known(pki.to_der(pair)[0]),)


def test_without_a_rotation_there_is_one_authority_for_all() -> None:
    held = Held(A)
    assert (held.shown, held.until, held.last) == (A, None, None)
    assert accepted(held) == [A.certificate_pem]
    assert signer(held, None) == signer(held, Trust()) == A
    assert issuer(held, node_certificate(A)) == hash_(A)
    assert issuer(held, node_certificate(B)) == ""
    assert refusal(held, "edge-1", hash_(A), now=NOW) == ""
    assert due(held, Trust(hash_(A))) == due(held, Trust()) == []
    assert settle(held, now=NOW) is held


def test_in_the_window_both_are_accepted_and_the_old_one_is_shown() -> None:
    held = rotated(Held(A), B)
    assert held.shown == A
    assert accepted(held) == [B.certificate_pem, A.certificate_pem]
    for pair in (A, B):
        signed_by = issuer(held, node_certificate(pair))
        assert signed_by == hash_(pair)
        assert refusal(held, "edge-1", signed_by, now=NOW + 29 * DAY) == ""
    assert held.until == (NOW + 30 * DAY).timestamp()


def test_who_knows_the_new_one_gets_certificates_of_it() -> None:
    held = rotated(Held(A), B)
    assert signer(held, Trust(hash_(B), 1)) == B
    # it could not use another; and so with one that says nothing, being older
    assert signer(held, Trust(hash_(A))) == signer(held, Trust()) == A
    # a stock edge never looks at who signed its own
    assert signer(held, None) == B
    over = settle(held, now=NOW + 31 * DAY)
    assert signer(over, Trust(hash_(A))) == signer(over, Trust()) == B


def test_after_the_window_the_old_one_counts_no_more_and_its_key_is_gone() -> None:
    held = rotated(Held(A), B)
    assert settle(held, now=NOW + 29 * DAY) is held
    # before it is written: the clock alone decides
    assert "window is over" in refusal(held, "edge-1", hash_(A), now=NOW + 30 * DAY)
    after = settle(held, now=NOW + 30 * DAY)
    assert (after.old, after.shown, after.until) == (None, B, None)
    assert accepted(after) == [B.certificate_pem]
    assert "window is over" in refusal(after, "edge-1", hash_(A), now=NOW + 30 * DAY)
    assert A.key_pem not in repr(after).encode()
    # what a node that was away needs to follow is still told
    assert edge.follow_all(chain_of(A), after.chain.statements, (NOW + 40 * DAY).timestamp())[
        -1
    ].hash == hash_(B)


def test_a_certificate_that_nobody_signed_whom_we_know_is_refused() -> None:
    held = rotated(Held(A), B)
    assert issuer(held, node_certificate(C)) == ""
    assert refusal(held, "edge-1", "", now=NOW)


def test_the_new_one_is_shown_once_every_node_knows_it() -> None:
    held = rotated(Held(A), B)
    follows = NodeTrust("edge-1", hash_(B), hash_(B))
    knows = NodeTrust("edge-2", hash_(B), hash_(A))
    away, stock = NodeTrust("edge-3", hash_(A), hash_(A)), NodeTrust("stock-1", "", hash_(A))
    assert waits_for(held, [follows, knows, away, stock]) == [away, stock]
    assert would_lose(held, [follows, knows, away, stock]) == [knows, away, stock]
    shows = show_new(held)
    assert (shows.shown, shows.old) == (B, A)
    # the old one's certificates count all the same
    assert refusal(shows, "edge-2", hash_(A), now=NOW) == ""
    assert show_new(Held(A)) == Held(A)


def test_a_node_is_told_what_it_does_not_know_and_no_more() -> None:
    one = rotated(Held(A), B)
    held = rotated(settle(one, now=NOW + 31 * DAY), C, now=NOW + 31 * DAY)
    assert held.first == pki.to_der(A)[0]
    assert retired(held) == [pki.to_der(A)[0], pki.to_der(B)[0]]
    assert due(held, Trust(hash_(A))) == list(held.statements)
    assert due(held, Trust(hash_(B), 1)) == [held.statements[1]]
    assert due(held, Trust(hash_(C), 1)) == due(held, Trust(hash_(C))) == []
    assert due(held, Trust("f" * 64)) == due(held, Trust()) == []
    followed = edge.follow_all(chain_of(A), due(held, Trust(hash_(A))), NOW.timestamp())
    assert edge.told(followed) == Trust(hash_(C), 1)


def test_another_end_of_the_window_is_told_to_those_who_know_of_it() -> None:
    held = extend(rotated(Held(A), B), until=NOW + 90 * DAY)
    assert held.until == (NOW + 90 * DAY).timestamp()
    assert due(held, Trust(hash_(B), 1)) == list(held.statements)
    assert due(held, Trust(hash_(B), 2)) == due(held, Trust(hash_(B))) == []
    before = edge.follow_all(chain_of(A), rotated(Held(A), B).statements, NOW.timestamp())
    assert edge.follow_all(before, due(held, Trust(hash_(B), 1)), NOW.timestamp())[0].until == held.until
    with pytest.raises(Conflict, match="no rotation"):
        extend(Held(A), until=NOW)
    with pytest.raises(Refused):
        extend(held, until=NOW - DAY)


def test_to_finish_tells_the_nodes_and_leaves_no_key() -> None:
    held = finish(rotated(Held(A), B), now=NOW + DAY)
    assert (held.old, held.shown) == (None, B)
    assert refusal(held, "edge-1", hash_(A), now=NOW + DAY)
    before = edge.follow_all(chain_of(A), rotated(Held(A), B).statements, NOW.timestamp())
    after = edge.follow_all(before, due(held, Trust(hash_(B), 1)), (NOW + DAY).timestamp())
    assert [known.hash for known in edge.in_force(after, (NOW + DAY).timestamp())] == [hash_(B)]
    with pytest.raises(Conflict, match="no rotation"):
        finish(held, now=NOW + DAY)
    # a window that is over already, and that nobody has cleaned up yet
    assert finish(rotated(Held(A), B), now=NOW + 31 * DAY).old is None


def test_one_rotation_at_a_time() -> None:
    with pytest.raises(Conflict, match="goes on already"):
        rotated(rotated(Held(A), B), C)
    for window in (timedelta(seconds=59), timedelta(days=3651)):
        with pytest.raises(Refused, match="window"):
            rotated(Held(A), B, window=window)


def test_statements_are_kept_until_no_node_can_follow_by_them() -> None:
    over = settle(rotated(Held(A), B), now=NOW + 31 * DAY)
    assert settle(over, now=NOW + YEAR) is over
    alone = settle(over, now=NOW + YEAR + DAY)
    assert (alone.statements, alone.first, alone.pair) == ((), b"", B)
    two = settle(rotated(over, C, now=NOW + 100 * DAY), now=NOW + 200 * DAY)
    later = settle(two, now=NOW + YEAR + DAY)
    assert (later.first, len(later.statements)) == (pki.to_der(B)[0], 1)


def test_the_chain_is_bounded() -> None:
    held, now = Held(A), NOW
    for number in range(MAX_CHAIN + 2):
        held = finish(rotated(held, ca(f"KubeEdge {number}"), now=now), now=now + timedelta(hours=1))
        now += timedelta(hours=2)
    assert len(held.statements) == MAX_CHAIN
    assert wire.read(held.statements[0]).statement.old == wire.fingerprint(held.first)


def test_one_node_may_come_back_with_an_old_certificate() -> None:
    over = settle(rotated(Held(A), B), now=NOW + 31 * DAY)
    at = NOW + 60 * DAY
    held = readmit(over, "tunnel-7", until=at + 7 * DAY)
    assert accepted(held) == [B.certificate_pem, A.certificate_pem]
    assert refusal(held, "tunnel-7", hash_(A), now=at) == ""
    assert refusal(held, "edge-1", hash_(A), now=at)
    assert refusal(held, "", hash_(A), now=at)  # no hub is one
    assert refusal(held, "tunnel-7", hash_(A), now=at + 8 * DAY)
    assert signer(held, Trust(hash_(B), 1)) == B
    for done in (came_back(held, {"tunnel-7"}), settle(held, now=at + 8 * DAY)):
        assert accepted(done) == [B.certificate_pem]
    assert came_back(held, {"edge-1"}) is held
    with pytest.raises(Conflict, match="join token"):
        readmit(Held(A), "tunnel-7", until=at)


def test_an_authority_that_cannot_sign_a_statement_says_so() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(pki.BadCertificate, match="not on P-256"):
        rotated(Held(pki.KeyPair(A.certificate_pem, key)), B)
