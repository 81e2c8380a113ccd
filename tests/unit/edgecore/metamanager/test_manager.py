"""What the manager acknowledges, refuses, hands on and answers, with a store in memory and no link."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from beehive.message import Failure, Group, Message, Op, Source, new, reply
from edgecore.errors import Incomplete
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.records import Row
from tests.unit.edgecore.metamanager.scene import Line, Memory, on, push, settle


def test_what_was_fetched_is_stored_and_not_asked_for_again() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        def answer(question: Message) -> None:
            if question.route.operation == Op.QUERY:
                content = msgspec.json.decode(push().content)
                asyncio.get_running_loop().call_soon(meta.answered, reply(question, content))

        line.on_send = answer
        for _ in range(2):
            found = await meta.fetch("configmap", "d", "a")
            assert found is not None
            assert json.loads(bytes(found))["metadata"]["uid"] == "u1"
        assert len(line.of(Op.QUERY)) == 1
        assert "d/configmap/a" in store.rows

    on(scene)


def test_what_must_be_fresh_is_asked_for_again_and_taken_from_the_store_without_a_link() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        versions = iter("123")

        def answer(question: Message) -> None:
            if question.route.operation == Op.QUERY:
                content = msgspec.json.decode(push(version=next(versions)).content)
                asyncio.get_running_loop().call_soon(meta.answered, reply(question, content))

        async def held() -> str:
            found = await meta.fetch("configmap", "d", "a", fresh=True)
            assert found is not None
            return str(json.loads(bytes(found))["metadata"]["resourceVersion"])

        line.on_send = answer
        assert [await held(), await held()] == ["1", "2"]
        meta.disconnected()
        assert await held() == "2"

    on(scene)


def test_pods_are_only_all_of_them_once_the_store_is_whole() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.complete = False
        with pytest.raises(Incomplete):
            await meta.pods()
        store.complete = True
        assert await meta.pods() == []

    on(scene)


def test_what_this_node_does_not_do_is_answered_at_once() -> None:
    where = "operations.kubeedge.io/v1alpha2/imageprepulljob/pull-1/node/edge-1"

    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        task = new(
            source="taskmanager", group=Group.TASKMANAGER, operation="Check", resource=where, content={}
        )
        await meta.forwarded("taskmanager", task)
        (report,) = line.of("UpdateNodeActionStatus")
        said = report.decode(dict[str, Any])
        assert (report.route.resource, said["action"], said["succ"]) == (where, "Check", False)
        volume = new(
            source=Source.CLOUDHUB,
            group=Group.RESOURCE,
            operation="createvolume",
            resource="default/volume/v-1",
            content="{}",
        )
        await meta.forwarded("metamanager", volume)
        (answer,) = line.of(Op.RESPONSE)
        assert (answer.parent, bytes(answer.content)) == (volume.id, b"null")

    on(scene, ours=False)


def test_the_last_reports_are_waited_for_as_long_as_somebody_takes_them() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(meta.drain(60.0))
            await settle()
            assert not waiting.done()
            for message in meta.take(0.0):
                meta.acked([message.id])
            await waiting
        # without a link nobody will
        await meta.pod_status("d", "web", "u1", b'{"phase":"Failed"}')
        meta.disconnected()
        await meta.drain(60.0)

    on(scene)


def test_events_stay_here_where_the_operator_says_so() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        meta.report_events = False
        await meta.event(b'{"metadata": {"name": "e", "namespace": "d"}}')
        assert len(meta.outbox) == 0

    on(scene)


@pytest.mark.parametrize(("kind", "stays"), [("runtimeclass", False), ("configmap", True)])
def test_what_is_gone_in_the_cloud_goes_here_unless_the_cloud_says_so_itself(kind: str, stays: bool) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        def answer(question: Message) -> None:
            failure = reply(question, Failure(reason="NotFound", message="no"), operation=Op.ERROR)
            asyncio.get_running_loop().call_soon(meta.answered, failure)

        key = f"null/{kind}/a"
        store.put(Row(key=key, type=kind, namespace="", name="a", uid="u", version=1, value=b"{}"))
        line.on_send = answer
        assert await meta.fetch(kind, "", "a", fresh=True) is None
        assert (key in store.rows) is stays

    on(scene)
