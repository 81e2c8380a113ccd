"""RBAC rules, as Kubernetes judges them."""

import msgspec
import pytest

from beehive import rbac
from beehive.rbac import Attributes, Rule, ServiceAccountAccess, User

ANN = rbac.service_account_user("web", "ann")


def rule(**more: object) -> Rule:
    return msgspec.convert(more, Rule)


READ_PODS = rule(verbs=["get", "list"], apiGroups=[""], resources=["pods"])


@pytest.mark.parametrize(
    ("given", "asked", "allowed"),
    [
        (READ_PODS, Attributes(verb="get", resource="pods", name="a"), True),
        (READ_PODS, Attributes(verb="delete", resource="pods", name="a"), False),
        (READ_PODS, Attributes(verb="get", resource="secrets"), False),
        (READ_PODS, Attributes(verb="get", resource="pods", group="apps"), False),
        (READ_PODS, Attributes(verb="get", resource="pods", subresource="log"), False),
        (rule(verbs=["*"], apiGroups=["*"], resources=["*"]), Attributes(verb="x", group="g", resource="r"), True),
        (rule(verbs=["*"], apiGroups=["*"], resources=["*"]), Attributes(verb="get", path="/version"), False),
        (rule(verbs=["get"], apiGroups=[""], resources=["pods/log"]),
         Attributes(verb="get", resource="pods", subresource="log"), True),
        (rule(verbs=["get"], apiGroups=[""], resources=["*/log"]),
         Attributes(verb="get", resource="pods", subresource="log"), True),
        (rule(verbs=["get"], apiGroups=[""], resources=["*/log"]), Attributes(verb="get", resource="pods"), False),
        (rule(verbs=["get"], apiGroups=[""], resources=["cm"], resourceNames=["a"]),
         Attributes(verb="get", resource="cm", name="a"), True),
        (rule(verbs=["get"], apiGroups=[""], resources=["cm"], resourceNames=["a"]),
         Attributes(verb="get", resource="cm", name="b"), False),
        (rule(verbs=["list"], apiGroups=[""], resources=["cm"], resourceNames=["a"]),
         Attributes(verb="list", resource="cm"), False),
        (rule(verbs=["get"], nonResourceURLs=["/api/*"]), Attributes(verb="get", path="/api/v1"), True),
        (rule(verbs=["get"], nonResourceURLs=["/api/*"]), Attributes(verb="get", path="/apis"), False),
        (rule(verbs=["get"], nonResourceURLs=["*"]), Attributes(verb="get", path="/x"), True),
        (rule(verbs=["get"], nonResourceURLs=["*"]), Attributes(verb="get", resource="pods"), False),
        (rule(verbs=["get"]), Attributes(verb="get", resource="pods"), False),
    ],
)  # fmt: skip
def test_one_rule(given: Rule, asked: Attributes, *, allowed: bool) -> None:
    assert rbac.allows(given, asked) is allowed


@pytest.mark.parametrize(
    ("subject", "namespace", "is_ann"),
    [
        ({"kind": "ServiceAccount", "name": "ann", "namespace": "web"}, "", True),
        ({"kind": "ServiceAccount", "name": "ann", "namespace": "other"}, "web", False),
        ({"kind": "ServiceAccount", "name": "ann"}, "web", True),
        ({"kind": "ServiceAccount", "name": "ann"}, "", False),
        ({"kind": "User", "name": "system:serviceaccount:web:ann"}, "", True),
        ({"kind": "User", "name": "ann"}, "", False),
        ({"kind": "Group", "name": "system:serviceaccounts:web"}, "", True),
        ({"kind": "Group", "name": "system:serviceaccounts:other"}, "", False),
        ({"kind": "Group", "name": "system:authenticated"}, "", True),
        ({"kind": "Robot", "name": "ann"}, "", False),
    ],
)
def test_who_a_binding_means(subject: dict, namespace: str, *, is_ann: bool) -> None:
    assert rbac.binds([msgspec.convert(subject, rbac.Subject)], ANN, namespace) is is_ann


ACCESS = msgspec.json.decode(
    b"""{"apiVersion":"policy.kubeedge.io/v1alpha1","kind":"ServiceAccountAccess",
  "metadata":{"name":"ann","namespace":"web"},
  "spec":{"serviceAccount":{"metadata":{"name":"ann","namespace":"web"}},"serviceAccountUid":"u1",
   "accessRoleBinding":[{"roleBinding":{"metadata":{"name":"b","namespace":"web"},
      "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},
      "subjects":[{"kind":"ServiceAccount","name":"ann","namespace":"web"}]},
     "rules":[{"verbs":["get","list","watch"],"apiGroups":[""],"resources":["pods"]}]}],
   "accessClusterRoleBinding":[{"clusterRoleBinding":{"metadata":{"name":"c"},
      "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cr"},
      "subjects":[{"kind":"ServiceAccount","name":"ann","namespace":"web"}]},
     "rules":[{"verbs":["get"],"apiGroups":[""],"resources":["nodes"]}]}]}}""",
    type=ServiceAccountAccess,
)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (Attributes(verb="list", resource="pods", namespace="web"), True),
        (Attributes(verb="list", resource="pods", namespace="other"), False),
        (Attributes(verb="list", resource="pods"), False),
        (Attributes(verb="get", resource="nodes", name="n"), True),
        (Attributes(verb="list", resource="nodes"), False),
        (Attributes(verb="get", path="/metrics"), False),
    ],
)
def test_an_accounts_access(asked: Attributes, *, allowed: bool) -> None:
    assert rbac.granted(ACCESS, ANN, asked) is allowed


def test_another_user_gets_nothing_from_it() -> None:
    asked = Attributes(verb="list", resource="pods", namespace="web")
    assert not rbac.granted(ACCESS, User(name="system:serviceaccount:web:bob"), asked)
