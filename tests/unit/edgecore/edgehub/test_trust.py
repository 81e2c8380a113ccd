"""Whom a node follows from one authority to the next, and whom it trusts when."""

from __future__ import annotations

import itertools
import random
import ssl

import pytest

from beehive.errors import ConfigError
from beehive.succession import MAX_CHAIN, Trust
from edgecore.edgehub import trust
from edgecore.edgehub.trust import Known, NotFollowed, follow, follow_all, in_force
from tests.unit.edgecore.edgehub.chain import DAY, NOW, Ca

A, B, C, D = (Ca() for _ in range(4))
ONLY_A = (A.known,)


def hashes(chain: trust.Chain) -> list[str]:
    return [known.hash for known in chain]


def test_both_are_trusted_until_the_window_is_over_and_then_only_the_new_one() -> None:
    chain = follow(ONLY_A, A.says(B), NOW)
    assert hashes(in_force(chain, NOW)) == [A.hash, B.hash]
    assert hashes(in_force(chain, NOW + 30 * DAY - 1)) == [A.hash, B.hash]
    assert hashes(in_force(chain, NOW + 30 * DAY)) == [B.hash]
    assert trust.told(ONLY_A) == Trust(A.hash)
    assert trust.told(chain) == Trust(B.hash, 1)


def test_the_same_again_changes_nothing() -> None:
    text = A.says(B)
    chain = follow(ONLY_A, text, NOW)
    assert follow(chain, text, NOW + 5) is chain


def test_a_node_that_missed_several_follows_all_of_them() -> None:
    texts = [A.says(B), B.says(C, until=60 * DAY), C.says(D, until=90 * DAY)]
    chain = follow_all(ONLY_A, texts, NOW + 40 * DAY)
    assert hashes(chain) == [A.hash, B.hash, C.hash, D.hash]
    assert hashes(in_force(chain, NOW + 40 * DAY)) == [B.hash, C.hash, D.hash]
    # one that begins later in the chain passes over what was before it
    assert hashes(follow_all((B.known,), texts, NOW)) == [B.hash, C.hash, D.hash]
    # and one that joined later has nothing to follow, and nothing to complain of
    assert follow_all((D.known,), texts, NOW) == (D.known,)


@pytest.mark.parametrize("order", [[1, 0], [2, 1, 0], [0, 2]])
def test_statements_out_of_order_are_refused_and_nothing_is_followed(order: list[int]) -> None:
    texts = [A.says(B), B.says(C), C.says(D)]
    if order[0] != 0:
        # what comes first is passed over; what is left leads on
        assert hashes(follow_all(ONLY_A, [texts[n] for n in order], NOW)) == [A.hash, B.hash]
    else:
        with pytest.raises(NotFollowed, match="does not trust"):
            follow_all(ONLY_A, [texts[n] for n in order], NOW)


def test_one_that_nobody_signed_whom_the_node_trusts_is_refused() -> None:
    for text in (
        B.says(C),  # of another cluster
        A.says(B, signed_by=C),  # forged
        A.says(B)[:-4] + "AAAA",
        A.says(B).replace("v1", "v2"),
    ):
        with pytest.raises(NotFollowed):
            follow(ONLY_A, text, NOW)


def test_who_has_an_old_key_cannot_name_another_successor() -> None:
    chain = follow(ONLY_A, A.says(B), NOW)
    with pytest.raises(NotFollowed, match="another successor"):
        follow(chain, A.says(C, issue=9), NOW)
    # nor by the key of one whose window is over and that was forgotten
    left = trust.without_lapsed(chain, NOW + 31 * DAY)
    assert hashes(left) == [B.hash]
    with pytest.raises(NotFollowed, match="does not trust"):
        follow(left, A.says(C, until=99 * DAY), NOW + 31 * DAY)


def test_one_that_leads_back_is_refused() -> None:
    chain = follow_all(ONLY_A, [A.says(B), B.says(C)], NOW)
    with pytest.raises(NotFollowed, match="was replaced"):
        follow(chain, C.says(A), NOW)


def test_the_end_of_the_window_may_move_while_it_is_open() -> None:
    chain = follow(ONLY_A, A.says(B), NOW)
    longer = follow(chain, A.says(B, until=60 * DAY, issue=2), NOW + DAY)
    assert (longer[0].until, trust.told(longer)) == (NOW + 60 * DAY, Trust(B.hash, 2))
    # the older statement, said again, does not bring the older end back
    with pytest.raises(NotFollowed, match="older"):
        follow(longer, A.says(B), NOW + DAY)
    ended = follow(longer, A.says(B, until=2 * DAY, issue=3), NOW + 2 * DAY)
    assert hashes(in_force(ended, NOW + 2 * DAY)) == [B.hash]
    # and once it is over, the old key cannot open it again
    with pytest.raises(NotFollowed, match="its window is over"):
        follow(ended, A.says(B, until=90 * DAY, issue=4), NOW + 2 * DAY)


def test_a_node_that_was_away_follows_after_the_window_but_not_for_ever() -> None:
    text = A.says(B, until=DAY, follow=300 * DAY)
    late = follow(ONLY_A, text, NOW + 299 * DAY)
    assert hashes(in_force(late, NOW + 299 * DAY)) == [B.hash]
    with pytest.raises(NotFollowed, match="too late"):
        follow(ONLY_A, text, NOW + 301 * DAY)


def test_what_is_not_valid_yet_says_that_the_clock_is_behind() -> None:
    assert hashes(follow(ONLY_A, A.says(B), NOW - 900 * DAY)) == [A.hash, B.hash]


@pytest.mark.parametrize("der", [b"x", b"\x30\x82\x01\x00", A.der[:-1], A.der + b"\x00"])
def test_a_new_authority_that_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(NotFollowed):
        follow(ONLY_A, A.says(B, new_der=der), NOW)


def test_a_wrong_signature_ends_the_look_at_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried costs a small board a while, and anybody in between can send it."""
    tried: list[int] = []

    def verifies(*_: object) -> bool:
        tried.append(1)
        return False

    monkeypatch.setattr(trust, "ec_verifies", verifies)
    with pytest.raises(NotFollowed, match="signature"):
        follow_all(ONLY_A, [A.says(B, signed_by=C)] * MAX_CHAIN, NOW)
    assert tried == [1]


def test_what_is_known_better_does_not_stop_a_node_from_following_on() -> None:
    chain = follow_all(ONLY_A, [A.says(B), A.says(B, until=60 * DAY, issue=2)], NOW)
    assert follow_all(chain, [A.says(B), B.says(C)], NOW)[-1].hash == C.hash


def test_any_bit_that_is_changed_makes_it_void() -> None:
    text, rng = A.says(B), random.Random(3)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(60):
        at = rng.randrange(len(text) - 1)  # the last letter holds two bits that count for nothing
        letter = rng.choice(letters)
        if letter != text[at]:
            with pytest.raises(NotFollowed):
                follow(ONLY_A, text[:at] + letter + text[at + 1 :], NOW)


def test_the_chain_that_is_kept_is_bounded() -> None:
    authorities = [Ca() for _ in range(MAX_CHAIN + 4)]
    chain: trust.Chain = (authorities[0].known,)
    for old, new in itertools.pairwise(authorities):
        chain = follow(chain, old.says(new, until=3600 * DAY), NOW)
    assert len(chain) == MAX_CHAIN + 1
    assert chain[-1].der == authorities[-1].der


def test_the_file_is_what_tls_reads_and_what_is_read_again() -> None:
    chain = follow_all(ONLY_A, [A.says(B), B.says(C, until=60 * DAY, issue=7)], NOW)
    text = trust.write(chain)
    assert trust.read(text) == chain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=text)
    assert set(context.get_ca_certs(binary_form=True)) == {A.der, B.der, C.der}
    # as the file was before there were rotations
    assert trust.read(A.pair.certificate_pem.decode()) == ONLY_A
    assert trust.read("# a comment\n\n" + A.pair.certificate_pem.decode()) == ONLY_A


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        A.known.pem + B.known.pem,
        trust.write((Known(A.der, NOW, 1),)),
    ],
)
def test_a_file_that_was_spoilt_is_said_so(text: str) -> None:
    with pytest.raises(ConfigError, match="join again"):
        trust.read(text)


def test_a_fleet_renews_spread_over_time_and_within_the_window() -> None:
    month = follow(ONLY_A, A.says(B), NOW)
    assert trust.spread_s(month, NOW) == 3600
    short = follow(ONLY_A, A.says(B, until=100), NOW)
    assert trust.spread_s(short, NOW) == 25
    assert trust.spread_s(short, NOW + 200) == 0
    assert trust.spread_s(ONLY_A, NOW) == 0
    assert (trust.retry_s(month, NOW), trust.retry_s(short, NOW)) == (300, 10)
    assert trust.retry_s(short, NOW + 99) == 3
