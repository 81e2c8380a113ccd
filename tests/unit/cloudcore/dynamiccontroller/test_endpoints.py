"""Endpoints as an edge sees them."""

import json
from typing import Any

from beehive.application import Target
from cloudcore.dynamiccontroller import endpoints


def piece(service: str, *nodes: str, namespace: str = "default") -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{service}-x",
            "namespace": namespace,
            "labels": {endpoints.SERVICE_LABEL: service},
        },
        "endpoints": [{"addresses": [f"10.0.0.{n}"], "nodeName": node} for n, node in enumerate(nodes)],
        "ports": [{"name": "http", "port": 80}],
    }


def everybody(namespace: str, name: str) -> frozenset[str] | None:
    return None


def rewritten(
    found: dict[str, Any], members: endpoints.Members = everybody, *, stock: bool = True
) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(endpoints.rewrite(json.dumps(found).encode(), members, stock=stock))
    return out


def test_the_api_server_is_beside_the_pod() -> None:
    out = rewritten({"metadata": {"name": "kubernetes", "namespace": "default"}, "endpoints": []})
    assert out["endpoints"][0]["addresses"] == ["127.0.0.1"]
    assert out["ports"] == [{"name": "https", "port": 10550, "protocol": "TCP"}]
    untouched = {"metadata": {"name": "kubernetes", "namespace": "default"}, "endpoints": []}
    assert rewritten(untouched, stock=False) == untouched
    old = rewritten({"metadata": {"name": "kubernetes", "namespace": "default"}, "subsets": []})
    assert old["subsets"][0]["addresses"] == [{"ip": "127.0.0.1"}]


def test_in_a_list_only_that_one_is_changed() -> None:
    web, api = piece("web", "a"), piece("kubernetes", "m")
    out = rewritten({"items": [web, api, piece("kubernetes", "a", namespace="other")]})
    assert out["items"][0] == web
    assert out["items"][1]["endpoints"][0]["addresses"] == ["127.0.0.1"]
    assert out["items"][2]["endpoints"][0]["addresses"] == ["10.0.0.0"]


def test_a_service_of_the_group_keeps_to_the_group() -> None:
    out = rewritten(piece("web", "a", "b", "c"), lambda ns, name: frozenset({"a", "c"}))
    assert [item["nodeName"] for item in out["endpoints"]] == ["a", "c"]


def test_nothing_to_do_is_the_same_bytes() -> None:
    body = b'{ "metadata": {"name":"x"} }'
    assert endpoints.rewrite(body, everybody, stock=True) is body
    assert endpoints.rewrite(b"{", everybody, stock=True) == b"{"


def test_only_endpoints_are_looked_into() -> None:
    assert endpoints.concerns(Target(group="discovery.k8s.io", version="v1", resource="endpointslices"))
    assert endpoints.concerns(Target(group="", version="v1", resource="endpoints"))
    assert not endpoints.concerns(Target(group="", version="v1", resource="pods"))
