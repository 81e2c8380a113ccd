"""How long pods of a silent node wait, by what its owner says."""

import asyncio

from beehive.errors import Conflict, Unavailable
from cloudcore.edgecontroller.tolerations import Tolerations
from cloudcore.objects import NODE, POD
from cloudcore.reschedule import ANNOTATION, GROUP_LABEL, TAINTS
from tests.unit.cloudcore.edgecontroller.scene import Api, Cache, Json, node


def pod(name: str, on: str, version: int = 1, *seconds: int | None) -> Json:
    tolerations = [
        {"key": key, "operator": "Exists", "effect": "NoExecute"} | ({"tolerationSeconds": s} if s else {})
        for key, s in zip(TAINTS, seconds, strict=False)
    ]
    return {
        "metadata": {"name": name, "namespace": "d", "uid": f"u-{name}", "resourceVersion": str(version)},
        "spec": {"nodeName": on, "tolerations": tolerations},
    }


def test_pods_wait_as_long_as_their_node_says() -> None:
    async def main() -> None:
        api = Api()
        api.groups["north"] = "1h"
        nodes = Cache(
            NODE,
            node("own", annotations={ANNOTATION: "10m"}),
            node("grouped", labels={GROUP_LABEL: "north"}),
            node("plain"),
            {"metadata": {"name": "cloud"}},
        )
        pods = Cache(POD, *(pod(on, on, 1, 300, 300) for on in ("own", "grouped", "plain", "cloud")))
        pods.put(pod("right", "own", 1, 600, 600))
        part = Tolerations(api, nodes, pods, default_s=None)  # type: ignore[arg-type]
        await part.look(0.0)
        times = {
            name: [one.get("tolerationSeconds") for one in body["spec"]["tolerations"]]
            for name, body in api.patches
        }
        assert times == {"own": [600, 600], "grouped": [3600, 3600], "plain": [None, None]}
        assert all(body["metadata"]["resourceVersion"] == "1" for _, body in api.patches)
        # the cache hears of the patches; nothing more is to do until the policy changes
        api.patches.clear()
        for name, seconds in (("own", 600), ("grouped", 3600), ("plain", None)):
            pods.put(pod(name, name, 2, seconds, seconds))
        await part.look(1.0)
        assert api.patches == []
        nodes.put(node("own", annotations={ANNOTATION: "never"}))
        await part.look(2.0)
        assert {name for name, _ in api.patches} == {"own", "right"}

    asyncio.run(main())


def test_what_the_api_refuses_is_tried_again() -> None:
    async def main() -> None:
        api, nodes, pods = Api(), Cache(NODE, node("n")), Cache(POD, pod("p", "n", 1, 300, 300))
        part = Tolerations(api, nodes, pods, default_s=None)  # type: ignore[arg-type]
        for error in (Unavailable("away"), Conflict("changed")):
            api.fails = error
            await part.look(0.0)
        api.fails = None
        await part.look(0.0)
        assert len(api.patches) == 1

    asyncio.run(main())
