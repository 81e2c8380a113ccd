"""What edges report about node tasks goes into the job: cloudcore.nodetasks.controller."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from beehive.errors import Unavailable
from beehive.session import HubSession
from cloudcore.cloudhub.dispatch import FINISHED
from cloudcore.cloudhub.nodes import Link
from cloudcore.errors import ApiConflict, Forbidden, Status
from cloudcore.nodetasks.controller import TRIES, NodeTasks
from cloudcore.objects import Kind, Object, read
from tests.unit.cloudcore.nodetasks.test_report import message


class Api:
    """One job, which others change at the same time."""

    def __init__(self, conflicts: int = 0) -> None:
        self.conflicts = conflicts
        self.rows: list[Any] = [{"nodeName": "a", "phase": "InProgress"}]
        self.reads = 0

    async def get(self, kind: Kind, name: str) -> Object:
        self.reads += 1
        body = {"metadata": {"name": name, "resourceVersion": "7"}, "status": {"nodeStatus": self.rows}}
        return read(kind, msgspec.json.encode(body))

    async def patch(self, kind: Kind, name: str, body: bytes, *, subresource: str) -> None:
        assert subresource == "status"
        if self.conflicts:
            self.conflicts -= 1
            raise ApiConflict(Status(message="changed", reason="Conflict", code=409))
        self.rows = msgspec.json.decode(body)["status"]["nodeStatus"]


def handle(api: Any, node: str = "a") -> object:
    link = Link(HubSession(node=node, ours=True, number=1, opened_at=0.0))
    return asyncio.run(NodeTasks(api).handle(link, message()))


def test_a_report_is_written_although_others_write_too() -> None:
    api = Api(conflicts=2)
    assert handle(api) is FINISHED
    assert [step["action"] for step in api.rows[0]["actionFlow"]] == ["Check"]
    assert api.reads == 3


def test_what_cannot_be_written_now_is_sent_again() -> None:
    with pytest.raises(Unavailable):
        handle(Api(conflicts=TRIES))


def test_another_node_gets_nowhere() -> None:
    api = Api()
    with pytest.raises(Forbidden):
        handle(api, "b")
    assert api.reads == 0
