from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from beehive.errors import Refused, Unavailable
from edgecore.edged.mirror import Create, Delete, Mirror, Mirrors, make, plan, split
from edgecore.edged.static import make as static_pod
from tests.fakes.edged import FakeObjects, FakeReports

KEY = ("ns", "p-edge-1")


def static(image: str = "i:1") -> bytes:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "p"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    return static_pod(json.dumps(pod).encode(), node_name="edge-1", is_json=True)


def hash_of(raw: bytes) -> str:
    return str(json.loads(raw)["metadata"]["uid"])


def mirror(of: str, *, uid: str = "m1", deleting: bool = False) -> Mirror:
    return Mirror(uid=uid, of=of, deleting=deleting)


def test_every_static_pod_has_its_mirror_and_no_other_is_left() -> None:
    assert plan({KEY: "a"}, {}, sure=False) == [Create(key=KEY)]
    assert plan({KEY: "a"}, {KEY: mirror("a")}, sure=True) == []
    gone = [Delete(key=KEY, uid="m1")]
    # its file changed; somebody deleted it at the API; there is no such file any more
    assert plan({KEY: "b"}, {KEY: mirror("a")}, sure=False) == gone
    assert plan({KEY: "a"}, {KEY: mirror("a", deleting=True)}, sure=False) == gone
    assert plan({}, {KEY: mirror("a")}, sure=True) == gone
    # a folder that cannot be read whole ends no mirror
    assert plan({}, {KEY: mirror("a")}, sure=False) == []


def test_a_mirror_is_never_run() -> None:
    made = json.loads(make(static(), node_name="edge-1", node_uid="n1"))
    meta = made["metadata"]
    assert meta["name"] == "p-edge-1"
    assert meta["labels"] == {"app": "p"}
    assert meta["annotations"]["kubernetes.io/config.mirror"] == hash_of(static())
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "n1", "controller": True}
    ]
    assert "uid" not in meta
    assert made["spec"]["nodeName"] == "edge-1"
    meta["uid"] = "m1"
    other = {"metadata": {"name": "o", "uid": "o", "annotations": {"x": "kubernetes.io/config.mirror"}}}
    raws = [msgspec.Raw(json.dumps(o).encode()) for o in (made, other)]
    run, mirrors = split([*raws, msgspec.Raw(b"{}")])
    assert run == [raws[1], msgspec.Raw(b"{}")]
    assert mirrors == {KEY: mirror(hash_of(static()))}


class _Stage:
    def __init__(self) -> None:
        self.objects = FakeObjects()
        self.reports = FakeReports()
        self.created: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self.now = 0.0
        self.mirrors = Mirrors(self.objects, self.reports, self.create, "edge-1")

    async def create(self, namespace: str, name: str, pod: bytes) -> None:
        assert json.loads(pod)["metadata"]["ownerReferences"][0]["uid"] == "n1"
        if self.fault is not None:
            raise self.fault
        self.created.append((namespace, name))

    def node(self) -> None:
        self.objects.store["node", "", "edge-1"] = b'{"metadata":{"name":"edge-1","uid":"n1"}}'

    async def step(self, mirrors: dict[tuple[str, str], Mirror], *pods: bytes) -> bool:
        return await self.mirrors.step(pods, mirrors, sure=True, now=self.now)


def run(story: Any) -> None:
    asyncio.run(story(_Stage()))


def test_a_status_waits_for_its_mirror_and_goes_by_its_uid() -> None:
    async def story(s: _Stage) -> None:
        pod, of = static(), hash_of(static())
        # the node is not registered yet
        assert not await s.step({}, pod)
        s.node()
        await s.mirrors.pod_status(*KEY, of, b'{"phase":"Pending"}')
        assert not await s.step({}, pod)
        assert s.created == [KEY]
        assert s.reports.statuses == {}
        # asked once, however often it is looked at
        await s.step({}, pod)
        assert s.created == [KEY]
        assert await s.step({KEY: mirror(of)}, pod)
        assert s.reports.statuses == {"m1": {"phase": "Pending"}}
        await s.mirrors.pod_status(*KEY, of, b'{"phase":"Running"}')
        assert s.reports.statuses == {"m1": {"phase": "Running"}}
        # deleted at the API: it goes, and another one takes its place
        deleting = {KEY: mirror(of, deleting=True)}
        assert not await s.step(deleting, pod)
        assert not await s.step(deleting, pod)
        assert s.reports.gone == ["m1"]
        await s.step({}, pod)
        assert s.created == [KEY, KEY]
        await s.step({KEY: mirror(of, uid="m2")}, pod)
        assert s.reports.statuses["m2"] == {"phase": "Running"}

    run(story)


def test_a_cloud_that_is_away_or_says_no_costs_nothing() -> None:
    async def story(s: _Stage) -> None:
        s.node()
        s.fault = Unavailable("no link")
        assert not await s.step({}, static())
        s.fault = Refused("a mirror pod must not refer to secrets")
        assert not await s.step({}, static())
        s.fault = None
        # not asked again at once after a no
        await s.step({}, static())
        assert s.created == []
        s.now = 100.0
        await s.step({}, static())
        assert s.created == [KEY]

    run(story)
