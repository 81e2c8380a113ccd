"""Judge a request by RBAC rules.  Pure.

The edge judges by the ServiceAccountAccess objects that the cloud's policy controller gave it, the hub by the API's own
roles; both use this module, so that they cannot differ.  Nothing that is not granted is allowed.

Source: Kubernetes, plugin/pkg/auth/authorizer/rbac (RuleAllows) and pkg/apis/rbac/v1 evaluation helpers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

ALL = "*"
AUTHENTICATED = "system:authenticated"
SERVICE_ACCOUNTS = "system:serviceaccounts"


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """rbac.authorization.k8s.io/v1 PolicyRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    resource_names: tuple[str, ...] | None = None
    non_resource_urls: tuple[str, ...] | None = msgspec.field(name="nonResourceURLs", default=None)


class Subject(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    kind: str
    name: str
    api_group: str = ""
    namespace: str = ""


class RoleRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    kind: str
    name: str
    api_group: str = ""


class Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class Binding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """RoleBinding or ClusterRoleBinding."""

    role_ref: RoleRef
    metadata: Meta = Meta()
    subjects: tuple[Subject, ...] | None = None


class Role(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Role or ClusterRole; an aggregated one holds its rules already."""

    metadata: Meta = Meta()
    rules: tuple[Rule, ...] | None = None


class RoleAccess(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    role_binding: Binding
    rules: tuple[Rule, ...] | None = None


class ClusterRoleAccess(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    cluster_role_binding: Binding
    rules: tuple[Rule, ...] | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """core/v1 ServiceAccount, its metadata only."""

    metadata: Meta = Meta()


class AccessSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    service_account: Account = Account()
    service_account_uid: str = ""
    access_role_binding: tuple[RoleAccess, ...] | None = None
    access_cluster_role_binding: tuple[ClusterRoleAccess, ...] | None = None


class ServiceAccountAccess(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """policy.kubeedge.io/v1alpha1: everything that one service account may do, with the roles resolved."""

    metadata: Meta = Meta()
    spec: AccessSpec = AccessSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks, as RBAC names them."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is asked.  `path` is set for what is not a resource (`/version`); then the others are not looked at."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def service_account_user(namespace: str, name: str) -> User:
    """The user that a service account is."""
    return User(
        name=f"system:serviceaccount:{namespace}:{name}",
        groups=(SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED),
    )


def binds(subjects: Iterable[Subject] | None, user: User, namespace: str = "") -> bool:
    """Whether one of the subjects is `user`.  `namespace`: that of the RoleBinding, for an account that names none."""
    for subject in subjects or ():
        if subject.kind == "ServiceAccount":
            where = subject.namespace or namespace
            if where and user.name == f"system:serviceaccount:{where}:{subject.name}":
                return True
        elif (subject.kind == "User" and subject.name == user.name) or (
            subject.kind == "Group" and subject.name in user.groups
        ):
            return True
    return False


def allows(rule: Rule, asked: Attributes) -> bool:
    """Whether one rule grants what is asked."""
    if not _has(rule.verbs, asked.verb):
        return False
    if asked.path:
        return any(_url(pattern, asked.path) for pattern in rule.non_resource_urls or ())
    if not _has(rule.api_groups, asked.group):
        return False
    combined = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    resources = rule.resources or ()
    if not (
        ALL in resources
        or combined in resources
        or (asked.subresource and f"*/{asked.subresource}" in resources)
    ):
        return False
    return not rule.resource_names or (asked.name != "" and asked.name in rule.resource_names)


def granted(access: ServiceAccountAccess, user: User, asked: Attributes) -> bool:
    """Whether the resolved bindings of an account let `user` do what is asked."""
    where = "" if asked.path else asked.namespace
    return any(allows(rule, asked) for rule in rules(access, user, where))


def rules(access: ServiceAccountAccess, user: User, namespace: str) -> Iterator[Rule]:
    """What the resolved bindings of an account grant `user` in a namespace, or where there is none."""
    spec = access.spec
    for cluster in spec.access_cluster_role_binding or ():
        if binds(cluster.cluster_role_binding.subjects, user):
            yield from cluster.rules or ()
    if not namespace:
        return
    for item in spec.access_role_binding or ():
        where = item.role_binding.metadata.namespace or access.metadata.namespace
        if where == namespace and binds(item.role_binding.subjects, user, where):
            # what a role says of paths counts in no namespace
            yield from (rule for rule in item.rules or () if not rule.non_resource_urls)


def _has(values: tuple[str, ...] | None, value: str) -> bool:
    return values is not None and (ALL in values or value in values)


def _url(pattern: str, path: str) -> bool:
    return pattern in (ALL, path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
