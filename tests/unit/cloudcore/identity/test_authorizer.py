"""A test per row of the authorizer's table: what is allowed, and what tries to break it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from beehive.errors import ProtocolError
from beehive.message import Group, Message, Op, Source, new
from beehive.resource import parse
from cloudcore.errors import Forbidden
from cloudcore.identity import authorizer
from cloudcore.identity.authorizer import PodFacts
from edgecore.edged.mirror import make as make_mirror
from edgecore.edged.static import make as static_pod

NODE_UID = "n-uid"


@dataclass
class View:
    pods: dict[tuple[str, str], PodFacts] = field(
        default_factory=lambda: {
            ("ns", "mine"): PodFacts(
                node="a", uid="u1", service_account="sa", tokens={"": 3607, "vault": 600}
            ),
            ("ns", "theirs"): PodFacts(node="b", uid="u2", service_account="sa", tokens={"": 3607}),
        }
    )
    held: dict[str, Any] = field(
        default_factory=lambda: {
            "metadata": {"name": "a", "uid": NODE_UID, "labels": {"kubernetes.io/os": "linux", "team": "x"}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        }
    )

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        return self.pods.get((namespace, name))

    def refers(self, node: str, kind: str, namespace: str, name: str) -> bool:
        return (node, kind, namespace, name) in {
            ("a", "secret", "ns", "key"),
            ("a", "configmap", "ns", "settings"),
            ("a", "persistentvolumeclaim", "ns", "data"),
            ("b", "secret", "ns", "theirs"),
        }

    def node_object(self, node: str) -> bytes | None:
        return json.dumps(self.held).encode() if node == "a" else None

    def device_node(self, namespace: str, name: str) -> str | None:
        return {("ns", "room"): "a", ("ns", "hall"): "b"}.get((namespace, name))


def message(operation: str, path: str, content: Any = None) -> Message:
    return new(source=Source.EDGED, group=Group.META, operation=operation, resource=path, content=content)


def allowed(operation: str, path: str, content: Any = None) -> None:
    authorizer.check("a", message(operation, path, content), parse(path), View())


def denied(operation: str, path: str, content: Any = None) -> str:
    with pytest.raises(Forbidden) as error:
        allowed(operation, path, content)
    return str(error.value)


def node(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a", **metadata}, "spec": {}}


def test_own_node() -> None:
    allowed(
        Op.INSERT,
        "null/node/a",
        node(labels={"kubernetes.io/os": "linux", "team": "y", "node-role.kubernetes.io/edge": ""}),
    )
    allowed(Op.UPDATE, "null/node/a", node(labels={"kubernetes.io/os": "linux", "team": "y"}))
    allowed(Op.QUERY, "null/node/a")
    allowed(Op.PATCH, "null/nodepatch/a", json.dumps({"status": {"phase": "x"}}))
    allowed(Op.PATCH, "null/nodepatch/a", json.dumps({"metadata": {"labels": {"team": "z"}}}))


def test_other_nodes() -> None:
    for operation in (Op.INSERT, Op.UPDATE, Op.QUERY):
        denied(operation, "null/node/b", {"metadata": {"name": "b"}})
    denied(Op.PATCH, "null/nodepatch/b", "{}")
    denied(Op.INSERT, "null/node/a", {"metadata": {"name": "b"}})
    denied(Op.DELETE, "null/node/a")


@pytest.mark.parametrize(
    "name",
    [
        "node-role.kubernetes.io/master",
        "node-role.kubernetes.io/control-plane",
        "node-restriction.kubernetes.io/x",
        "x.node-restriction.kubernetes.io/y",
        "foo.k8s.io/x",
        "kubernetes.io/anything",
    ],
)
def test_restricted_labels(name: str) -> None:
    denied(Op.INSERT, "null/node/a", node(labels={name: "x"}))
    denied(Op.UPDATE, "null/node/a", node(labels={"kubernetes.io/os": "linux", name: "x"}))
    denied(Op.PATCH, "null/nodepatch/a", json.dumps({"metadata": {"labels": {name: "x"}}}))


def test_taints_owners_and_spec() -> None:
    more = {"taints": [{"key": "k", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoExecute"}]}
    denied(
        Op.UPDATE, "null/node/a", {**node(labels={"kubernetes.io/os": "linux", "team": "x"}), "spec": more}
    )
    denied(Op.PATCH, "null/nodepatch/a", json.dumps({"spec": more}))
    denied(Op.PATCH, "null/nodepatch/a", json.dumps({"metadata": {"ownerReferences": [{"uid": "x"}]}}))
    denied(Op.PATCH, "null/nodepatch/a", json.dumps({"metadata": {"finalizers": ["x"]}}))
    denied(Op.INSERT, "null/node/a", {**node(), "spec": {"configSource": {}}})


def test_lease() -> None:
    for operation in (Op.INSERT, Op.UPDATE, Op.QUERY):
        allowed(operation, "kube-node-lease/lease/a", {"metadata": {"name": "a"}})
        denied(operation, "kube-node-lease/lease/b", {"metadata": {"name": "b"}})
        denied(operation, "kube-system/lease/a", {"metadata": {"name": "a"}})
    denied(Op.UPDATE, "kube-node-lease/lease/a", {"metadata": {"name": "b"}})


def test_named_secrets_and_configmaps_only() -> None:
    allowed(Op.QUERY, "ns/secret/key")
    allowed(Op.QUERY, "ns/configmap/settings")
    allowed(Op.QUERY, "ns/persistentvolumeclaim/data")
    for path in ("ns/secret/theirs", "ns/secret/other", "other/secret/key", "ns/configmap/key", "ns/secret"):
        denied(Op.QUERY, path)
    for operation in (Op.INSERT, Op.UPDATE, Op.PATCH, Op.DELETE):
        denied(operation, "ns/secret/key", {})


def test_path_tricks_are_no_paths() -> None:
    for path in ("ns/secret/../key", "ns/secret/..", "/secret/key", "ns%2fx/secret/key", "ns/secret/a/b"):
        with pytest.raises(ProtocolError):
            parse(path)


def token(**spec: Any) -> dict[str, Any]:
    return {"spec": {"boundObjectRef": {"kind": "Pod", "name": "mine", "uid": "u1"}, **spec}}


def test_tokens() -> None:
    path = "ns/serviceaccounttoken/sa"
    allowed(Op.QUERY, path, token(expirationSeconds=3607))
    allowed(Op.QUERY, path, token(audiences=["vault"], expirationSeconds=600))
    denied(Op.QUERY, path, {"spec": {}})
    denied(Op.QUERY, path, token(boundObjectRef={"kind": "Pod", "name": "mine", "uid": ""}))
    denied(Op.QUERY, path, token(boundObjectRef={"kind": "Pod", "name": "mine", "uid": "stale"}))
    denied(Op.QUERY, path, token(boundObjectRef={"kind": "Pod", "name": "theirs", "uid": "u2"}))
    denied(Op.QUERY, path, token(boundObjectRef={"kind": "Secret", "name": "mine", "uid": "u1"}))
    denied(Op.QUERY, "ns/serviceaccounttoken/admin", token())
    denied(Op.QUERY, path, token(audiences=["elsewhere"]))
    denied(Op.QUERY, path, token(expirationSeconds=10 * 365 * 86400))


def test_pods() -> None:
    for path in ("ns/pod/mine", "ns/pod/absent"):
        allowed(Op.DELETE, path)
    denied(Op.DELETE, "ns/pod/theirs")
    denied(Op.DELETE, "ns/pod")
    denied(Op.QUERY, "ns/pod/mine")
    denied(Op.UPDATE, "ns/pod/mine", {})


def test_pod_statuses() -> None:
    patch = {"metadata": {"uid": "u1"}, "status": {"phase": "Running"}}
    allowed(Op.PATCH, "ns/podpatch/mine", json.dumps(patch))
    allowed(Op.UPDATE, "ns/podstatus/mine", {"UID": "u1", "Name": "mine", "Status": {}})
    denied(Op.PATCH, "ns/podpatch/theirs", json.dumps(patch))
    denied(Op.UPDATE, "ns/podstatus/theirs", {})
    denied(Op.PATCH, "ns/podpatch/mine", json.dumps({"metadata": {"labels": {"x": "y"}}}))
    denied(Op.PATCH, "ns/podpatch/mine", json.dumps({"metadata": {"ownerReferences": []}}))
    denied(Op.PATCH, "ns/podpatch/mine", json.dumps({"spec": {"containers": []}}))
    for bad in ("[]", "null", "{", "{" * 100_000):
        with pytest.raises(ProtocolError):
            allowed(Op.PATCH, "ns/podpatch/mine", bad)


def mirror(meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": NODE_UID, "controller": True}
    base = {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner]}
    return {
        "metadata": {**base, **(meta or {})},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}], **spec},
    }


def test_mirror_pods_only() -> None:
    allowed(Op.INSERT, "ns/pod/static", mirror())
    owner = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "stale", "controller": True}
    metas: tuple[dict[str, Any], ...] = (
        {"annotations": {}},
        {"ownerReferences": []},
        {"ownerReferences": [owner]},
        {"name": "other"},
    )
    for meta in metas:
        denied(Op.INSERT, "ns/pod/static", mirror(meta))
    specs: list[dict[str, Any]] = [
        {"nodeName": "b"},
        {"serviceAccountName": "sa"},
        {"resourceClaims": [{"name": "x"}]},
        {"imagePullSecrets": [{"name": "x"}]},
        {"volumes": [{"name": "v", "secret": {"secretName": "x"}}]},
        {"volumes": [{"name": "v", "configMap": {"name": "x"}}]},
        {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}]},
        {"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "x"}}]}]},
        {
            "containers": [
                {"name": "c", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "x"}}}]}
            ]
        },
    ]
    for spec in specs:
        denied(Op.INSERT, "ns/pod/static", mirror(**spec))


def test_what_an_edge_makes_of_its_static_pods_is_allowed() -> None:
    text = json.dumps({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}})
    static = static_pod(text.encode(), node_name="a", is_json=True)
    allowed(Op.INSERT, "default/pod/p-a", json.loads(make_mirror(static, node_name="a", node_uid=NODE_UID)))


def event(**parts: Any) -> dict[str, Any]:
    return {"metadata": {"name": "e", "namespace": "ns"}, "source": {"host": "a"}, **parts}


def test_events() -> None:
    about_pod = {"kind": "Pod", "namespace": "ns", "name": "mine"}
    for about in (
        about_pod,
        {"kind": "Node", "name": "a"},
        {"kind": "Device", "namespace": "ns", "name": "room"},
    ):
        for operation in (Op.INSERT, Op.UPDATE):
            allowed(operation, "ns/event/e", event(involvedObject=about))
    allowed(Op.PATCH, "ns/event/e", {"event": event(involvedObject=about_pod), "patchData": '{"count":2}'})
    denied(Op.INSERT, "ns/event/e", event(involvedObject=about_pod, source={"host": "b"}))
    denied(Op.INSERT, "ns/event/e", event(involvedObject=about_pod, reportingInstance="b"))
    denied(Op.INSERT, "ns/event/other", event(involvedObject=about_pod))
    denied(Op.INSERT, "other/event/e", event(involvedObject=about_pod))
    for about in (
        {"kind": "Pod", "namespace": "ns", "name": "theirs"},
        {"kind": "Node", "name": "b"},
        {"kind": "Device", "namespace": "ns", "name": "hall"},
        {"kind": "Secret", "namespace": "ns", "name": "key"},
        {},
    ):
        denied(Op.INSERT, "ns/event/e", event(involvedObject=about))
        denied(Op.PATCH, "ns/event/e", {"event": event(involvedObject=about), "patchData": "{}"})
    denied(
        Op.PATCH,
        "ns/event/e",
        {"event": event(involvedObject=about_pod), "patchData": '{"involvedObject":{"name":"theirs"}}'},
    )


def csr(name: str, group: str = "system:nodes") -> str:
    from tests.fakes.edge import csr as make
    from tests.fakes.edge import new_key

    return base64.b64encode(make(new_key(), name, group).encode()).decode()


def test_certificate_requests() -> None:
    path = "default/certificatesigningrequest/metaserver-csr-a"
    signer = "kubernetes.io/kubelet-serving"
    allowed(Op.QUERY, path)
    allowed(Op.INSERT, path, {"spec": {"signerName": signer, "request": csr("system:node:a")}})
    denied(Op.INSERT, path, {"spec": {"signerName": signer, "request": csr("system:node:b")}})
    denied(
        Op.INSERT, path, {"spec": {"signerName": signer, "request": csr("system:node:a", "system:masters")}}
    )
    denied(Op.INSERT, path, {"spec": {"signerName": "example.com/any", "request": csr("system:node:a")}})
    denied(Op.QUERY, "default/certificatesigningrequest/metaserver-csr-b")
    with pytest.raises(ProtocolError):
        allowed(Op.INSERT, path, {"spec": {"signerName": signer, "request": "!"}})


def test_volumes_are_judged_as_read() -> None:
    view = View()
    authorizer.check_volume("a", b'{"spec":{"claimRef":{"namespace":"ns","name":"data"}}}', view)
    authorizer.check_attachment("a", b'{"spec":{"nodeName":"a"}}')
    for raw in (b'{"spec":{"claimRef":{"namespace":"ns","name":"other"}}}', b'{"spec":{}}', b"{}"):
        with pytest.raises(Forbidden):
            authorizer.check_volume("a", raw, view)
        with pytest.raises(Forbidden):
            authorizer.check_attachment("a", raw)
    denied(Op.QUERY, "null/persistentvolume")


@pytest.mark.parametrize("kind", ["runtimeclass", "csidriver"])
def test_what_all_nodes_run_pods_by_is_read_by_name(kind: str) -> None:
    allowed(Op.QUERY, f"null/{kind}/fast")
    denied(Op.QUERY, f"null/{kind}")
    for operation in (Op.INSERT, Op.UPDATE, Op.PATCH, Op.DELETE):
        denied(operation, f"null/{kind}/fast")


def test_what_storage_a_node_has_is_its_own_to_say() -> None:
    drivers = [{"name": "d", "nodeID": "n"}]
    allowed(Op.UPDATE, "null/csinode/a", {"metadata": {"name": "a"}, "spec": {"drivers": drivers}})
    allowed(Op.UPDATE, "null/csinode/a", {"spec": {"drivers": []}})
    for path in ("null/csinode/b", "null/csinode"):
        denied(Op.UPDATE, path, {"spec": {"drivers": drivers}})
    for content in (
        {"metadata": {"name": "b"}, "spec": {"drivers": drivers}},
        {"metadata": {"name": "a", "ownerReferences": []}, "spec": {"drivers": drivers}},
        {"metadata": {"name": "a", "labels": {"x": "y"}}},
        {"spec": {"drivers": drivers, "more": 1}},
        {"spec": {"drivers": drivers * 65}},
        {"spec": {"drivers": {"a": 1}}},
        {"status": {}},
    ):
        denied(Op.UPDATE, "null/csinode/a", content)
    for operation in (Op.INSERT, Op.PATCH, Op.DELETE, Op.QUERY):
        denied(operation, "null/csinode/a", {"spec": {"drivers": drivers}})


def test_devices() -> None:
    authorizer.check_device("a", "ns", "room", View())
    for name in ("hall", "absent"):
        with pytest.raises(Forbidden):
            authorizer.check_device("a", "ns", name, View())


@pytest.mark.parametrize(
    "kind", ["device", "devicemodel", "service", "clusterrole", "namespace", "rule", "pods"]
)
def test_everything_else_is_denied(kind: str) -> None:
    for operation in (Op.INSERT, Op.UPDATE, Op.PATCH, Op.DELETE, Op.QUERY, "createvolume", ""):
        denied(operation, f"ns/{kind}/x", {})


def test_a_claim_that_grew() -> None:
    said = {"metadata": {"uid": "u1"}}
    allowed(Op.UPDATE, "ns/claimstatus/data", said)
    denied(Op.UPDATE, "ns/claimstatus/other", said)
    denied(Op.UPDATE, "other/claimstatus/data", said)
    denied(Op.PATCH, "ns/claimstatus/data", said)
    for more in (
        {},
        {**said, "status": {"capacity": {"storage": "9Ti"}}},
        {"metadata": {"uid": "u1", "labels": {}}},
    ):
        denied(Op.UPDATE, "ns/claimstatus/data", more)
