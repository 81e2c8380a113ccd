"""Which certificates count no more: cloudcore.identity.revocation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from beehive.errors import ProtocolError, Refused
from cloudcore.identity import revocation
from cloudcore.identity.revocation import MAX_SERIALS, Entry, Shown

NOW = datetime(2026, 11, 21, 14, 30, 0, 500_000, UTC)
OLD = Shown("ab12", NOW.replace(microsecond=0))


def test_a_node_is_revoked_as_of_now_and_may_come_back() -> None:
    entry = revocation.add(Entry(), serial="", now=NOW)
    assert entry.covers(OLD), "also what was signed in this very second"
    assert not entry.covers(Shown("cd", NOW + timedelta(seconds=5)))


def test_one_certificate_is_revoked_by_its_number() -> None:
    entry = revocation.add(Entry(), serial="ab12", now=NOW)
    assert entry.covers(OLD)
    assert not entry.covers(Shown("ab13", OLD.signed))
    assert revocation.add(entry, serial="ab12", now=NOW) is entry


def test_numbers_are_compared_whatever_their_spelling() -> None:
    assert revocation.serial_text("00:AB:12") == revocation.serial_text("ab12") == "ab12"
    with pytest.raises(Refused, match="serial number"):
        revocation.serial_text("xyz")


def test_what_the_tls_layer_says_is_read() -> None:
    got = revocation.shown({"notBefore": "Nov 21 14:25:00 2026 GMT", "serialNumber": "0AB12"})
    assert got == Shown("ab12", datetime(2026, 11, 21, 14, 30, tzinfo=UTC))


def test_the_list_is_bounded() -> None:
    entry = Entry(serials=[f"{number:x}" for number in range(MAX_SERIALS)])
    with pytest.raises(Refused, match="revoke the node"):
        revocation.add(entry, serial="ffff", now=NOW)


def test_a_list_that_cannot_be_read_is_an_error() -> None:
    assert revocation.read({"a": '{"until":"","serials":["1"]}'}) == {"a": Entry(serials=["1"])}
    with pytest.raises(ProtocolError):
        revocation.read({"a": "[]"})
