"""What the manager acknowledges, refuses, hands on and answers, with a store in memory and no link."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from beehive.message import Digest, Failure, Group, Message, Op, Source, digest, new, reply
from edgecore.edgehub.link import Session
from edgecore.errors import Incomplete
from edgecore.metamanager import manager as managing
from edgecore.metamanager import refusals
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.process import Change
from edgecore.metamanager.records import Pending, Row
from edgecore.metamanager.store import Counters


class Memory:
    """A store without a disk; what it does is done at once, unless `broken`.  Both view and transaction."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.notes: dict[str, bytes] = {}
        self.queue: dict[int, Pending] = {}
        self.counters = Counters()
        self.damaged: set[str] = set()
        self.set_aside = None
        self.complete = True
        self.broken = False

    async def read(self, work: Callable[[Any], Any]) -> Any:
        return work(self)

    async def write(self, work: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        if self.broken:
            raise Unavailable("cannot write: the disk is full")
        self.counters.commits += 1
        return work(self)

    async def confirm_complete(self) -> None:
        self.complete = True

    async def drop_damaged(self) -> None:
        for key in self.damaged:
            self.rows.pop(key, None)
        self.damaged.clear()

    def get(self, key: str) -> Row | None:
        return self.rows.get(key)

    def all_of(self, kind: str, namespace: str = "") -> list[Row]:
        return [row for row in self.rows.values() if row.type == kind and namespace in ("", row.namespace)]

    def held(self) -> list[tuple[str, str, int]]:
        return [(row.uid, row.key, row.version) for row in self.rows.values()]

    def state(self, key: str) -> bytes | None:
        return self.notes.get(key)

    def states(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.notes.items() if key.startswith(prefix)}

    def outbox(self) -> list[Pending]:
        return list(self.queue.values())

    def put(self, row: Row) -> None:
        self.rows[row.key] = row

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)

    def set_state(self, key: str, value: bytes) -> None:
        self.notes[key] = value

    def drop_state(self, key: str) -> None:
        self.notes.pop(key, None)

    def put_pending(self, pending: Pending) -> None:
        self.queue[pending.seq] = pending

    def drop_pending(self, seqs: Any) -> None:
        for seq in seqs:
            self.queue.pop(seq, None)


class Line:
    """The link, as far as sending goes."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.on_send: Callable[[Message], None] = lambda message: None

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self.on_send(message)

    def wake(self) -> None:
        return

    def of(self, operation: str) -> list[Message]:
        return [message for message in self.sent if message.route.operation == operation]


Scene = Callable[[MetaManager, Memory, Line], Awaitable[None]]


def on(scene: Scene, *, ours: bool = True, linked: bool = True) -> None:
    """Play a scene with a manager that runs."""

    async def play() -> None:
        store, line = Memory(), Line()
        meta = MetaManager(store, "edge-1", query_s=0.2)  # type: ignore[arg-type]
        await meta.load()
        meta.bind(line)
        if linked:
            meta.connected(Session("hub:1", ours, 7), "inventory")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(meta.run())
            await scene(meta, store, line)
            running.cancel()

    asyncio.run(play())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def push(operation: str = Op.UPDATE, version: str = "5", name: str = "a", **content: Any) -> Message:
    body = {"metadata": {"name": name, "namespace": "d", "uid": "u1", "resourceVersion": version}, **content}
    return new(
        source=Source.EDGECONTROLLER,
        group=Group.RESOURCE,
        operation=operation,
        resource=f"d/configmap/{name}",
        content=body,
    )


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


def test_a_disk_that_refuses_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        for _ in range(2):
            store.broken = True
            for number in range(5):
                await meta.forwarded("metamanager", push(version=str(number + 1)))
                await settle()
            store.broken = False
            await meta.forwarded("metamanager", push(version="9"))
            await settle()

    caplog.set_level("INFO")
    on(scene)
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    refused = "Nothing of the cloud's is acknowledged, and reports are kept in memory only"
    assert told == [refused, "The store takes writes again"] * 2


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


def test_a_question_without_a_link_or_an_answer_is_unavailable() -> None:
    async def offline(meta: MetaManager, store: Memory, line: Line) -> None:
        with pytest.raises(Unavailable, match="no link"):
            await meta.fetch("configmap", "d", "a")

    async def silent(meta: MetaManager, store: Memory, line: Line) -> None:
        with pytest.raises(Unavailable, match="did not answer"):
            await meta.fetch("configmap", "d", "a")

    async def cut(meta: MetaManager, store: Memory, line: Line) -> None:
        line.on_send = lambda message: meta.disconnected()
        with pytest.raises(Unavailable, match="lost before"):
            await meta.fetch("configmap", "d", "a")

    on(offline, linked=False)
    on(silent)
    on(cut)


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


@pytest.mark.parametrize(
    ("reason", "error"), [("NotFound", NotFound), ("Forbidden", Refused), ("Unavailable", Unavailable)]
)
def test_a_refused_question_raises_what_the_cloud_said(reason: str, error: type[SkerryError]) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        def answer(question: Message) -> None:
            failure = reply(question, Failure(reason=reason, message="no"), operation=Op.ERROR)
            asyncio.get_running_loop().call_soon(meta.answered, failure)

        line.on_send = answer
        with pytest.raises(error, match="no"):
            await meta.ask(Op.QUERY, "d/configmap/a")

    on(scene)


def test_pods_are_only_all_of_them_once_the_store_is_whole() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.complete = False
        with pytest.raises(Incomplete):
            await meta.pods()
        store.complete = True
        assert await meta.pods() == []

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


def test_the_inventory_is_what_is_held_and_the_session_before() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        inventory = await meta.inventory()
        assert {uid: (entry.resource, entry.version) for uid, entry in inventory.objects.items()} == {
            "u1": ("d/configmap/a", "12")
        }

    on(scene)


def test_a_report_is_on_disk_before_its_sender_goes_on_and_leaves_when_acknowledged() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(store.queue) == 1
        (message,) = meta.take(0.0)
        meta.acked([message.id])
        assert len(meta.outbox) == 0

    on(scene)


def test_a_report_that_the_disk_refuses_is_still_sent() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.broken = True
        with pytest.raises(Unavailable):
            await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(meta.take(0.0)) == 1

    on(scene)


def test_rows_lost_at_the_start_are_made_good_by_the_hubs_word() -> None:
    async def play() -> None:
        store, line = Memory(), Line()
        store.complete = False
        store.counters.damaged_rows = 2  # found and dropped when the file was opened: no inventory names them
        meta = MetaManager(store, "edge-1")  # type: ignore[arg-type]
        meta.bind(line)
        meta.connected(Session("hub:1", True, 7), "inventory")
        assert not meta._is_confirmed()
        meta.acked(("inventory",))
        assert meta._is_confirmed()
        store.counters.damaged_rows += 1  # found since: the inventory named it, so the hub did not send it
        assert not meta._is_confirmed()

    asyncio.run(play())


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managing, "DAMAGE_S", 0.01)
    monkeypatch.setattr(managing, "DIGEST_S", 0.02)


async def digests(line: Line, count: int) -> Digest:
    """The newest, when there are so many."""
    async with asyncio.timeout(30):
        while len(line.of(Op.DIGEST)) < count:
            await asyncio.sleep(0.01)
    return line.of(Op.DIGEST)[-1].decode(Digest)


@pytest.mark.usefixtures("often")
def test_a_hub_of_ours_is_told_in_short_what_is_held_and_in_full_when_it_asks() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        assert await digests(line, 1) == digest({})
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        held = len(line.of(Op.DIGEST))
        assert await digests(line, held + 2) == digest({"u1": 12})
        meta.telling("again")
        store.complete = False
        meta.acked(["again"])
        async with asyncio.timeout(30):
            while not store.complete:
                await asyncio.sleep(0.01)

    on(scene)


@pytest.mark.usefixtures("often")
def test_what_is_damaged_is_said_not_to_be_here() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.forwarded("metamanager", push(version="12"))
        await settle()
        store.damaged.add("d/configmap/a")
        held = len(line.of(Op.DIGEST))
        assert await digests(line, held + 2) == digest({})
        assert (await meta.inventory()).objects == {}

    on(scene)


@pytest.mark.usefixtures("often")
def test_a_stock_hub_is_told_nothing_of_the_kind() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await asyncio.sleep(0.1)
        assert line.of(Op.DIGEST) == []

    on(scene, ours=False)


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


def test_a_bug_in_a_part_stays_with_the_frame_that_met_it() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        seen: list[str] = []

        async def part(message: Message) -> None:
            seen.append(message.route.resource)
            if len(seen) == 1:
                raise KeyError("nobody thought of this")

        meta.handlers["devicetwin"] = part
        await meta._hand_to("devicetwin", push(name="a"))
        await meta._hand_to("devicetwin", push(name="b"))
        assert len(seen) == 2

    on(scene)


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
