"""What is stored, acknowledged, refused and handed on of what the cloud sends."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from beehive.errors import Refused, Unavailable
from beehive.message import Failure, Group, Message, Op, Source, new
from edgecore.edgehub.session import Session
from edgecore.metamanager import refusals
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.process import Change
from tests.unit.edgecore.metamanager.scene import Line, Memory, on, push, settle


@pytest.mark.parametrize("ours", [True, False])
def test_a_push_is_stored_then_acknowledged_then_told(ours: bool) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        told: list[Change] = []
        meta.on_change.append(told.append)
        meta.on_change.append(lambda change: None if line.sent else pytest.fail("told before the ack"))
        message = push()
        await meta.forwarded("metamanager", message)
        await settle()
        assert store.rows["d/configmap/a"].version == 5
        assert [change.resource.name for change in told] == ["a"]
        (ack,) = line.of(Op.ACK if ours else Op.RESPONSE)
        assert message.id in (ack.decode(list[str]) if ours else [ack.parent])

    on(scene, ours=ours)


def test_pushes_that_come_together_share_a_commit_and_an_acknowledgement() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await settle()
        before = store.counters.commits
        messages = [push(name=f"n{number}") for number in range(10)]
        for message in messages:
            await meta.forwarded("metamanager", message)
        await settle()
        assert store.counters.commits - before <= 2
        acked = [one for ack in line.of(Op.ACK) for one in ack.decode(list[str])]
        assert acked == [message.id for message in messages]

    on(scene)


def test_while_the_disk_refuses_each_push_is_given_back() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.broken = True
        message = push()
        await meta.forwarded("metamanager", message)
        await settle()
        assert line.of(Op.ACK) == []
        (error,) = line.of(Op.ERROR)
        assert error.parent == message.id
        assert error.decode(Failure).reason == Unavailable.reason
        store.broken = False
        await meta.forwarded("metamanager", message)
        await settle()
        assert line.of(Op.ACK)[0].decode(list[str]) == [message.id]

    on(scene)


def test_what_is_bad_is_refused_alone() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        good, bad = push(), push(name="b", metadata={"name": "other"})
        for message in (bad, good):
            await meta.forwarded("metamanager", message)
        await settle()
        assert set(store.rows) == {"d/configmap/a"}
        assert [error.parent for error in line.of(Op.ERROR)] == [bad.id]
        assert line.of(Op.ACK)[0].decode(list[str]) == [good.id]

    on(scene)


def test_a_part_that_fails_on_a_frame_gets_the_next_one() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        seen: list[str] = []

        async def take(message: Message) -> None:
            seen.append(message.id)
            raise Refused("not this one")

        meta.handlers["devicetwin"] = take
        messages = [push(), push(name="b")]
        for message in messages:
            await meta.forwarded("devicetwin", message)
        await settle()
        assert seen == [message.id for message in messages]

    on(scene)


def test_a_pod_that_cannot_be_used_is_wanted_all_the_same_until_the_hub_wants_it_no_more() -> None:
    def pod(uid: str, name: str = "web", operation: str = Op.UPDATE) -> Message:
        body = {
            "metadata": {"name": "web", "namespace": "d", "uid": uid, "resourceVersion": "x" if uid else "5"}
        }
        return new(
            source=Source.EDGECONTROLLER,
            group=Group.RESOURCE,
            operation=operation,
            resource=f"d/pod/{name}",
            content=body,
        )

    async def wanted(meta: MetaManager) -> list[str]:
        return [msgspec.json.decode(raw)["metadata"]["uid"] for raw in await meta.pods()]

    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.forwarded("metamanager", pod("u-bad"))
        await meta.forwarded("metamanager", pod("", name="other"))
        await settle()
        failure = line.of(Op.ERROR)[0].decode(Failure)
        assert failure.reason == "ProtocolError"
        assert await wanted(meta) == ["", "u-bad"]
        # a new session, in which only the first is offered again
        meta.disconnected()
        meta.connected(Session("hub:1", True, 8), "inventory")
        await meta.forwarded("metamanager", pod("u-bad"))
        await settle()
        meta.acked(["inventory"])
        store.complete = False
        async with asyncio.timeout(30):
            while not store.complete:
                await asyncio.sleep(0.01)
        assert await wanted(meta) == ["u-bad"]
        await meta.forwarded("metamanager", pod("u-bad", operation=Op.DELETE))
        await settle()
        assert await wanted(meta) == []

    on(scene)


def test_very_many_refused_pods_are_one_note_about_any() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        for number in range(refusals.MAX_NOTES + 20):
            bad = push(name=f"p{number}")
            route = msgspec.structs.replace(bad.route, resource=f"d/pod/{number}", operation="nonsense")
            await meta.forwarded("metamanager", msgspec.structs.replace(bad, route=route))
        await settle()
        await settle()
        assert len(store.states(refusals.PREFIX)) == refusals.MAX_NOTES + 1
        assert refusals.ANY in store.notes

    on(scene)


def test_a_version_goes_back_only_where_the_api_did() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        for message in (push(version="50", data="new"), push(version="12", data="old")):
            await meta.forwarded("metamanager", message)
        await settle()
        assert store.rows["d/configmap/a"].version == 50
        await meta.forwarded("metamanager", push(version="12", data="old").restored())
        await settle()
        assert store.rows["d/configmap/a"].version == 12

    on(scene)


def test_a_bug_in_a_part_stays_with_the_frame_that_met_it() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        seen: list[str] = []

        async def part(message: Message) -> None:
            seen.append(message.route.resource)
            if len(seen) == 1:
                raise KeyError("nobody thought of this")

        meta.handlers["devicetwin"] = part
        await meta._applying.hand_to("devicetwin", push(name="a"))
        await meta._applying.hand_to("devicetwin", push(name="b"))
        assert len(seen) == 2

    on(scene)
