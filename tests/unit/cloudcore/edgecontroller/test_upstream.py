"""What a node may do to pods that the caches do not know."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from beehive.message import Group, Op, Source, new
from cloudcore.cloudhub.dispatch import Done
from cloudcore.edgecontroller.upstream import Upstream
from cloudcore.errors import ApiNotFound, Status
from cloudcore.objects import POD, Kind, Object


class _Api:
    """One pod, bound to `node`; without a node it waits to be bound; None: there is none."""

    def __init__(self, node: str | None) -> None:
        self.node = node
        self.written: list[str] = []

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if self.node is None:
            raise ApiNotFound(Status(message="gone", reason="NotFound", code=404))
        return Object(kind, namespace, name, "u-1", "7", b"{}", node=self.node)

    async def delete(self, kind: Kind, name: str, namespace: str, *, options: bytes) -> None:
        del kind, namespace, options
        self.written.append(f"delete {name}")
        if self.node is None:
            raise ApiNotFound(Status(message="gone", reason="NotFound", code=404))

    async def patch(self, kind: Kind, name: str, *_: object, **__: object) -> Object:
        self.written.append(f"patch {name}")
        return Object(POD, "default", name, "u-1", "8", b"{}")


def _asked(api: _Api, operation: str, where: str, content: object) -> bytes:
    view: Any = SimpleNamespace(pod=lambda namespace, name: None)
    kube: Any = api
    link: Any = SimpleNamespace(node="edge-1")
    upstream = Upstream(kube=kube, view=view, caches={}, now=lambda: 0.0)
    message = new(source=Source.EDGED, group=Group.META, operation=operation, resource=where, content=content)
    outcome = asyncio.run(upstream.handle(link, message))
    assert isinstance(outcome, Done)
    return bytes(outcome.replies[0].content)


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
