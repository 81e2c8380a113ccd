from __future__ import annotations

from typing import Any

from cloudcore.standalone.export import manifests
from cloudcore.standalone.kinds import Kind, Registry

REGISTRY = Registry.core()


def thing(kind: str, name: str, namespace: str = "ns", **more: Any) -> tuple[Kind, dict[str, Any]]:
    row = next(row for row in REGISTRY if row.kind == kind and not row.views)
    metadata = {
        "name": name,
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{}],
        **more.pop("metadata", {}),
    }
    if row.namespaced:
        metadata["namespace"] = namespace
    return row, {"kind": kind, "apiVersion": row.api_version, "metadata": metadata, **more}


def exported(*objects: tuple[Kind, dict[str, Any]]) -> dict[str, Any]:
    return {f"{item.body['kind']}/{item.body['metadata']['name']}": item.body for item in manifests(objects)}


def test_what_people_made_is_there_and_the_rest_is_not() -> None:
    child = {"ownerReferences": [{"controller": True, "uid": "x"}]}
    found = exported(
        thing("Deployment", "web", spec={}),
        thing("ReplicaSet", "web-1", metadata=child),
        thing("Pod", "web-1-x", metadata=child, spec={}),
        thing("Namespace", "mine", spec={"finalizers": ["kubernetes"]}),
        thing("Namespace", "kube-system"),
        thing("Namespace", "kubeedge"),
        thing("Secret", "casecret", "kubeedge"),
        thing("Secret", "mine"),
        thing("ServiceAccount", "default"),
        thing("ConfigMap", "kube-root-ca.crt"),
        thing("ClusterRole", "admin", metadata={"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}),
        thing(
            "Endpoints",
            "web",
            metadata={"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}},
        ),
        thing("Endpoints", "outside"),
        thing("Node", "n1"),
        thing("Event", "e"),
        thing("Lease", "l"),
        thing("Service", "kubernetes", "default", spec={}),
        thing("ConfigMap", "going", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    )
    assert sorted(found) == ["Deployment/web", "Endpoints/outside", "Namespace/mine", "Secret/mine"]
    assert found["Deployment/web"]["metadata"] == {"name": "web", "namespace": "ns"}
    assert "spec" not in found["Namespace/mine"]


def test_what_a_server_added_is_taken_away() -> None:
    mount = {"name": "kube-api-access-abcde", "mountPath": "/var/run"}
    spec = {
        "nodeName": "n1",
        "priority": 0,
        "containers": [{"name": "c", "volumeMounts": [mount, {"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "kube-api-access-abcde", "projected": {}}, {"name": "v", "emptyDir": {}}],
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
            {"key": "mine", "operator": "Exists"},
        ],
    }
    job_labels = {"controller-uid": "u", "job-name": "j", "app": "a"}
    job = {
        "selector": {"matchLabels": {"controller-uid": "u"}},
        "template": {"metadata": {"labels": dict(job_labels)}},
    }
    found = exported(
        thing("Pod", "p", spec=spec, status={"phase": "Running"}),
        thing("Service", "s", spec={"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": []}),
        thing("Service", "bare", spec={"clusterIP": "None"}),
        thing("Job", "j", metadata={"labels": dict(job_labels)}, spec=job),
    )
    assert found["Pod/p"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "mine", "operator": "Exists"}],
        },
    }
    assert found["Service/s"]["spec"] == {"ports": []}
    assert found["Service/bare"]["spec"] == {"clusterIP": "None"}
    assert found["Job/j"]["spec"] == {"template": {"metadata": {"labels": {"app": "a"}}}}
    assert found["Job/j"]["metadata"]["labels"] == {"app": "a"}


def test_files_are_in_the_order_of_need_and_have_safe_names() -> None:
    names = [
        item.file_name
        for item in manifests(
            [
                thing("Deployment", "web", spec={}),
                thing("ClusterRole", "a:b"),
                thing("Secret", "s"),
                thing("CustomResourceDefinition", "w.example"),
                thing("Namespace", "ns"),
            ]
        )
    ]
    assert names == [
        "0-cluster-namespaces-ns.yaml",
        "1-cluster-customresourcedefinitions.apiextensions.k8s.io-w.example.yaml",
        "2-cluster-clusterroles.rbac.authorization.k8s.io-a_b.yaml",
        "3-ns-secrets-s.yaml",
        "6-ns-deployments.apps-web.yaml",
    ]
