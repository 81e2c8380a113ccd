"""Who may come in at the hub's door, and for what."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from beehive import session, stocktunnel
from beehive.succession import PATH as SUCCESSION_PATH
from cloudcore.cloudhub import upgrade
from cloudcore.cloudhub.upgrade import HUB_PATH, Purpose, Refusal
from cloudcore.identity.subjects import HUB_GROUP, HUB_USER, NODE_GROUP, NODE_USER


def certificate(*names: str, groups: tuple[str, ...] = (NODE_GROUP,)) -> dict[str, Any]:
    parts = [("organizationName", group) for group in groups] + [("commonName", name) for name in names]
    return {"subject": tuple(((key, value),) for key, value in parts)}


@pytest.mark.parametrize(
    ("path", "purpose"),
    [
        ("/ca.crt", Purpose.CA),
        (SUCCESSION_PATH, Purpose.SUCCESSION),
        ("/join", Purpose.JOIN),
        (HUB_PATH, Purpose.HUB),
        ("/tunnel", Purpose.TUNNEL),
        (stocktunnel.PATH, Purpose.STOCK_TUNNEL),
        (stocktunnel.PATH + "/", Purpose.STOCK_TUNNEL),
        (f"/{session.PROJECT_ID}/edge-1/events", Purpose.LINK),
        ("/", Purpose.LINK),
        ("/join/", Purpose.LINK),
    ],
)
def test_the_path_says_what_is_wanted(path: str, purpose: Purpose) -> None:
    assert upgrade.purpose_of(path) is purpose


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        (certificate(NODE_USER + "edge-1"), "edge-1"),
        (None, HTTPStatus.UNAUTHORIZED),
        ({}, HTTPStatus.UNAUTHORIZED),
        ({"subject": ()}, HTTPStatus.FORBIDDEN),
        (certificate("edge-1"), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER + "a/b"), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER + "one", NODE_USER + "two"), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER + "edge-1", groups=()), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER + "edge-1", groups=(NODE_GROUP, "system:masters")), HTTPStatus.FORBIDDEN),
        (certificate(NODE_USER + "edge-1", groups=("system:masters",)), HTTPStatus.FORBIDDEN),
        (certificate(HUB_USER, groups=(HUB_GROUP,)), HTTPStatus.FORBIDDEN),
    ],
)
def test_a_node_is_who_its_certificate_says(shown: Any, found: str | HTTPStatus) -> None:
    node = upgrade.node_of(shown)
    assert (node.status if isinstance(node, Refusal) else node) == found


def test_only_another_cloudcore_comes_to_the_hub() -> None:
    assert upgrade.hub_refusal(certificate(HUB_USER, groups=(HUB_GROUP,))) is None
    for shown in (
        None,
        certificate(NODE_USER + "edge-1"),
        certificate(HUB_USER),
        certificate(HUB_USER, groups=()),
    ):
        refusal = upgrade.hub_refusal(shown)
        assert refusal is not None
        assert refusal.status == HTTPStatus.FORBIDDEN


def test_a_header_that_names_another_is_refused_by_its_name() -> None:
    assert upgrade.claim_refusal(Purpose.LINK, "edge-1", "edge-1") is None
    for purpose, header in (
        (Purpose.LINK, session.HEADER_NODE),
        (Purpose.TUNNEL, session.HEADER_NODE),
        (Purpose.STOCK_TUNNEL, stocktunnel.HEADER_NODE),
    ):
        refusal = upgrade.claim_refusal(purpose, "edge-2", "edge-1")
        assert refusal is not None
        assert refusal.status == HTTPStatus.FORBIDDEN
        assert header in refusal.text


@pytest.mark.parametrize(
    ("purpose", "use", "served", "linked", "status"),
    [
        (Purpose.LINK, "msg", True, False, None),
        (Purpose.LINK, "msg", True, True, None),
        (Purpose.LINK, "str", True, False, HTTPStatus.BAD_REQUEST),
        (Purpose.LINK, "", True, False, HTTPStatus.BAD_REQUEST),
        (Purpose.TUNNEL, "str", True, True, None),
        (Purpose.TUNNEL, "msg", True, True, HTTPStatus.BAD_REQUEST),
        (Purpose.TUNNEL, "str", True, False, HTTPStatus.SERVICE_UNAVAILABLE),
        (Purpose.TUNNEL, "str", False, True, HTTPStatus.NOT_FOUND),
        (Purpose.STOCK_TUNNEL, "", True, True, None),
        (Purpose.STOCK_TUNNEL, "", True, False, HTTPStatus.SERVICE_UNAVAILABLE),
        (Purpose.STOCK_TUNNEL, "", False, True, HTTPStatus.NOT_FOUND),
        (Purpose.HUB, "", True, False, None),
        (Purpose.HUB, "", False, False, HTTPStatus.NOT_FOUND),
    ],
)
def test_what_it_may_be_used_for(
    purpose: Purpose,
    use: str,
    served: bool,
    linked: bool,
    status: HTTPStatus | None,
) -> None:
    refusal = upgrade.use_refusal(purpose, use, served=served, linked=linked)
    assert (refusal.status if refusal else None) == status
