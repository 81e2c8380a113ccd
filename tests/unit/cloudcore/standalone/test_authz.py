from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cloudcore.standalone import authz, selectors
from cloudcore.standalone.authn import AUTHENTICATED, MASTERS, User
from cloudcore.standalone.authz import GROUP, Authorizer, Request, default_roles
from cloudcore.standalone.store import Store

NODE = User(name="system:node:n1", groups=("system:nodes", AUTHENTICATED))


def allowed(path: Path, user: User, *requests: Request) -> list[bool]:
    """What an authorizer answers over a store with pods, and a role that somebody bound to all nodes."""

    async def main() -> list[bool]:
        store = Store(path / "db", fields=selectors.field_values)
        store.open()
        store.start()
        try:
            everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
            bodies: list[tuple[tuple[str, str], str, dict[str, Any]]] = [
                ((GROUP, plural), "", body) for plural, body in default_roles()
            ]
            bodies.append(((GROUP, "clusterroles"), "", {"metadata": {"name": "all"}, "rules": [everything]}))
            binding = {
                "metadata": {"name": "nodes-do-all"},
                "roleRef": {"kind": "ClusterRole", "name": "all"},
                "subjects": [
                    {"kind": "Group", "name": "system:nodes"},
                    {"kind": "User", "name": "system:node:n1"},
                ],
            }
            bodies.append(((GROUP, "clusterrolebindings"), "", binding))
            for name, node in (("mine", "n1"), ("theirs", "n2")):
                env = [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": f"secret-of-{name}", "key": "k"}}}
                ]
                spec = {
                    "nodeName": node,
                    "containers": [{"name": "c", "env": env}],
                    "volumes": [{"name": "v", "configMap": {"name": f"config-of-{name}"}}],
                }
                bodies.append(
                    (("", "pods"), "ns", {"metadata": {"name": name, "namespace": "ns"}, "spec": spec})
                )
            for key, namespace, body in bodies:
                body["metadata"].setdefault("uid", body["metadata"]["name"])
                _, done = store.put(key, namespace, body["metadata"]["name"], body)
            await done
            judge = Authorizer(store)
            return [judge.allowed(user, request) for request in requests]
        finally:
            await store.stop()

    return asyncio.run(main())


def get(resource: str, name: str, namespace: str = "ns", group: str = "") -> Request:
    return Request(verb="get", group=group, resource=resource, namespace=namespace, name=name)


def test_a_node_reads_itself_and_what_its_pods_refer_to(tmp_path: Path) -> None:
    yes = [
        get("nodes", "n1", ""),
        get("leases", "n1", "kube-node-lease", "coordination.k8s.io"),
        get("pods", "mine"),
        get("secrets", "secret-of-mine"),
        get("configmaps", "config-of-mine"),
        Request(verb="get", path="/version"),
        Request(verb="get", path="/apis"),
        Request(verb="create", group="authentication.k8s.io", resource="selfsubjectreviews"),
    ]
    assert allowed(tmp_path, NODE, *yes) == [True] * len(yes)


def test_a_node_gets_nothing_else_whatever_is_bound_to_it(tmp_path: Path) -> None:
    no = [
        get("nodes", "n2", ""),
        get("leases", "n2", "kube-node-lease", "coordination.k8s.io"),
        get("leases", "n1", "default", "coordination.k8s.io"),
        get("pods", "theirs"),
        get("secrets", "secret-of-theirs"),
        get("secrets", "secret-of-mine", "other"),
        get("configmaps", ""),
        Request(verb="list", resource="secrets", namespace="ns"),
        Request(verb="watch", resource="pods"),
        Request(verb="update", resource="nodes", subresource="status", name="n1"),
        Request(verb="patch", resource="nodes", name="n1"),
        Request(
            verb="create", resource="serviceaccounts", subresource="token", namespace="ns", name="default"
        ),
        Request(verb="get", resource="pods", subresource="log", namespace="ns", name="mine"),
        Request(verb="impersonate", resource="users", name="admin"),
        Request(verb="get", path="/metrics"),
    ]
    assert allowed(tmp_path, NODE, *no) == [False] * len(no)


@pytest.mark.parametrize(
    "user",
    [
        User(name="system:node:n1", groups=(AUTHENTICATED,)),
        User(name="somebody", groups=("system:nodes", AUTHENTICATED)),
        User(name="system:node:", groups=("system:nodes", AUTHENTICATED)),
        User(name="system:node:n2", groups=("system:nodes", MASTERS, AUTHENTICATED)),
    ],
)
def test_a_half_identity_or_a_mixed_one_gets_nothing_more(tmp_path: Path, user: User) -> None:
    asked = (get("nodes", "n1", ""), get("pods", "mine"), get("secrets", "secret-of-mine"))
    assert allowed(tmp_path, user, *asked) == [False] * 3


@pytest.mark.parametrize(
    ("rule", "request_", "good"),
    [
        ({"resources": ["pods"]}, {"resource": "pods"}, True),
        ({"resources": ["pods"]}, {"resource": "pods", "subresource": "log"}, False),
        ({"resources": ["pods/log"]}, {"resource": "pods", "subresource": "log"}, True),
        ({"resources": ["*/log"]}, {"resource": "pods", "subresource": "log"}, True),
        ({"resources": ["*"]}, {"resource": "pods", "subresource": "log"}, True),
        # no form of Kubernetes': who writes it there is given nothing, and so here
        ({"resources": ["pods/*"]}, {"resource": "pods", "subresource": "exec"}, False),
        ({"resources": ["pods"], "apiGroups": ["apps"]}, {"resource": "pods"}, False),
        ({"resources": ["pods"], "verbs": ["list"]}, {"resource": "pods"}, False),
        ({"resources": ["pods"], "resourceNames": ["a"]}, {"resource": "pods", "name": "a"}, True),
        ({"resources": ["pods"], "resourceNames": ["a"]}, {"resource": "pods", "name": "b"}, False),
        ({"resources": ["pods"], "resourceNames": ["a"]}, {"resource": "pods"}, False),
        ({"nonResourceURLs": ["/metrics/*"]}, {"path": "/metrics/slis"}, True),
        ({"nonResourceURLs": ["/metrics"]}, {"path": "/metrics/slis"}, False),
        ({"resources": "pods"}, {"resource": "pods"}, False),
    ],
)
def test_a_rule_grants_what_it_says(rule: Any, request_: dict[str, str], good: bool) -> None:
    whole = {"verbs": ["get"], "apiGroups": [""], **rule}
    assert authz._permits(whole, Request(verb="get", **request_)) is good


@pytest.mark.parametrize(
    ("subject", "good"),
    [
        ({"kind": "User", "name": "system:serviceaccount:ns:robot"}, True),
        ({"kind": "ServiceAccount", "name": "robot"}, True),
        ({"kind": "ServiceAccount", "name": "robot", "namespace": "ns"}, True),
        ({"kind": "ServiceAccount", "name": "robot", "namespace": "other"}, False),
        ({"kind": "Group", "name": AUTHENTICATED}, True),
        ({"kind": "Group", "name": "others"}, False),
        # a name like any other, as in Kubernetes
        ({"kind": "User", "name": "*"}, False),
        ({"kind": "User"}, False),
        ({}, False),
    ],
)
def test_a_binding_is_for_whom_it_names(subject: dict[str, str], good: bool) -> None:
    robot = User(name="system:serviceaccount:ns:robot", groups=(AUTHENTICATED,))
    assert authz._names([subject], robot, "ns") is good
