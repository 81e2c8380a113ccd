"""What a whole pod asks for."""

from __future__ import annotations

from edgecore.edged.quantity import NANO, milli
from edgecore.edged.resources import pod_limit, pod_requests
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
