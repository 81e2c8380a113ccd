"""What a node may do to pods that the caches do not know."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from beehive.delivery import Item
from beehive.message import Group, Op, Source, new
from cloudcore.cloudhub.dispatch import Done
from cloudcore.edgecontroller.upstream import Upstream
from cloudcore.errors import ApiNotFound, Status
from cloudcore.identity.authorizer import PodFacts
from cloudcore.objects import EVENT, POD, Kind, Object


class _Api:
    """One pod, bound to `node`; without a node it waits to be bound; None: there is none."""

    def __init__(self, node: str | None) -> None:
        self.node = node
        self.written: list[str] = []
        self.bodies: list[bytes] = []
        self.event = b"{}"

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if kind is EVENT:
            return Object(kind, namespace, name, "e-1", "7", self.event)
        if self.node is None:
            raise ApiNotFound(Status(message="gone", reason="NotFound", code=404))
        return Object(kind, namespace, name, "u-1", "7", b"{}", node=self.node)

    async def delete(self, kind: Kind, name: str, namespace: str, *, options: bytes) -> None:
        del kind, namespace
        self.bodies.append(options)
        self.written.append(f"delete {name}")
        if self.node is None:
            raise ApiNotFound(Status(message="gone", reason="NotFound", code=404))

    async def replace(self, kind: Kind, name: str, body: bytes, namespace: str = "") -> Object:
        self.written.append(f"replace {name}")
        return Object(kind, namespace, name, "e-1", "8", body)

    async def patch(self, kind: Kind, name: str, body: bytes, *_: object, **__: object) -> Object:
        self.bodies.append(body)
        self.written.append(f"patch {name}")
        return Object(POD, "default", name, "u-1", "8", b"{}")


def _asked(
    api: _Api, operation: str, where: str, content: object, *, pod: PodFacts | None = None, link: Any = None
) -> bytes:
    view: Any = SimpleNamespace(
        pod=lambda namespace, name: pod, refers=lambda node, kind, namespace, name: name == "data"
    )
    kube: Any = api
    link = link or SimpleNamespace(node="edge-1", refuse=lambda *_: None)
    upstream = Upstream(kube=kube, view=view, caches={}, now=lambda: 0.0)
    message = new(source=Source.EDGED, group=Group.META, operation=operation, resource=where, content=content)
    outcome = asyncio.run(upstream.handle(link, message))
    assert isinstance(outcome, Done)
    return bytes(outcome.replies[0].content) if outcome.replies else b""


REQUESTS = [
    (Op.DELETE, "default/pod/a", {"gracePeriodSeconds": 0}),
    (Op.PATCH, "default/podpatch/a", '{"metadata":{"uid":"u-1"},"status":{"phase":"Failed"}}'),
]


@pytest.mark.parametrize("node", ["", "edge-2"])
@pytest.mark.parametrize(("operation", "where", "content"), REQUESTS)
def test_a_pod_that_is_not_the_nodes_is_left_alone(
    node: str, operation: str, where: str, content: object
) -> None:
    api = _Api(node)
    assert b"Forbidden" in _asked(api, operation, where, content)
    assert api.written == []


@pytest.mark.parametrize(("operation", "where", "content"), REQUESTS)
def test_one_that_was_bound_a_moment_ago_is_the_nodes(operation: str, where: str, content: object) -> None:
    api = _Api("edge-1")
    assert b"Forbidden" not in _asked(api, operation, where, content)
    assert len(api.written) == 1


def test_a_pod_that_is_gone_counts_as_deleted() -> None:
    assert _asked(_Api(None), *REQUESTS[0]) == b'"OK"'


@pytest.mark.parametrize("pod", [None, PodFacts(node="edge-1", uid="u-1")])
@pytest.mark.parametrize(
    ("operation", "where", "content", "held_to"),
    [
        (Op.DELETE, "default/pod/a", {"gracePeriodSeconds": 0}, ("preconditions", "u-1")),
        (Op.DELETE, "default/pod/a", {"preconditions": {"uid": "u-0"}}, ("preconditions", "u-0")),
        (Op.DELETE, "default/pod/a", None, ("preconditions", "u-1")),
        (Op.PATCH, "default/podpatch/a", '{"status":{"phase":"Failed"}}', ("metadata", "u-1")),
        (Op.PATCH, "default/podpatch/a", '{"metadata":{"uid":"u-0"},"status":{}}', ("metadata", "u-0")),
    ],
)
def test_what_is_asked_holds_for_the_pod_that_was_judged(
    pod: PodFacts | None, operation: str, where: str, content: object, held_to: tuple[str, str]
) -> None:
    """A pod of a StatefulSet has the name of the one before it, and can be on another node."""
    api = _Api("edge-1")
    _asked(api, operation, where, content, pod=pod)
    assert json.loads(api.bodies[0])[held_to[0]]["uid"] == held_to[1]


def test_a_status_of_a_pod_that_is_not_known_yet_does_not_end_it() -> None:
    """KubeEdge's form before patches.  A hub that has just started knows no pod; an edge ends what it is told is gone."""
    pushed: list[Item] = []
    link = SimpleNamespace(node="edge-1", offer=pushed.append, refuse=lambda *_: None)
    status = {"UID": "u-1", "Name": "a", "Status": {"phase": "Running"}}
    api = _Api("edge-1")
    assert _asked(api, Op.UPDATE, "default/podstatus/a", status, link=link) == b'"OK"'
    assert (pushed, api.written) == ([], ["patch a"])
    _asked(_Api("edge-1"), Op.UPDATE, "default/podstatus/a", {**status, "UID": "u-0"}, link=link)
    _asked(_Api(None), Op.UPDATE, "default/podstatus/a", status, link=link)
    assert [(item.key, item.delete) for item in pushed] == [("u-0", True), ("u-1", True)]
    api = _Api("edge-2")
    assert b"Forbidden" in _asked(api, Op.UPDATE, "default/podstatus/a", status, link=link)
    assert api.written == []


def _event(node: str) -> dict[str, Any]:
    about = {"kind": "Node", "name": node}
    return {"metadata": {"name": "e.1"}, "involvedObject": about, "source": {"host": node}}


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        (Op.UPDATE, _event("edge-1")),
        (Op.PATCH, {"event": _event("edge-1"), "patchData": '{"count":9}'}),
    ],
)
def test_an_event_of_another_node_is_left_alone_whatever_it_is_to_become(
    operation: str, content: dict[str, Any]
) -> None:
    api = _Api("edge-1")
    api.event = json.dumps(_event("edge-2")).encode()
    _asked(api, operation, "default/event/e.1", content)
    assert api.written == []
    api.event = json.dumps(_event("edge-1")).encode()
    _asked(api, operation, "default/event/e.1", content)
    assert len(api.written) == 1


class _Storage:
    """An API with a node, and its CSINode once it was made."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    async def patch(self, kind: Kind, name: str, body: bytes, *_: object, **__: object) -> Object:
        if not self.made:
            raise ApiNotFound(Status(message="none", reason="NotFound", code=404))
        self.made["spec"] |= json.loads(body)["spec"]
        return Object(kind, "", name, "c-1", "9", json.dumps(self.made).encode())

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        del namespace
        return Object(kind, "", name, "n-1", "7", b"{}")

    async def create(self, kind: Kind, body: bytes, namespace: str = "") -> Object:
        del namespace
        self.made = json.loads(body)
        return Object(kind, "", self.made["metadata"]["name"], "c-1", "8", body)


def test_a_nodes_drivers_become_its_csinode() -> None:
    api: Any = _Storage()
    where = "null/csinode/edge-1"
    one, two = {"name": "d", "nodeID": "n"}, {"name": "e", "nodeID": "n"}
    answered = json.loads(_asked(api, Op.UPDATE, where, {"spec": {"drivers": [one]}}))
    assert answered["Err"] is None
    assert api.made["metadata"] == {
        "name": "edge-1",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "n-1"}],
    }
    assert api.made["spec"] == {"drivers": [one]}
    _asked(api, Op.UPDATE, where, {"spec": {"drivers": [one, two]}})
    assert api.made["spec"] == {"drivers": [one, two]}
    assert b"Forbidden" in _asked(api, Op.UPDATE, "null/csinode/edge-2", {"spec": {"drivers": []}})


class _Claims:
    """An API with a claim that grows, and its volume."""

    def __init__(self, *, waits: bool = False) -> None:
        self.waits = waits
        self.patched: list[dict[str, Any]] = []

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if kind.plural == "persistentvolumes":
            body: dict[str, Any] = {"spec": {"capacity": {"storage": "3Gi"}}}
            return Object(kind, "", name, "v-1", "4", json.dumps(body).encode())
        conditions = [
            {"type": "FileSystemResizePending", "status": "True"},
            {"type": "Other", "status": "True"},
        ]
        body = {"spec": {"volumeName": "disk"}, "status": {"conditions": conditions}}
        if self.waits:
            body["status"]["allocatedResourceStatuses"] = {"storage": "NodeResizePending"}
        return Object(kind, namespace, name, "u-1", "7", json.dumps(body).encode())

    async def patch(
        self, kind: Kind, name: str, body: bytes, namespace: str = "", *, subresource: str = ""
    ) -> Object:
        assert (kind.plural, namespace, name, subresource) == (
            "persistentvolumeclaims",
            "ns",
            "data",
            "status",
        )
        self.patched.append(json.loads(body))
        return Object(kind, namespace, name, "u-1", "8", body)


def test_a_claim_has_what_its_volume_has_once_its_node_says_so() -> None:
    api: Any = _Claims()
    where = "ns/claimstatus/data"
    answered = json.loads(_asked(api, Op.UPDATE, where, {"metadata": {"uid": "u-1"}}))
    assert answered["Err"] is None
    (patch,) = api.patched
    assert patch["metadata"] == {"uid": "u-1", "resourceVersion": "7"}
    status = {"capacity": {"storage": "3Gi"}, "conditions": [{"type": "Other", "status": "True"}]}
    assert patch["status"] == status
    waiting: Any = _Claims(waits=True)
    _asked(waiting, Op.UPDATE, where, {"metadata": {"uid": "u-1"}})
    assert waiting.patched[0]["status"] == {**status, "allocatedResourceStatuses": {"storage": None}}
    # another claim of that name, and one of nobody's on this node
    assert b"Forbidden" in _asked(api, Op.UPDATE, where, {"metadata": {"uid": "u-2"}})
    assert b"Forbidden" in _asked(api, Op.UPDATE, "ns/claimstatus/other", {"metadata": {"uid": "u-1"}})
    assert len(api.patched) == 1
