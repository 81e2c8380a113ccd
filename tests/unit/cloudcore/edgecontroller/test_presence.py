"""What the cloud says of a link that is gone, and which pods it makes wait: presence and tolerations."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from beehive.errors import Conflict, Unavailable
from beehive.session import HubSession, State
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.edgecontroller import presence as presence_module
from cloudcore.edgecontroller.presence import Presence
from cloudcore.edgecontroller.tolerations import Tolerations
from cloudcore.errors import ApiNotFound, Status
from cloudcore.objects import EDGE_LABEL, NODE, POD, SESSION_ANNOTATION, Kind, Object, read
from cloudcore.reschedule import ANNOTATION, GROUP_LABEL, TAINTS

Json = dict[str, Any]


class Cache:
    """What the API has."""

    def __init__(self, kind: Kind, *bodies: Json) -> None:
        self._kind = kind
        self.found: dict[str, Object] = {}
        for body in bodies:
            self.put(body)

    def put(self, body: Json) -> None:
        made = read(self._kind, json.dumps(body).encode())
        self.found[made.name] = made

    def get(self, namespace: str, name: str) -> Object | None:
        return self.found.get(name)

    def __iter__(self) -> Iterator[Object]:
        return iter(self.found.values())


class Api:
    """Remembers patches.   groups: name to annotation."""

    def __init__(self) -> None:
        self.patches: list[tuple[str, Json]] = []
        self.groups: dict[str, str] = {}
        self.fails: Exception | None = None

    async def patch(self, kind: Kind, name: str, body: bytes, namespace: str = "", **more: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.patches.append((name, json.loads(body)))

    async def get(self, kind: Kind, name: str) -> Object:
        if name not in self.groups:
            raise ApiNotFound(Status(message="no", reason="NotFound", code=404))
        body = {"metadata": {"name": name, "annotations": {ANNOTATION: self.groups[name]}}}
        return read(kind, json.dumps(body).encode())


def node(name: str, *, session: int = 1, ready: str = "True", connected: str = "True", **meta: Any) -> Json:
    labels = {EDGE_LABEL: "", **meta.pop("labels", {})}
    annotations = {SESSION_ANNOTATION: str(session), **meta.pop("annotations", {})}
    conditions = [{"type": "Ready", "status": ready}, {"type": "CloudConnected", "status": connected}]
    return {
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "status": {"conditions": conditions},
    }


def link(name: str, number: int = 1, *, ours: bool = True) -> Link:
    session = HubSession(node=name, ours=ours, number=number, opened_at=0.0)
    session.opened(0.0)
    return Link(session)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(presence_module, "now", lambda: at[0])
    return at


def test_a_link_that_is_gone_for_good_is_said_once(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"), node("b"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        one = link("a")
        nodes.open(one)
        nodes.open(link("b"))
        await presence.look(silent=True)
        one.session.state = State.CLOSED
        await presence.look(silent=True)
        clock[0] += 5
        await presence.look(silent=True)
        assert api.patches == []
        clock[0] += 6
        await presence.look(silent=False)
        ((name, body),) = api.patches
        said = {one["type"]: one["status"] for one in body["status"]["conditions"]}
        assert (name, said) == ("a", {"CloudConnected": "False", "Autonomous": "True"})
        clock[0] += 60
        await presence.look(silent=False)
        assert len(api.patches) == 1

    asyncio.run(main())


def test_a_link_that_is_back_soon_or_at_another_hub_is_not_said(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"), node("b"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        links = [link("a"), link("b"), link("stock", ours=False)]
        cache.put(node("stock"))
        for one in links:
            nodes.open(one)
        await presence.look(silent=False)
        for one in links:
            one.session.state = State.CLOSED
        await presence.look(silent=False)
        nodes.open(link("a", 2))
        cache.put(node("b", session=2))
        clock[0] += 30
        await presence.look(silent=True)
        assert api.patches == []

    asyncio.run(main())


def test_a_node_that_came_back_while_it_was_said_to_be_away_is_said_to_be_linked(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        nodes.open(link("a", 2))
        lost = node("a", session=2, connected="False")
        lost["status"]["conditions"][1]["reason"] = "LinkLost"
        cache.put(lost)
        await presence.look(silent=False)
        assert api.patches == []  # the node's own word may be on its way
        await presence.look(silent=False)
        ((name, body),) = api.patches
        said = {one["type"]: one["status"] for one in body["status"]["conditions"]}
        assert (name, said) == ("a", {"CloudConnected": "True", "Autonomous": "False"})
        lost["metadata"]["annotations"][SESSION_ANNOTATION] = "3"  # it is at another hub by now
        cache.put(lost)
        await presence.look(silent=False)
        assert len(api.patches) == 1

    asyncio.run(main())


def test_a_node_whose_hub_is_gone_is_said_when_it_is_silent(clock: list[float]) -> None:
    async def main() -> None:
        api = Api()
        cache = Cache(
            NODE, node("a", ready="Unknown"), node("b"), node("c", ready="Unknown", connected="False")
        )
        presence = Presence(api, Nodes(), cache)  # type: ignore[arg-type]
        await presence.look(silent=False)
        assert api.patches == []
        await presence.look(silent=True)
        assert [name for name, _ in api.patches] == ["a"]

    asyncio.run(main())


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
