"""What whoever rotates the authority is told of the nodes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cloudcore.identity import pki
from cloudcore.identity.followers import OURS, STOCK, Follower, follower, report, summary, text
from cloudcore.identity.rotation import trust_of, trusts
from cloudcore.identity.succession import Held, begin
from cloudcore.objects import AUTHORITY_ANNOTATION, NODE, SESSION_ANNOTATION, Object, read

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
A, B = (pki.make_ca(name, lifetime=900 * DAY, now=NOW) for name in ("a", "b"))
HELD = begin(Held(A), B, now=NOW, window=30 * DAY, certificate_life=365 * DAY)
OLD = pki.fingerprint(A.certificate_pem)


def node(name: str, authority: str | None, *, session: str = "3") -> Object:
    annotations = {SESSION_ANNOTATION: session} if session else {}
    if authority is not None:
        annotations[AUTHORITY_ANNOTATION] = authority
    body = {
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2026-11-01T11:59:00Z"}]},
    }
    return read(NODE, json.dumps(body).encode())


NODES = [
    node("done", f"{HELD.newest} {HELD.newest}"),
    node("knows", f"{HELD.newest} {OLD}"),
    node("away", f"{OLD} {OLD}"),
    node("stock", f"- {OLD}"),
    node("before", None),
    node("a-kubelet-s", None, session=""),
]


def followers() -> list[Follower]:
    return [follower(HELD, one, obj) for one, obj in zip(trusts(NODES), NODES, strict=False)]


def test_only_nodes_that_a_hub_ever_had_are_asked_about() -> None:
    assert [one.name for one in trusts(NODES)] == ["done", "knows", "away", "stock", "before"]
    assert trust_of(NODES[3]).newest == ""


def test_what_each_node_trusts_and_holds() -> None:
    rows = {one.name: (one.kind, one.trusts, one.holds, one.follows) for one in followers()}
    assert rows == {
        "done": (OURS, True, True, True),
        "knows": (OURS, True, False, False),
        "away": (OURS, False, False, False),
        "stock": (STOCK, False, False, False),
        "before": (STOCK, False, False, False),
    }
    assert {one.seen for one in followers()} == {"2026-11-01T11:59:00Z"}


def test_the_screen_says_who_has_to_join_again() -> None:
    shown = text(HELD, followers())
    assert f"authority  {HELD.newest}" in shown
    assert f"replaces   {OLD}" in shown
    assert "until 2026-12-01T12:00:00+00:00; cloudcore proves itself by the old one" in shown
    assert "1 not yet: away; they follow when they are linked" in shown
    assert "1 trust it and have to renew their certificates: knows; they do" in shown
    assert "2 cannot follow" in shown
    assert "stock, before; they have to join again with a new token" in shown
    assert summary([]) == "Every node follows."
    assert "alone: no rotation goes on" in text(Held(A), [])
    many = [Follower(f"n{number}", OURS, trusts=False, holds=False) for number in range(12)]
    assert "n9 and 2 more" in summary(many)


def test_the_same_for_programs() -> None:
    found = report(HELD, followers())
    assert found["authority"] == HELD.newest
    assert found["window"] == {
        "old": OLD,
        "began": "2026-11-01T12:00:00+00:00",
        "until": "2026-12-01T12:00:00+00:00",
        "shows": "old",
    }
    assert found["nodes"][0] == {
        "name": "done",
        "kind": "skerry",
        "trusts": True,
        "holds": True,
        "seen": "2026-11-01T11:59:00Z",
    }
    assert report(Held(A), [])["window"] is None
