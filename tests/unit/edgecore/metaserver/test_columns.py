"""Columns of kinds that nobody here knows: asked for once, kept for when the cloud is away."""

import json
from typing import Any

from beehive.application import Target
from edgecore.metaserver import columns as module
from edgecore.metaserver import table
from edgecore.metaserver.objects import Gvr
from tests.unit.edgecore.metaserver.test_api import Bench, run

GVR = Gvr("acme.io", "v1", "pumps")
PUMPS = "/apis/acme.io/v1/namespaces/web/pumps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def definition(name: str) -> dict[str, Any]:
    column = {"name": name, "type": "integer", "jsonPath": ".spec.speed"}
    return {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "pumps.acme.io", "uid": "d", "resourceVersion": "3"},
        "spec": {"versions": [{"name": "v1", "additionalPrinterColumns": [column]}]},
    }


def where(name: str, gvr: Gvr, namespace: str = "") -> Target:
    return Target(group=gvr.group, version=gvr.version, resource=gvr.plural, namespace=namespace, name=name)


def asked(bench: Bench) -> int:
    return sum("customresourcedefinitions" in app.key for app in bench.cloud.asked)


async def shown(bench: Bench) -> tuple[list[str], list[Any]]:
    found = json.loads((await bench.call("GET", f"{PUMPS}/p", accept=TABLE)).body)
    return [column["name"] for column in found["columnDefinitions"]], found["rows"][0]["cells"]


def test_they_are_asked_for_once_and_kept() -> None:
    async def test(bench: Bench) -> None:
        pump = {"kind": "Pump", "apiVersion": "acme.io/v1", "spec": {"speed": 7},
                "metadata": {"name": "p", "namespace": "web", "uid": "u", "resourceVersion": "4"}}  # fmt: skip
        bench.cloud.objects[where("p", GVR, "web")] = pump
        assert (await shown(bench))[0] == ["Name", "Age"]
        assert (await shown(bench))[0] == ["Name", "Age"]
        assert asked(bench) == 1
        bench.api._columns = module.Columns(bench.remote, bench.store, monotonic=lambda: 0.0)
        bench.cloud.objects[where("pumps.acme.io", table.DEFINITIONS)] = definition("Speed")
        assert await shown(bench) == (["Name", "Speed"], ["p", 7])
        bench.cloud.online = False
        assert await shown(bench) == (["Name", "Speed"], ["p", 7])
        assert asked(bench) == 2

    run(test)


def test_built_in_kinds_and_ours_need_no_definition() -> None:
    async def test(bench: Bench) -> None:
        for gvr in (Gvr("apps", "v1", "deployments"), Gvr("devices.kubeedge.io", "v1beta1", "devices")):
            assert await bench.api._columns.of(gvr, "") is None
        assert asked(bench) == 0

    run(test)
