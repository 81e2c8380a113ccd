"""What pods of the API ask for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cloudcore.standalone import defaults, podresources

Json = dict[str, Any]
BOTH = {"cpu": "1", "memory": "1Gi"}


def asks(cpu: str, **fields: Any) -> Json:
    return {"resources": {"requests": {"cpu": cpu}}, **fields}


def test_containers_add_up_and_init_containers_count_where_they_are_more() -> None:
    spec = {
        "containers": [asks("1"), asks("500m")],
        "initContainers": [asks("1", restartPolicy="Always"), asks("2")],
        "overhead": {"cpu": "100m", "memory": "1"},
    }
    assert podresources.total(spec, "requests") == {"cpu": Decimal(3)}
    assert podresources.total(spec, "requests", overhead=True) == {
        "cpu": Decimal("3.1"),
        "memory": Decimal(1),
    }
    assert podresources.total(spec, "limits", overhead=True) == {}


def test_what_a_pod_says_of_itself_counts_before_its_containers() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "1", "x/y": "1"}}}],
        "resources": {"requests": {"cpu": "2"}},
    }
    assert podresources.total(spec, "requests") == {"cpu": Decimal(2), "x/y": Decimal(1)}
    assert podresources.whole(spec)
    assert not podresources.whole({**spec, "resources": {}})


@pytest.mark.parametrize(
    ("spec", "qos"),
    [
        ({"containers": [{}]}, "BestEffort"),
        ({"containers": [{"resources": {"limits": BOTH, "requests": {"cpu": "1000m"}}}]}, "Guaranteed"),
        ({"containers": [{"resources": {"limits": BOTH}}, {}]}, "Burstable"),
        ({"containers": [{"resources": {"requests": {"cpu": "0"}}}]}, "BestEffort"),
        ({"containers": [{}], "resources": {"limits": BOTH, "requests": BOTH}}, "Guaranteed"),
        (
            {"containers": [{"resources": {"limits": BOTH}}], "resources": {"limits": {"cpu": "2"}}},
            "Burstable",
        ),
    ],
)
def test_the_class_of_a_pod(spec: Json, qos: str) -> None:
    assert podresources.qos_class(spec) == qos


def test_a_pod_with_limits_asks_for_what_its_containers_do_or_for_them() -> None:
    body = {
        "spec": {
            "containers": [asks("1500m"), asks("500m")],
            "resources": {"limits": {"cpu": "4", "memory": "64Mi"}},
        }
    }
    defaults.apply(("", "pods"), body)
    assert body["spec"]["resources"]["requests"] == {"cpu": "2", "memory": "64Mi"}
    bare = {"spec": {"containers": [asks("1")], "resources": {"requests": {"memory": "1Mi"}}}}
    defaults.apply(("", "pods"), bare)
    assert bare["spec"]["resources"] == {"requests": {"memory": "1Mi"}}
