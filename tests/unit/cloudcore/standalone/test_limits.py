from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudcore.standalone import defaults, limits

Json = dict[str, Any]


def ranged(**item: Any) -> Json:
    body = {"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", **item}]}}
    defaults.apply(("", "limitranges"), body)
    return body


def pod(*resources: Json, **spec: Any) -> Json:
    containers = [{"name": f"c{n}", "resources": copy.deepcopy(item)} for n, item in enumerate(resources)]
    return {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": containers, **spec}}


def quota(hard: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard, **spec}}


def test_a_range_fills_in_what_it_leaves_out() -> None:
    (item,) = ranged(max={"cpu": "2"}, min={"memory": "1Mi"})["spec"]["limits"]
    assert item["default"] == {"cpu": "2"}
    assert item["defaultRequest"] == {"cpu": "2", "memory": "1Mi"}


def test_containers_get_what_they_leave_out() -> None:
    body = pod({}, {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}})
    limits.default_pod(body, [ranged(default={"cpu": "500m"}, defaultRequest={"cpu": "100m"})])
    first, second = body["spec"]["containers"]
    assert first["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    assert second["resources"]["requests"] == {"cpu": "1"}
    assert body["metadata"]["annotations"][limits.LIMIT_NOTE] == (
        "LimitRanger plugin set: cpu request for container c0; cpu limit for container c0"
    )


@pytest.mark.parametrize(
    ("item", "resources", "text"),
    [
        (
            {"min": {"cpu": "100m"}},
            {"requests": {"cpu": "50m"}},
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            {"max": {"memory": "1Gi"}},
            {"limits": {"memory": "2Gi"}},
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
        ({"max": {"memory": "1Gi"}}, {}, "maximum memory usage per Container is 1Gi.  No limit is specified"),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
    ],
)
def test_what_a_range_forbids(item: Json, resources: Json, text: str) -> None:
    assert limits.range_faults(limits.PODS, pod(resources), [ranged(**item)]) == [text]
    assert limits.range_faults(("", "secrets"), {"metadata": {}}, [ranged(**item)]) == []


def test_ranges_of_pods_and_claims() -> None:
    whole = {"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}
    two = pod({"limits": {"cpu": "600m"}}, {"limits": {"cpu": "600m"}})
    assert limits.range_faults(limits.PODS, two, [whole]) == [
        "maximum cpu usage per Pod is 1, but limit is 1200m"
    ]
    stored = {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}
    claim = {"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    assert limits.range_faults(limits.CLAIMS, claim, [{"spec": {"limits": [stored]}}]) == [
        "maximum storage usage per PersistentVolumeClaim is 1Gi, but limit is 2Gi"
    ]


def test_what_is_used() -> None:
    asks = {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1"}}
    ended = {**pod(asks), "status": {"phase": "Succeeded"}}
    objects = [(limits.PODS, pod(asks)), (limits.PODS, pod(asks, asks)), (limits.PODS, ended)]
    hard = {
        "pods": "9",
        "requests.cpu": "9",
        "memory": "9Gi",
        "limits.cpu": "9",
        "count/pods": "9",
        "secrets": "1",
    }
    assert limits.used(quota(hard), objects) == {
        "pods": "2",
        "requests.cpu": "750m",
        "memory": "192Mi",
        "limits.cpu": "3",
        "count/pods": "3",
        "secrets": "0",
    }


def test_claims_services_and_counted_kinds() -> None:
    claim = {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "3Gi"}}}}
    service = {"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}
    hard = dict.fromkeys(
        (
            "requests.storage",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims",
            "services.nodeports",
            "services.loadbalancers",
            "count/deployments.apps",
            "configmaps",
        ),
        "9",
    )
    objects = [
        (limits.CLAIMS, claim),
        (limits.SERVICES, service),
        (("apps", "deployments"), {}),
        (("", "configmaps"), {}),
    ]
    assert list(limits.used(quota(hard), objects).values()) == ["3Gi", "1", "2", "1", "1", "1"]
    for key, _ in objects:
        assert limits.concerned(key, hard)
    assert not limits.concerned(("", "secrets"), hard)


def test_what_a_quota_forbids() -> None:
    asks = {"requests": {"cpu": "1"}}
    body = quota({"pods": "2", "requests.cpu": "2"})
    assert limits.quota_fault(body, limits.PODS, pod(asks), {"pods": "1", "requests.cpu": "1"}) == ""
    assert limits.quota_fault(body, limits.PODS, pod(asks), {"pods": "2", "requests.cpu": "1500m"}) == (
        "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=1500m, "
        "limited: pods=2,requests.cpu=2"
    )
    assert limits.quota_fault(body, limits.PODS, pod({}), {}) == (
        "failed quota: q: must specify requests.cpu for: c0"
    )


def test_growing_is_counted_from_what_was_there() -> None:
    def claim(size: str) -> Json:
        return {"spec": {"resources": {"requests": {"storage": size}}}}

    body = quota({"requests.storage": "5Gi"})
    have = {"requests.storage": "4Gi"}
    assert limits.quota_fault(body, limits.CLAIMS, claim("5Gi"), have, claim("4Gi")) == ""
    assert "requested: requests.storage=2Gi" in limits.quota_fault(
        body, limits.CLAIMS, claim("6Gi"), have, claim("4Gi")
    )


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"scopes": ["BestEffort"]}, pod({}), pod({"requests": {"cpu": "1"}})),
        ({"scopes": ["Terminating"]}, pod({}, activeDeadlineSeconds=1), pod({})),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
                }
            },
            pod({}, priorityClassName="high"),
            pod({}),
        ),
    ],
)
def test_scopes(scope: Json, inside: Json, outside: Json) -> None:
    body = quota({"pods": "0"}, **scope)
    assert limits.quota_fault(body, limits.PODS, inside, {}) != ""
    assert limits.quota_fault(body, limits.PODS, outside, {}) == ""
    assert not limits.in_scope(body, limits.SERVICES, {})
