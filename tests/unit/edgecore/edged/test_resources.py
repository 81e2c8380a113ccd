"""What a whole pod asks for."""

from __future__ import annotations

import pytest

from edgecore.edged.quantity import NANO, milli
from edgecore.edged.resources import pod_limit, pod_requests, qos_class
from tests.unit.edgecore.edged.builders import c, make


def res(requests: str = "", limits: str = "", **fields: object) -> dict[str, object]:
    return {
        **fields,
        "resources": {
            "requests": {"cpu": requests} if requests else {},
            "limits": {"cpu": limits} if limits else {},
        },
    }


def test_app_containers_add_up_and_a_limit_counts_as_request() -> None:
    pod = make(c("a", **res("100m", "1")), c("b", **res("", "200m")), c("d"))
    assert milli(pod_requests(pod)["cpu"]) == 300
    assert pod_limit(pod, "cpu") is None


def test_an_init_container_counts_where_it_is_more() -> None:
    init = [c("i", **res("2"))]
    assert milli(pod_requests(make(c("a", **res("100m")), initContainers=init))["cpu"]) == 2000


def test_a_sidecar_counts_beside_apps_and_beside_later_init_containers() -> None:
    init = [c("s", **res("500m", restartPolicy="Always")), c("i", **res("2"))]
    assert milli(pod_requests(make(c("a", **res("100m")), initContainers=init))["cpu"]) == 2500
    assert milli(pod_requests(make(c("a", **res("3")), initContainers=init))["cpu"]) == 3500


def test_overhead_is_added() -> None:
    pod = make(c("a", **res("1", "2")), overhead={"cpu": "250m", "memory": "1Mi"})
    assert milli(pod_requests(pod)["cpu"]) == 1250
    assert pod_requests(pod)["memory"] == 2**20 * NANO
    assert pod_limit(pod, "cpu") == 2_250 * 10**6


def whole(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None) -> dict[str, object]:
    return {"requests": requests or {}, "limits": limits or {}}


SOME = {"limits": {"cpu": "100m", "memory": "1Mi"}}


def test_what_a_pod_says_of_itself_counts_before_its_containers() -> None:
    pod = make(
        c("a", resources=SOME),
        c("b"),
        resources=whole({"cpu": "1"}, {"cpu": "2", "memory": "64Mi"}),
        overhead={"cpu": "250m"},
    )
    assert milli(pod_requests(pod)["cpu"]) == 1250
    # it says nothing of memory but a limit: then its containers ask
    assert pod_requests(pod)["memory"] == 2**20 * NANO
    assert milli(pod_limit(pod, "cpu") or 0) == 2250
    assert pod_limit(pod, "memory") == 64 * 2**20 * NANO


def test_a_limit_of_the_pod_is_what_it_asks_for_where_nobody_asks() -> None:
    pod = make(c("a"), resources=whole(limits={"memory": "64Mi", "ephemeral-storage": "1Mi"}))
    assert pod_requests(pod) == {"memory": 64 * 2**20 * NANO}
    assert pod_limit(pod, "ephemeral-storage") is None


@pytest.mark.parametrize(
    ("resources", "containers", "qos"),
    [
        (whole(limits={"cpu": "1", "memory": "1Gi"}), [{}], "Guaranteed"),
        (
            whole({"cpu": "1", "memory": "1Gi"}, {"cpu": "1000m", "memory": "1024Mi"}),
            [SOME, {}],
            "Guaranteed",
        ),
        (whole(limits={"cpu": "1", "memory": "1Gi"}), [SOME], "Burstable"),
        (whole({"cpu": "1"}), [{"limits": {"cpu": "1", "memory": "1Gi"}}], "Burstable"),
        (whole(limits={"memory": "1Gi"}), [{}], "Burstable"),
        (None, [SOME, SOME], "Guaranteed"),
        (None, [SOME, {}], "Burstable"),
        (None, [{"requests": {"memory": "0"}}], "BestEffort"),
        (None, [{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_the_class_of_a_pod(
    resources: dict[str, object] | None, containers: list[dict[str, object]], qos: str
) -> None:
    pod = make(
        *(c(f"c{n}", resources=r) for n, r in enumerate(containers)),
        **({"resources": resources} if resources is not None else {}),
    )
    assert qos_class(pod) == qos
