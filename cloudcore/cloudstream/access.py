"""Who may ask a node's kubelet for what: the questions to put to the Kubernetes API.  Pure, and deny by default.

Source: kubelet, pkg/kubelet/server/auth.go, except that exec, attach and port-forward always count as `create`: a websocket
upgrade is a GET, and a right to read must not become a right to run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

MAX_DECISIONS = 2048
ALLOWED_S = 300.0
"""How long a yes holds: the kubelet's authorization cacheAuthorizedTTL."""
DENIED_S = 30.0

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_RUNS = frozenset({"exec", "attach", "portForward", "run"})
_SUBRESOURCES = {"stats": "stats", "metrics": "metrics", "logs": "log", "checkpoint": "checkpoint"}


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """One access to one node."""

    user: User
    node: str
    verb: str
    subresource: str


def question(user: User, node: str, method: str, path: str) -> Question:
    """What has to be allowed for a request."""
    first = path.lstrip("/").partition("/")[0]
    verb = "create" if first in _RUNS else _VERBS.get(method, "")
    return Question(user, node, verb, _SUBRESOURCES.get(first, "proxy"))


def subject_access_review(asked: Question) -> dict[str, Any]:
    """The SubjectAccessReview for a question."""
    user = asked.user
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra},
            "resourceAttributes": {
                "verb": asked.verb,
                "group": "",
                "version": "v1",
                "resource": "nodes",
                "subresource": asked.subresource,
                "name": asked.node,
            },
        },
    }


def token_review(token: str) -> dict[str, Any]:
    """The TokenReview for a bearer token."""
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}


def user_of_review(review: dict[str, Any]) -> User | None:
    """Who a token belongs to, or None when it is nobody's."""
    status = review.get("status") or {}
    user = status.get("user") or {}
    if status.get("authenticated") is not True or not user.get("username"):
        return None
    extra = tuple((key, tuple(values)) for key, values in sorted((user.get("extra") or {}).items()))
    return User(user["username"], user.get("uid", ""), tuple(user.get("groups") or ()), extra)


def user_of_certificate(certificate: dict[str, Any] | None) -> User | None:
    """Who a verified client certificate belongs to: its common name and organizations."""
    names: list[str] = []
    groups: list[str] = []
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    if len(names) != 1 or not names[0]:
        return None
    return User(names[0], "", (*groups, "system:authenticated"))


def is_allowed(review: dict[str, Any]) -> bool:
    """The answer to a SubjectAccessReview."""
    status = review.get("status") or {}
    return status.get("allowed") is True and status.get("denied") is not True


@dataclass(slots=True)
class Decisions:
    """Answers that still hold; the oldest go first when there are too many."""

    _held: OrderedDict[object, tuple[float, bool]] = field(default_factory=OrderedDict)

    def get(self, key: object, now: float) -> bool | None:
        found = self._held.get(key)
        if found is None or found[0] <= now:
            return None
        return found[1]

    def put(self, key: object, now: float, *, allowed: bool) -> None:
        self._held[key] = (now + (ALLOWED_S if allowed else DENIED_S), allowed)
        self._held.move_to_end(key)
        while len(self._held) > MAX_DECISIONS:
            self._held.popitem(last=False)
