"""Which right a request needs, and what the API's answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.cloudstream import access
from cloudcore.cloudstream.access import ALLOWED_S, DENIED_S, MAX_DECISIONS, Decisions, User

WHO = User("kube-apiserver", "", ("system:masters",))


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresource"),
    [
        ("GET", "/containerLogs/default/web/c", "get", "proxy"),
        ("GET", "/exec/default/web/c", "create", "proxy"),
        ("POST", "/exec/default/web/c", "create", "proxy"),
        ("GET", "/attach/default/web/c", "create", "proxy"),
        ("GET", "/portForward/default/web", "create", "proxy"),
        ("PUT", "/run/default/web/c", "create", "proxy"),
        ("GET", "/stats/summary", "get", "stats"),
        ("GET", "/metrics/cadvisor", "get", "metrics"),
        ("GET", "/logs/syslog", "get", "log"),
        ("POST", "/checkpoint/default/web/c", "create", "checkpoint"),
        ("GET", "/pods", "get", "proxy"),
        ("TRACE", "/pods", "", "proxy"),
    ],
)
def test_the_right_follows_from_the_path(method: str, path: str, verb: str, subresource: str) -> None:
    asked = access.question(WHO, "edge-1", method, path)
    assert (asked.verb, asked.subresource) == (verb, subresource)
    wanted = access.subject_access_review(asked)["spec"]
    assert wanted["groups"] == ["system:masters"]
    assert wanted["resourceAttributes"] == {
        "verb": verb,
        "group": "",
        "version": "v1",
        "resource": "nodes",
        "subresource": subresource,
        "name": "edge-1",
    }


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": True, "denied": True}, False),
        ({"allowed": "true"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_a_clear_yes_is_a_yes(status: Any, allowed: bool) -> None:
    assert access.is_allowed({"status": status}) is allowed


def test_tokens_of_nobody_are_nobodys() -> None:
    assert access.user_of_review({}) is None
    assert access.user_of_review({"status": {"authenticated": False, "user": {"username": "x"}}}) is None
    assert access.user_of_review({"status": {"authenticated": True, "user": {}}}) is None
    extra = {"authenticated": True, "user": {"username": "x", "groups": ["g"], "extra": {"k": ["v"]}}}
    assert access.user_of_review({"status": extra}) == User("x", "", ("g",), (("k", ("v",)),))


def test_certificates_name_their_user() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "x"),))
    assert access.user_of_certificate({"subject": subject}) == User(
        "x", "", ("a", "b", "system:authenticated")
    )
    assert access.user_of_certificate({"subject": ()}) is None
    assert access.user_of_certificate(None) is None


def test_decisions_hold_for_a_while_and_are_bounded() -> None:
    held = Decisions()
    held.put("a", 0.0, allowed=True)
    held.put("b", 0.0, allowed=False)
    assert held.get("a", ALLOWED_S - 1) is True
    assert held.get("a", ALLOWED_S) is None
    assert held.get("b", DENIED_S - 1) is False
    assert held.get("b", DENIED_S) is None
    for n in range(MAX_DECISIONS):
        held.put(n, 0.0, allowed=True)
    assert held.get("a", 0.0) is None
    assert len(held._held) == MAX_DECISIONS
