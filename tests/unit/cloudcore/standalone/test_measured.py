"""Measurements as metrics.k8s.io."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudcore.cloudstream.usage import NodeUsage, Usage
from cloudcore.standalone import discovery, listing, measured
from cloudcore.standalone.kinds import Registry
from cloudcore.standalone.openapi import OpenApi
from cloudcore.standalone.requests import parse_target
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Store

NODES, PODS = measured.rows()
PART = Usage(cpu_nanocores=1_500_000, memory_bytes=3 * 1024 * 1024, window_s=15.007)


def web(name: str = "web", node: str = "edge-1", phase: str = "Running") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"phase": phase},
    }


def used(**more: Any) -> dict[str, NodeUsage]:
    pods = {("default", name): {"c": PART, "forged": PART} for name in ("web", "other", "done")}
    return {"edge-1": NodeUsage(at=1_000_000_000.0, node=PART, pods=pods, **more)}


def using(path: Path, story: Callable[[Store], None]) -> None:
    async def main() -> None:
        store = Store(path, fields=lambda key, value: {})
        store.open()
        store.start()
        try:
            node = {"metadata": {"name": "edge-1", "uid": "n", "labels": {"zone": "a"}}}
            dark = {"metadata": {"name": "edge-2", "uid": "m"}}
            writes = [store.put(("", "nodes"), "", f"edge-{n}", item) for n, item in ((1, node), (2, dark))]
            for pod in (web(), web("other", node="edge-2"), web("done", phase="Succeeded")):
                writes.append(store.put(("", "pods"), "default", pod["metadata"]["name"], pod))
            for _, done in writes:
                await done
            story(store)
        finally:
            await store.stop()

    asyncio.run(main())


def listed(store: Store, path: str, usage: dict[str, NodeUsage], **query: str) -> list[dict[str, Any]]:
    target = parse_target("GET", f"/apis/metrics.k8s.io/v1beta1/{path}", query)
    assert target is not None
    kind = NODES if target.plural == "nodes" else PODS
    body = measured.listed(kind, store, listing.parse_query(kind, target, query, watch=False), usage)
    assert (body["kind"], body["apiVersion"]) == (f"{kind.kind}List", "metrics.k8s.io/v1beta1")
    items: list[dict[str, Any]] = body["items"]
    return items


def test_a_node_is_believed_about_itself_and_its_own_running_pods(tmp_path: Path) -> None:
    def story(store: Store) -> None:
        assert listed(store, "nodes", used()) == [
            {
                "kind": "NodeMetrics",
                "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {
                    "name": "edge-1",
                    "creationTimestamp": "2001-09-09T01:46:40Z",
                    "labels": {"zone": "a"},
                },
                "timestamp": "2001-09-09T01:46:40Z",
                "window": "15.007s",
                "usage": {"cpu": "1500000n", "memory": "3072Ki"},
            }
        ]
        (pod,) = listed(store, "pods", used())
        assert (pod["metadata"]["namespace"], pod["metadata"]["name"]) == ("default", "web")
        assert pod["containers"] == [{"name": "c", "usage": {"cpu": "1500000n", "memory": "3072Ki"}}]

    using(tmp_path / "db", story)


def test_selectors_and_namespaces(tmp_path: Path) -> None:
    def story(store: Store) -> None:
        assert len(listed(store, "nodes", used(), labelSelector="zone=a")) == 1
        assert listed(store, "nodes", used(), labelSelector="zone=b") == []
        assert len(listed(store, "namespaces/default/pods", used(), labelSelector="app=web")) == 1
        assert listed(store, "namespaces/default/pods", used(), labelSelector="app=x") == []
        assert listed(store, "namespaces/elsewhere/pods", used()) == []
        with pytest.raises(ApiError) as error:
            listed(store, "pods", used(), labelSelector="=,")
        assert error.value.code == 400

    using(tmp_path / "db", story)


def test_what_is_not_there_or_not_measured_yet_is_not_found(tmp_path: Path) -> None:
    def story(store: Store) -> None:
        early = used(unready=frozenset({("default", "web")}))
        assert listed(store, "pods", early) == []
        assert measured.single(PODS, store, "default", "web", used())["kind"] == "PodMetrics"
        for kind, namespace, name, usage, text in (
            (PODS, "default", "web", early, 'podmetrics.metrics.k8s.io "default/web" not found'),
            (PODS, "default", "nope", used(), 'pods "nope" not found'),
            (PODS, "default", "done", used(), 'podmetrics.metrics.k8s.io "default/done" not found'),
            (NODES, "", "edge-2", used(), 'nodemetrics.metrics.k8s.io "edge-2" not found'),
            (NODES, "", "edge-1", {}, 'nodemetrics.metrics.k8s.io "edge-1" not found'),
        ):
            with pytest.raises(ApiError) as error:
                measured.single(kind, store, namespace, name, usage)
            assert (error.value.code, error.value.message) == (404, text)

    using(tmp_path / "db", story)


def test_the_group_is_told_of_only_where_it_is_served_and_is_in_no_schema(tmp_path: Path) -> None:
    registry = Registry.core()
    assert discovery.group_body(registry, measured.GROUP) is None
    before = OpenApi(registry, tmp_path).index()
    registry.add(measured.rows())
    assert OpenApi(registry, tmp_path).index() == before
    body = discovery.resources(registry, measured.GROUP, measured.VERSION)
    assert body is not None
    assert [(row["name"], row["namespaced"], row["verbs"]) for row in body["resources"]] == [
        ("nodes", False, ["get", "list"]),
        ("pods", True, ["get", "list"]),
    ]
    names = [group["metadata"]["name"] for group in discovery.aggregated(registry, core=False)["items"]]
    assert measured.GROUP in names
    assert measured.GROUP not in {key[0] for key in (row.key for row in registry.stored_kinds())}
