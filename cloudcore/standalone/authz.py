"""May this user do that: nodes by rules of their own, `system:masters`, then the stored roles and bindings.

Source: kubernetes, plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from beehive import rbac
from cloudcore.standalone import nodeauthz
from cloudcore.standalone.authn import AUTHENTICATED, MASTERS, User
from cloudcore.standalone.store import Store

Json = dict[str, Any]
T = TypeVar("T")
GROUP = "rbac.authorization.k8s.io"
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""Everybody may read these, with or without a name."""


Request = rbac.Attributes


class Authorizer:
    def __init__(self, store: Store) -> None:
        self._store = store

    def allowed(self, user: User, request: Request) -> bool:
        node = nodeauthz.node_of(user)
        if node is not None:
            if request.verb == "get" and not request.path and not request.subresource:
                place = (request.group, request.resource, request.namespace, request.name)
                if nodeauthz.may_get(self._store, node, *place):
                    return True
            # no role that is bound to a node or to all of them counts
            user = User(name="", groups=(AUTHENTICATED,))
        if MASTERS in user.groups:
            return True
        if request.path:
            open_path = request.path.rstrip("/")
            if request.verb == "get" and any(
                open_path == path or open_path.startswith(path + "/") for path in OPEN_PATHS
            ):
                return True
        return any(_permits(rule, request) for rule in self.rules(user, request.namespace))

    def reason(self, user: User) -> str:
        """Why a refused request was refused, where more can be said than that no rule allows it."""
        node = nodeauthz.node_of(user)
        return nodeauthz.reason(node) if node is not None else ""

    def rules(self, user: User, namespace: str) -> Iterator[Json]:
        """Every rule that applies to `user`, cluster-wide and in `namespace`."""
        if nodeauthz.node_of(user) is not None:
            user = User(name="", groups=(AUTHENTICATED,))
        for record in self._store.select((GROUP, "clusterrolebindings")):
            binding = record.decode()
            if _names(binding.get("subjects") or (), user, ""):
                yield from self._rules_of(binding.get("roleRef") or {}, "")
        if namespace:
            for record in self._store.select((GROUP, "rolebindings"), namespace):
                binding = record.decode()
                if _names(binding.get("subjects") or (), user, namespace):
                    yield from self._rules_of(binding.get("roleRef") or {}, namespace)

    def _rules_of(self, ref: Json, namespace: str) -> list[Json]:
        if ref.get("kind") == "ClusterRole":
            record = self._store.get((GROUP, "clusterroles"), "", ref.get("name", ""))
        else:
            record = self._store.get((GROUP, "roles"), namespace, ref.get("name", ""))
        rules: list[Json] = record.decode().get("rules") or [] if record is not None else []
        return rules


def _names(subjects: Iterable[Json], user: User, namespace: str) -> bool:
    """Whether a binding is for this user.  One that cannot be read is for nobody."""
    who = rbac.User(name=user.name, groups=user.groups)
    return any(
        rbac.binds((found,), who, namespace) for item in subjects if (found := _read(item, rbac.Subject))
    )


def _permits(rule: Json, request: Request) -> bool:
    """Whether a rule grants this.  One that cannot be read grants nothing."""
    found = _read(rule, rbac.Rule)
    return found is not None and rbac.allows(found, request)


def _read(item: Json, shape: type[T]) -> T | None:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError:
        return None


_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_WORKLOADS = [
    (
        ["apps"],
        [
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    (["batch"], ["cronjobs", "jobs"]),
    (["autoscaling"], ["horizontalpodautoscalers"]),
    (["networking.k8s.io"], ["ingresses", "networkpolicies"]),
    (["policy"], ["poddisruptionbudgets"]),
    ([""], ["configmaps", "endpoints", "persistentvolumeclaims", "pods", "services", "serviceaccounts"]),
]
_VIEWED = [
    (
        [""],
        [
            "events",
            "namespaces",
            "namespaces/status",
            "pods/log",
            "pods/status",
            "limitranges",
            "resourcequotas",
        ],
    ),
    (["discovery.k8s.io"], ["endpointslices"]),
    (["metrics.k8s.io"], ["nodes", "pods"]),
]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Json:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def default_roles() -> list[tuple[str, Json]]:
    """(plural, object) of the roles and bindings that every cluster has.

    Source: plugin/pkg/auth/authorizer/rbac/bootstrappolicy, cut to the kinds that exist here."""
    view = [_rule(groups, names, _READ) for groups, names in (*_WORKLOADS, *_VIEWED)]
    edit = [
        *view,
        *(_rule(groups, names, _WRITE) for groups, names in _WORKLOADS),
        _rule(
            [""],
            [
                "secrets",
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "serviceaccounts/token",
                "pods/eviction",
            ],
            [*_READ, *_WRITE],
        ),
        _rule(["coordination.k8s.io"], ["leases"], [*_READ, *_WRITE]),
    ]
    admin = [
        *edit,
        _rule([GROUP], ["roles", "rolebindings"], [*_READ, *_WRITE]),
        _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
    ]
    discovery = [
        {
            "nonResourceURLs": [
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
            "verbs": ["get"],
        }
    ]
    basic = [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ]
    issuer = [{"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]}]
    everything = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    roles = {
        "cluster-admin": everything,
        "admin": admin,
        "edit": edit,
        "view": view,
        "system:discovery": discovery,
        "system:basic-user": basic,
        "system:service-account-issuer-discovery": issuer,
    }
    bindings = {
        "cluster-admin": ("cluster-admin", "Group", MASTERS),
        "system:discovery": ("system:discovery", "Group", "system:authenticated"),
        "system:basic-user": ("system:basic-user", "Group", "system:authenticated"),
        "system:service-account-issuer-discovery": (
            "system:service-account-issuer-discovery",
            "Group",
            "system:serviceaccounts",
        ),
    }
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    found: list[tuple[str, Json]] = [
        ("clusterroles", {"metadata": {"name": name, "labels": dict(labels)}, "rules": rules})
        for name, rules in roles.items()
    ]
    for name, (role, kind, subject) in bindings.items():
        found.append(
            (
                "clusterrolebindings",
                {
                    "metadata": {"name": name, "labels": dict(labels)},
                    "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}],
                },
            )
        )
    return found
