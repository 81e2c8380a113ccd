"""Which rules hold for which kind: nothing is asked twice, and a change is held to both the object and what it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudcore.standalone import defaults
from cloudcore.standalone.validation.table import on_create, on_update

TEMPLATE = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
SELECTED = {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE}
JOB = {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("", "pods"): {"spec": TEMPLATE["spec"]},
    ("apps", "deployments"): {"spec": SELECTED},
    ("apps", "replicasets"): {"spec": SELECTED},
    ("apps", "daemonsets"): {"spec": SELECTED},
    ("apps", "statefulsets"): {"spec": {**SELECTED, "serviceName": "a"}},
    ("batch", "jobs"): {"spec": JOB},
    ("batch", "cronjobs"): {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": JOB}}},
    ("", "configmaps"): {"data": {"a": "b"}},
    ("", "secrets"): {"data": {"a": "YQ=="}, "type": "Opaque"},
    ("", "services"): {"spec": {"ports": [{"port": 80}]}},
    ("", "nodes"): {"spec": {"taints": [{"key": "a/b", "effect": "NoSchedule"}]}},
    ("coordination.k8s.io", "leases"): {"spec": {"leaseDurationSeconds": 40}},
    ("rbac.authorization.k8s.io", "rolebindings"): {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}],
    },
    ("", "persistentvolumeclaims"): {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    ("autoscaling", "horizontalpodautoscalers"): {
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 3}
    },
}


def made(key: tuple[str, str], **changes: Any) -> dict[str, Any]:
    body = copy.deepcopy({"metadata": {"name": "a"}, **GOOD[key], **changes})
    defaults.apply(key, body)
    return body


def faults(key: tuple[str, str], body: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    causes = on_create(key, body) if old is None else on_update(key, body, old)
    return [cause.field for cause in causes]


@pytest.mark.parametrize("key", GOOD, ids=lambda key: key[1])
def test_what_is_right_is_taken_and_may_stay_as_it_is(key: tuple[str, str]) -> None:
    assert faults(key, made(key)) == []
    assert faults(key, made(key), made(key)) == []


@pytest.mark.parametrize(
    ("key", "changes", "fields"),
    [
        (("", "pods"), {"spec": {}}, ["spec.containers"]),
        (("apps", "deployments"), {"spec": {**SELECTED, "replicas": -1}}, ["spec.replicas"]),
        (
            ("apps", "deployments"),
            {"spec": {**SELECTED, "selector": {"matchLabels": {"app": "b"}}}},
            ["spec.template.metadata.labels"],
        ),
        (("apps", "deployments"), {"spec": {**SELECTED, "selector": {}}}, ["spec.selector"]),
        (
            ("apps", "deployments"),
            {"spec": {**SELECTED, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}},
            ["spec.strategy.rollingUpdate.maxUnavailable"],
        ),
        (
            ("apps", "deployments"),
            {"spec": {**SELECTED, "strategy": {"type": "Sideways"}}},
            ["spec.strategy.type"],
        ),
        (("batch", "jobs"), {"spec": {**JOB, "parallelism": -1}}, ["spec.parallelism"]),
        (("batch", "cronjobs"), {"spec": {"jobTemplate": {"spec": JOB}}}, ["spec.schedule"]),
        (
            ("batch", "cronjobs"),
            {"spec": {"schedule": "x", "jobTemplate": {"spec": JOB}}},
            ["spec.schedule"],
        ),
        (
            ("batch", "cronjobs"),
            {"spec": {"schedule": "* * * * *", "timeZone": "Mars/Olympus", "jobTemplate": {"spec": JOB}}},
            ["spec.timeZone"],
        ),
        (("", "configmaps"), {"data": {"a/b": ""}}, ["data[a/b]"]),
        (("", "configmaps"), {"data": {"a": "x" * (1024 * 1024 + 1)}}, ["[]"]),
        (("", "secrets"), {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, ["data[tls.key]"]),
        (("", "services"), {"spec": {}}, ["spec.ports"]),
        (("", "services"), {"spec": {"type": "ExternalName"}}, ["spec.externalName"]),
        (
            ("", "services"),
            {"spec": {"ports": [{"port": 0}]}},
            ["spec.ports[0].port", "spec.ports[0].targetPort"],
        ),
        (
            ("", "services"),
            {"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}, {"port": 3}]}},
            ["spec.ports[1].name", "spec.ports[2].name"],
        ),
        (("", "nodes"), {"spec": {"taints": [{"key": "a", "effect": "Never"}]}}, ["spec.taints[0].effect"]),
        (
            ("coordination.k8s.io", "leases"),
            {"spec": {"leaseDurationSeconds": 0}},
            ["spec.leaseDurationSeconds"],
        ),
        (
            ("rbac.authorization.k8s.io", "rolebindings"),
            {"roleRef": {"kind": "Group"}, "subjects": [{"kind": "Robot"}]},
            ["roleRef.name", "roleRef.kind", "subjects[0].kind", "subjects[0].name"],
        ),
        (("", "persistentvolumeclaims"), {"spec": {}}, ["spec.accessModes", "spec.resources[storage]"]),
        (
            ("autoscaling", "horizontalpodautoscalers"),
            {"spec": {"minReplicas": 5, "maxReplicas": 3}},
            ["spec.scaleTargetRef.kind", "spec.scaleTargetRef.name", "spec.maxReplicas"],
        ),
    ],
)
def test_each_fault_is_told_once(key: tuple[str, str], changes: dict[str, Any], fields: list[str]) -> None:
    assert faults(key, made(key, **changes)) == fields


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (("batch", "cronjobs"), {"spec": {"schedule": "x", "jobTemplate": {"spec": JOB}}}),
        (
            ("autoscaling", "horizontalpodautoscalers"),
            {"spec": {"scaleTargetRef": {"kind": "D", "name": "a"}, "minReplicas": 5, "maxReplicas": 3}},
        ),
    ],
)
def test_a_change_into_what_is_wrong_is_told_once_too(key: tuple[str, str], changes: dict[str, Any]) -> None:
    body = made(key, **changes)
    assert faults(key, body, made(key)) == faults(key, body)
    assert len(faults(key, body)) == 1


@pytest.mark.parametrize(
    ("key", "changes", "field"),
    [
        (("apps", "deployments"), {"spec": {"selector": {"matchLabels": {}}}}, "spec.selector"),
        (("apps", "statefulsets"), {"spec": {"serviceName": "b"}}, "spec"),
        (("batch", "jobs"), {"spec": {"completions": 2}}, "spec.completions"),
        (("", "secrets"), {"type": "other"}, "type"),
        (
            ("rbac.authorization.k8s.io", "rolebindings"),
            {"roleRef": {"kind": "Role", "name": "s"}},
            "roleRef",
        ),
        (("", "persistentvolumeclaims"), {"spec": {"storageClassName": "b"}}, "spec"),
    ],
)
def test_what_may_not_change(key: tuple[str, str], changes: dict[str, Any], field: str) -> None:
    old = made(key)
    body = copy.deepcopy(old)
    for name, value in changes.items():
        body[name] = {**body[name], **value} if isinstance(value, dict) and name == "spec" else value
    assert field in faults(key, body, old)


def test_what_is_immutable_stays_so() -> None:
    key = ("", "configmaps")
    old = made(key, immutable=True)
    assert faults(key, made(key, immutable=True), old) == []
    assert faults(key, made(key, immutable=True, data={"a": "c"}), old) == ["data"]
    assert faults(key, made(key), old) == ["immutable"]


def test_a_bound_claim_may_grow() -> None:
    key = ("", "persistentvolumeclaims")
    old = made(key)
    old["spec"]["volumeName"] = "v"
    grown = copy.deepcopy(old)
    grown["spec"]["resources"]["requests"]["storage"] = "2Gi"
    assert faults(key, grown, old) == []
    moved = copy.deepcopy(old)
    moved["spec"]["volumeName"] = "w"
    assert faults(key, moved, old) == ["spec"]
