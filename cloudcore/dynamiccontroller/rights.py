"""What service accounts may do, resolved for the edges that run their pods.  Pure.

The answer is KubeEdge's ServiceAccountAccess: each binding that names the account, with the rules of its role beside it,
so that an edge judges without asking.  Bindings that everybody has (discovery and the like) are left out: the edge knows
those."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from beehive import rbac
from beehive.rbac import Binding, Role, Rule

API_VERSION = "policy.kubeedge.io/v1alpha1"
WIRE = "serviceaccountaccess"
GROUP = "rbac.authorization.k8s.io"

_EVERYBODYS = frozenset(
    {
        "system:basic-user",
        "system:discovery",
        "system:public-info-viewer",
        "system:service-account-issuer-discovery",
    }
)
_SPACE = uuid.UUID("5b1f0f52-6a3c-5d0a-9d57-0d4a4a4f1c61")

Name = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All of the API's RBAC.  Roles are by namespace and name, cluster roles by name."""

    roles: Mapping[Name, Role]
    cluster_roles: Mapping[str, Role]
    bindings: Iterable[Binding]
    cluster_bindings: Iterable[Binding]


def uid_of(account: Name) -> str:
    """The uid under which an account's rights travel: always the same, so that newer ones replace older ones."""
    return str(uuid.uuid5(_SPACE, "/".join(account)))


def spec(account: Name, account_uid: str, policy: Policy) -> bytes:
    """The spec of the account's ServiceAccountAccess, the same bytes for the same rights."""
    user = rbac.service_account_user(*account)
    found = {
        "serviceAccount": {"metadata": {"namespace": account[0], "name": account[1]}},
        "serviceAccountUid": account_uid,
        "accessRoleBinding": [
            {"roleBinding": binding, "rules": rules}
            for binding in _sorted(policy.bindings)
            if rbac.binds(binding.subjects, user, binding.metadata.namespace)
            and (rules := _rules(binding, policy)) is not None
        ],
        "accessClusterRoleBinding": [
            {"clusterRoleBinding": binding, "rules": rules}
            for binding in _sorted(policy.cluster_bindings)
            if binding.metadata.name not in _EVERYBODYS
            and rbac.binds(binding.subjects, user)
            and (rules := _rules(binding, policy)) is not None
        ],
    }
    return msgspec.json.encode(found)


def document(account: Name, body: bytes, version: int) -> bytes:
    """The whole object, as it goes to an edge."""
    metadata = {
        "namespace": account[0],
        "name": account[1],
        "uid": uid_of(account),
        "resourceVersion": str(version),
    }
    head = msgspec.json.encode(
        {"apiVersion": API_VERSION, "kind": "ServiceAccountAccess", "metadata": metadata}
    )
    return head[:-1] + b',"spec":' + body + b',"status":{"nodeList":[]}}'


def _rules(binding: Binding, policy: Policy) -> tuple[Rule, ...] | None:
    """What the binding's role allows; None when there is no such role."""
    ref = binding.role_ref
    role = (
        policy.cluster_roles.get(ref.name)
        if ref.kind == "ClusterRole"
        else policy.roles.get((binding.metadata.namespace, ref.name))
    )
    return None if role is None else role.rules or ()


def _sorted(bindings: Iterable[Binding]) -> list[Binding]:
    return sorted(bindings, key=lambda binding: (binding.metadata.namespace, binding.metadata.name))
