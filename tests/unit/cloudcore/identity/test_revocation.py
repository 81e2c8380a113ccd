"""Which certificates count no more: cloudcore.identity.revocation."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from beehive import clock
from beehive.errors import ProtocolError, Refused
from cloudcore.errors import JoinRefused
from cloudcore.identity import pki, revocation
from cloudcore.identity.authority import Authority
from cloudcore.identity.join import Joiner
from cloudcore.identity.revocation import MAX_SERIALS, Entry, Shown
from cloudcore.identity.succession import Held
from cloudcore.objects import CONFIGMAP, Kind, Object
from tests.fakes import edge

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


class _Api:
    """One ConfigMap, as the API has it; `meanwhile` happens after each look."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.meanwhile: Any = lambda: None

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        assert (kind, name, namespace) == (CONFIGMAP, revocation.NAME, "kubeedge")
        body = json.dumps({"data": dict(self.data)}).encode()
        self.meanwhile()
        return Object(kind, namespace, name, "u", "7", body)


def _renewed(api: _Api, held: Shown) -> Shown:
    pair = pki.make_ca("test", lifetime=timedelta(days=9), now=clock.wall())
    kube: Any = api
    joiner = Joiner(kube=kube, authority=Authority(Held(pair)), lifetime=timedelta(days=1))
    csr = edge.csr(edge.new_key())
    answer = asyncio.run(joiner.renew("edge-1", csr, held))
    found = x509.load_pem_x509_certificate(answer.certificate.encode())
    return Shown(f"{found.serial_number:x}", found.not_valid_before_utc + pki.CLOCK_SKEW)


def test_a_revoked_node_does_not_stay_by_renewing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub hears of a revocation by its watch, which can be behind; whoever renews all the time must not slip through."""
    now = [clock.wall()]
    monkeypatch.setattr(clock, "wall", lambda: now[0])
    api, held = _Api(), Shown("ab12", now[0] - timedelta(hours=1))
    assert not revocation.add(Entry(), serial="", now=held.signed).covers(_renewed(api, held))
    entry = Entry()

    def revoke() -> None:
        nonlocal entry
        entry = revocation.add(Entry(), serial="", now=clock.wall())
        api.data["edge-1"] = msgspec.json.encode(entry).decode()
        now[0] += timedelta(seconds=5)  # the signing takes its time

    # after the look and before the signature: what is signed is void all the same
    api.meanwhile = revoke
    renewed = _renewed(api, held)
    assert entry.covers(renewed)
    api.meanwhile = lambda: None
    with pytest.raises(JoinRefused, match="was revoked"):
        _renewed(api, held)
