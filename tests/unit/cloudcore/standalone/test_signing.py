from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import signing
from cloudcore.standalone.signing import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, NODES, Request

USAGES = ("digital signature", "client auth")
SERVES = ("digital signature", "key encipherment", "server auth")


def node(**more: Any) -> Request:
    given: dict[str, Any] = {"name": "system:node:n1", "groups": frozenset({NODES}), **more}
    return Request(**given)


@pytest.mark.parametrize(
    ("signer", "request_", "usages"),
    [
        (CLIENT, Request(name="ann", groups=frozenset({"devs"})), USAGES),
        (KUBELET_CLIENT, node(), USAGES),
        (KUBELET_SERVING, node(dns=("n1",), ips=("10.0.0.1",)), SERVES),
    ],
)
def test_what_is_signed(signer: str, request_: Request, usages: tuple[str, ...]) -> None:
    assert signing.fault(signer, request_, usages) == ""


@pytest.mark.parametrize(
    ("signer", "request_", "usages", "text"),
    [
        (CLIENT, Request(name="a", groups=frozenset({"system:masters"})), USAGES, "cannot be asked for"),
        (CLIENT, Request(name="a", groups=frozenset()), SERVES, 'usages must be "client auth"'),
        (CLIENT, Request(name="a", groups=frozenset()), (*USAGES, "server auth"), "usages"),
        (KUBELET_CLIENT, node(groups=frozenset({NODES, "x"})), USAGES, "organization"),
        (KUBELET_CLIENT, node(name="ann"), USAGES, "common name"),
        (KUBELET_CLIENT, node(dns=("n1",)), USAGES, "no alternative names"),
        (KUBELET_SERVING, node(), SERVES, "at least one"),
        (KUBELET_SERVING, node(dns=("n1",), other_names=True), SERVES, "e-mail"),
        (KUBELET_SERVING, node(dns=("n1",)), USAGES, 'usages must be "server auth"'),
    ],
)
def test_what_is_not_signed(signer: str, request_: Request, usages: tuple[str, ...], text: str) -> None:
    assert text in signing.fault(signer, request_, usages)


def test_who_asks_is_what_the_server_knows() -> None:
    body = {"spec": {"username": "root", "groups": ["system:masters"], "request": "x"}}
    signing.stamp(body, {"username": "ann", "groups": ["devs"]})
    assert body["spec"] == {"username": "ann", "groups": ["devs"], "request": "x"}


def test_a_decision_stands() -> None:
    approved, denied = {"type": "Approved"}, {"type": "Denied"}
    assert signing.decided([approved], []) == []
    assert "mutually exclusive" in signing.decided([approved, denied], [approved])[0].text
    assert "may not remove" in signing.decided([], [approved])[0].text


def test_nobody_approves_beside_the_approval() -> None:
    old = {"spec": {"request": "a"}, "status": {"conditions": [{"type": "Denied"}]}}
    body = {"spec": {"request": "b"}, "status": {"conditions": [{"type": "Approved"}, {"type": "Failed"}]}}
    signing.keep(body, old, "status")
    assert body["spec"] == {"request": "a"}
    assert [item["type"] for item in body["status"]["conditions"]] == ["Denied", "Failed"]


def test_how_long_a_certificate_is_good() -> None:
    assert signing.lifetime_s({"spec": {"expirationSeconds": 1}}) == signing.SHORTEST_S
    assert signing.lifetime_s({"spec": {"expirationSeconds": 10**9}}) == signing.LONGEST_S
    assert signing.lifetime_s({"spec": {}}) == signing.LONGEST_S
