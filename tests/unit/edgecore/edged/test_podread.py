from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.edged.errors import BadPod
from edgecore.edged.podread import decode_key, decode_pod
from edgecore.edged.resources import qos_class
from tests.unit.edgecore.edged.builders import c, make, raw

VECTORS = Path(__file__).parents[3] / "vectors" / "apiserver" / "pods.jsonl"


def test_pods_of_a_real_api_server_are_read() -> None:
    read = 0
    for line in VECTORS.read_text().splitlines():
        body = json.loads(line)["response"]["body"]
        if body.get("kind") == "Pod":
            pod = decode_pod(json.dumps(body).encode())
            assert pod.uid == body["metadata"]["uid"]
            assert qos_class(pod) == body["status"]["qosClass"]
            read += 1
    assert read > 5


def test_null_is_absence() -> None:
    pod = decode_pod(
        b'{"metadata":{"name":"p","uid":"u","labels":null},"spec":{"containers":[{"name":"c","env":null}]}}'
    )
    assert pod.metadata.labels == {}
    assert pod.namespace == "default"


@pytest.mark.parametrize(
    ("meta", "spec", "says"),
    [
        ({"name": "../x"}, {}, "metadata.name"),
        ({"name": "a" * 254}, {}, "metadata.name"),
        ({"name": "p\u0430"}, {}, "metadata.name"),
        ({"name": "p\0"}, {}, "metadata.name"),
        ({"name": "p\n"}, {}, "metadata.name"),
        ({"namespace": "a/b"}, {}, "metadata.namespace"),
        ({"uid": ".."}, {}, "metadata.uid"),
        ({"uid": "a/b"}, {}, "metadata.uid"),
        ({}, {"containers": []}, "containers is empty"),
        ({}, {"containers": [{"name": "A"}]}, "spec.containers[0].name"),
        ({}, {"containers": [c(), c()]}, "is there twice"),
        ({}, {"initContainers": [c()]}, "is there twice"),
        ({}, {"restartPolicy": "Sometimes"}, "restartPolicy"),
        ({}, {"volumes": [{"name": "v", "gitRepo": {"repository": "x"}}]}, "not supported"),
        ({}, {"volumes": [{"name": "../v", "emptyDir": {}}]}, "spec.volumes[0].name"),
        ({}, {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}, "hostPath.path"),
        ({}, {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}, "is there twice"),
        (
            {},
            {"volumes": [{"name": "v", "configMap": {"name": "x", "items": [{"key": "k", "path": "../k"}]}}]},
            "path cannot be used",
        ),
        (
            {},
            {"volumes": [{"name": "v", "configMap": {"name": "x", "items": [{"key": "k", "path": "..k"}]}}]},
            "must not start with",
        ),
        ({}, {"containers": [c(volumeMounts=[{"name": "v", "mountPath": "/v"}])]}, "no volume 'v'"),
        ({}, {"containers": [c(env=[{"name": "A=B"}])]}, "env[0].name"),
        ({}, {"containers": [c(resources={"limits": {"cpu": "lots"}})]}, "resources.limits[cpu]"),
        ({}, {"containers": [c(resources={"limits": {"cpu": "-1"}})]}, "is negative"),
        ({}, {"containers": [c(livenessProbe={})]}, "exactly one of"),
        ({}, {"containers": [c(livenessProbe={"periodSeconds": -1, "exec": {}})]}, "is negative"),
        ({}, {"containers": [c(command="sh")]}, "$.spec.containers[0].command"),
        ({}, {"containers": [c(securityContext={"runAsUser": "root "})]}, "runAsUser"),
        ({}, {"containers": [c(ports=[{"containerPort": 2**31}])]}, "ports[0] must be between"),
        ({}, {"containers": [c(volumeDevices=[{"name": "v", "devicePath": "/dev/x"}])]}, "that is a claim"),
        (
            {},
            {
                "containers": [c(volumeDevices=[{"name": "v", "devicePath": "/dev/../x"}])],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "d"}}],
            },
            "devicePath cannot be used",
        ),
        (
            {},
            {
                "containers": [
                    c(
                        volumeDevices=[{"name": "v", "devicePath": "/dev/x"}],
                        volumeMounts=[{"name": "v", "mountPath": "/v"}],
                    )
                ],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "d"}}],
            },
            "is in volumeMounts, too",
        ),
        ({}, {"containers": [c(ports=[{"containerPort": 80, "hostPort": -1}])]}, "ports[0] must be between"),
        ({}, {"containers": [c(ports=[{"containerPort": 80, "protocol": "ICMP"}])]}, "protocol"),
        ({}, {"securityContext": {"runAsUser": 2**63}}, "runAsUser must be between"),
        ({}, {"securityContext": {"fsGroup": -1}}, "fsGroup must be between"),
        ({}, {"securityContext": {"supplementalGroups": [1, 2**31]}}, "supplementalGroups must be between"),
    ],
)
def test_what_cannot_be_run_names_the_field(meta: dict[str, Any], spec: dict[str, Any], says: str) -> None:
    with pytest.raises(BadPod) as refused:
        decode_pod(raw(meta=meta, **spec))
    assert says in str(refused.value)


@pytest.mark.parametrize("path", ["/etc", "..", "a/../..", "a/../b"])
def test_sub_paths_stay_inside(path: str) -> None:
    with pytest.raises(BadPod, match="subPath"):
        make(
            c(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": path}]),
            volumes=[{"name": "v", "emptyDir": {}}],
        )


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_pod_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BadPod):
        decode_pod(data)
    with pytest.raises(BadPod):
        decode_key(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["containers", "volumes", "initContainers", "securityContext", "dnsConfig", "hostAliases"]
        ),
        _json,
    )
)
def test_any_type_anywhere_is_read_or_refused(spec: dict[str, Any]) -> None:
    with contextlib.suppress(BadPod):
        decode_pod(json.dumps({"metadata": {"name": "p", "uid": "u"}, "spec": spec}).encode())


def test_depth_and_size_are_bounded() -> None:
    for data in (b"[" * 1_000_000, b'{"metadata":' * 100_000, b'"' + b"x" * 4_000_000 + b'"'):
        with pytest.raises(BadPod):
            decode_pod(data)


def test_grace_period() -> None:
    assert make().grace_period_s == 30
    assert make(terminationGracePeriodSeconds=5).grace_period_s == 5
    assert make(terminationGracePeriodSeconds=0).grace_period_s == 1
    deleting = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7}
    assert make(terminationGracePeriodSeconds=5, meta=deleting).grace_period_s == 7


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("host:5000/a", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
        ("host:5000/a:1", "IfNotPresent"),
    ],
)
def test_the_default_pull_policy_is_the_api_servers(image: str, policy: str) -> None:
    assert make({"name": "c", "image": image}).spec.containers[0].pull_policy == policy


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}}, "Burstable"),
        ({"requests": {"memory": "1"}}, "Burstable"),
        ({"requests": {"memory": "0"}}, "BestEffort"),
        ({"limits": {"example.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_qos(resources: dict[str, Any], qos: str) -> None:
    assert qos_class(make(c(resources=resources))) == qos


def test_amounts_of_a_pod_as_a_whole_are_looked_at() -> None:
    with pytest.raises(BadPod, match=r"spec\.resources\.limits\[cpu\] is negative"):
        make(c(), resources={"limits": {"cpu": "-1"}})
