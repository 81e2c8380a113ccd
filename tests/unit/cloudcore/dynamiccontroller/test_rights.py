"""Rights of service accounts, as they go to edges."""

import json
from typing import Any

import msgspec

from beehive import rbac
from beehive.rbac import Attributes, Binding, Role, ServiceAccountAccess
from cloudcore.dynamiccontroller import rights
from cloudcore.dynamiccontroller.rights import Policy

ANN = ("web", "ann")


def role(*verbs: str) -> Role:
    return msgspec.convert({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]}, Role)


def binding(label: str, kind: str, ref: str, namespace: str = "", /, **subject: str) -> Binding:
    given: dict[str, Any] = {
        "metadata": {"name": label, "namespace": namespace},
        "roleRef": {"kind": kind, "name": ref},
        "subjects": [{"kind": "ServiceAccount", "name": "ann", "namespace": "web"} | subject],
    }
    return msgspec.convert(given, Binding)


def access(policy: Policy) -> ServiceAccountAccess:
    body = rights.spec(ANN, "uid-1", policy)
    return msgspec.json.decode(rights.document(ANN, body, 7), type=ServiceAccountAccess)


POLICY = Policy(
    roles={("web", "reader"): role("list")},
    cluster_roles={"nodes": role("get"), "view": role("watch")},
    bindings=[
        binding("b", "Role", "reader", "web"),
        binding("a", "ClusterRole", "view", "other"),
        binding("missing", "Role", "nothing", "web"),
        binding("foreign", "Role", "reader", "web", name="bob"),
    ],
    cluster_bindings=[
        binding("c", "ClusterRole", "nodes"),
        binding("system:discovery", "ClusterRole", "nodes", kind="Group", name="system:authenticated"),
    ],
)


def test_the_edge_judges_by_them_as_the_api_would() -> None:
    found = access(POLICY)
    user = rbac.service_account_user(*ANN)

    def may(verb: str, namespace: str = "") -> bool:
        return rbac.granted(found, user, Attributes(verb=verb, resource="pods", namespace=namespace))

    assert may("list", "web")
    assert not may("list", "other")
    assert may("watch", "other")
    assert not may("watch", "web")
    assert may("get")
    assert may("get", "anywhere")
    assert not may("delete", "web")


def test_only_what_is_the_accounts_goes() -> None:
    found = access(POLICY)
    assert [item.role_binding.metadata.name for item in found.spec.access_role_binding or ()] == ["a", "b"]
    names = [i.cluster_role_binding.metadata.name for i in found.spec.access_cluster_role_binding or ()]
    assert names == ["c"]
    assert found.spec.service_account_uid == "uid-1"


def test_the_same_rights_are_the_same_bytes() -> None:
    again = Policy(
        roles=POLICY.roles,
        cluster_roles=POLICY.cluster_roles,
        bindings=list(reversed(list(POLICY.bindings))),
        cluster_bindings=POLICY.cluster_bindings,
    )
    assert rights.spec(ANN, "u", POLICY) == rights.spec(ANN, "u", again)


def test_the_object_is_whole() -> None:
    found = json.loads(rights.document(ANN, rights.spec(ANN, "u", POLICY), 7))
    assert found["kind"] == "ServiceAccountAccess"
    assert found["metadata"] == {
        "namespace": "web",
        "name": "ann",
        "uid": rights.uid_of(ANN),
        "resourceVersion": "7",
    }
    assert found["status"] == {"nodeList": []}
