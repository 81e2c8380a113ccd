"""Listeners and feeds, with an API in memory and links that nobody reads but the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from beehive import application
from beehive.application import Application, State
from beehive.message import Message, Op, Source, new
from beehive.session import HubSession
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.dynamiccontroller import controller as module
from cloudcore.dynamiccontroller.controller import DynamicController
from cloudcore.errors import ApiGone, Status
from cloudcore.kube import Page, WatchEvent
from cloudcore.objects import CONFIGMAP, Object, read

MAPS = "/core/v1/configmaps/web/null"


def config(name: str, version: int) -> Object:
    meta = {"name": name, "namespace": "web", "uid": f"u-{name}", "resourceVersion": str(version)}
    return read(CONFIGMAP, json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta}).encode())


class FakeKube:
    """One kind of object; each open watch is a queue."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.version = 10
        self.opened: list[tuple[str, str]] = []  # user, version
        self.watches: list[asyncio.Queue[list[WatchEvent] | Exception]] = []

    async def list_all(self, kind: object, namespace: str, *, query: object, user: Any) -> Page:
        return Page(list(self.objects), str(self.version))

    async def watch(
        self, kind: object, version: str, namespace: str, *, query: object, user: Any
    ) -> AsyncIterator[list[WatchEvent]]:
        self.opened.append((user.name, version))
        queue: asyncio.Queue[list[WatchEvent] | Exception] = asyncio.Queue()
        self.watches.append(queue)
        try:
            while True:
                batch = await queue.get()
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self.watches.remove(queue)

    def happen(self, kind: str, item: Object) -> None:
        self.version = int(item.version)
        for queue in self.watches:
            queue.put_nowait([WatchEvent(kind, item.version, item)])


class FakeAccounts:
    def accounts(self, node: str) -> set[tuple[str, str]]:
        return {("web", "ann")}


class Bench:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.nodes = Nodes()
        fake: Any = self.kube
        self.controller = DynamicController(fake, self.nodes, FakeAccounts())

    def connect(self, node: str, *, ours: bool = True, number: int = 1) -> Link:
        link = Link(HubSession(node=node, ours=ours, number=number, opened_at=0.0))
        self.nodes.open(link)
        return link

    async def ask(self, link: Link, content: object, where: str = application.NULL) -> Message:
        message = new(
            source=Source.METASERVER,
            group=Source.DYNAMICCONTROLLER,
            operation=application.NULL,
            resource=where,
            content=content,
        )
        await self.controller.handle(link, message)
        async with asyncio.timeout(30):
            while True:
                found = pushed(link)
                answers = [frame for frame in found if frame.parent == message.id]
                STASH.setdefault(id(link), []).extend(frame for frame in found if frame not in answers)
                if answers:
                    return answers[0]
                await asyncio.sleep(0)

    async def watch(self, link: Link, account: str | None = "web:ann", **option: str) -> Application:
        app = application.make(
            node=link.node,
            key=MAPS,
            verb="watch",
            option=json.dumps(option).encode(),
            service_account=account,
        )
        return (await self.ask(link, app)).decode(Application)


STASH: dict[int, list[Message]] = {}
"""Frames that came beside an answer, by link."""


def pushed(link: Link) -> list[Message]:
    out = STASH.pop(id(link), [])
    while (frame := link.take(0.0)) is not None:
        out.append(frame)
    return out


def names(link: Link) -> list[tuple[str, str]]:
    """What waits on the link; acknowledged at once, so that the next state can follow."""
    found = pushed(link)
    link.acked(tuple(frame.id for frame in found))
    return [(frame.route.operation, frame.route.resource.rpartition("/")[2]) for frame in found]


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        task = asyncio.get_running_loop().create_task(bench.controller.run())
        try:
            await asyncio.sleep(0)
            await test(bench)
        finally:
            STASH.clear()
            task.cancel()

    asyncio.run(main())


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_stock_edge_gets_everything_first_and_again_after_a_reconnect() -> None:
    async def test(bench: Bench) -> None:
        bench.kube.objects = [config("a", 5)]
        link = bench.connect("n", ours=False)
        assert (await bench.watch(link, None, resourceVersion="9999")).status == State.APPROVED
        await settle()
        assert bench.kube.opened == [("system:node:n", "10")]
        assert names(link) == [(Op.INSERT, "a")]
        bench.kube.happen("ADDED", config("b", 11))
        await settle()
        assert names(link) == [(Op.INSERT, "b")]
        bench.kube.objects = [config("a", 5), config("b", 11), config("c", 12)]
        again = bench.connect("n", ours=False, number=2)
        await settle()
        assert sorted(names(again)) == [(Op.INSERT, "a"), (Op.INSERT, "b"), (Op.INSERT, "c")]

    run(test)


def test_nodes_with_the_same_account_share_one_watch_of_the_api() -> None:
    async def test(bench: Bench) -> None:
        one, two = bench.connect("n1"), bench.connect("n2")
        assert (await bench.watch(one, resourceVersion="10")).status == State.APPROVED
        await settle()
        bench.kube.happen("MODIFIED", config("a", 11))
        await settle()
        # the second listed before that change: it is told from the feed's past
        assert (await bench.watch(two, resourceVersion="10")).status == State.APPROVED
        await settle()
        assert bench.kube.opened == [("system:serviceaccount:web:ann", "10")]
        assert names(one) == names(two) == [(Op.UPDATE, "a")]
        assert (bench.controller.feeds, bench.controller.listeners) == (1, 2)
        await bench.ask(one, {}, application.SYNC_RESOURCE)
        assert (bench.controller.feeds, bench.controller.listeners) == (1, 1)
        await bench.ask(two, {}, application.SYNC_RESOURCE)
        await settle()
        assert (bench.controller.feeds, bench.controller.listeners, bench.kube.watches) == (0, 0, [])

    run(test)


def test_a_version_before_the_feeds_memory_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAST", 2)

    async def test(bench: Bench) -> None:
        one, two = bench.connect("n1"), bench.connect("n2")
        await bench.watch(one, resourceVersion="10")
        await settle()
        for version in range(11, 16):
            bench.kube.happen("MODIFIED", config("a", version))
        await settle()
        refused = await bench.watch(two, resourceVersion="11")
        assert refused.status == State.REJECTED
        assert json.loads(bytes(refused.error.status))["code"] == 410
        assert (await bench.watch(two, resourceVersion="14")).status == State.APPROVED
        await settle()
        assert names(two) == [(Op.UPDATE, "a")]

    run(test)


def test_a_watch_that_the_api_ends_is_given_up_and_said() -> None:
    async def test(bench: Bench) -> None:
        link = bench.connect("n")
        app = await bench.watch(link, resourceVersion="10")
        await settle()
        bench.kube.watches[0].put_nowait(ApiGone(Status(code=410, reason="Expired", message="old")))
        await settle()
        (told,) = pushed(link)
        assert (told.route.resource, told.parent) == (application.SYNC_RESOURCE, "")
        assert list(told.decode(dict[str, Application])) == [app.id]
        assert bench.controller.listeners == 0

    run(test)


def test_a_new_link_of_ours_begins_without_listeners() -> None:
    async def test(bench: Bench) -> None:
        await bench.watch(bench.connect("n"), resourceVersion="10")
        await settle()
        bench.connect("n", number=2)
        await settle()
        assert (bench.controller.feeds, bench.controller.listeners) == (0, 0)

    run(test)


def test_what_left_a_selection_may_come_back() -> None:
    async def test(bench: Bench) -> None:
        link = bench.connect("n")
        await bench.watch(link, resourceVersion="10", labelSelector="a=b")
        await settle()
        told = []
        for kind, version in (("ADDED", 11), ("DELETED", 12), ("ADDED", 13)):
            bench.kube.happen(kind, config("a", version))
            await settle()
            told += names(link)
        assert told == [(Op.INSERT, "a"), (Op.DELETE, "a"), (Op.INSERT, "a")]

    run(test)


def test_an_account_without_a_pod_there_is_refused() -> None:
    async def test(bench: Bench) -> None:
        link = bench.connect("n")
        refused = await bench.watch(link, "web:bob", resourceVersion="10")
        assert json.loads(bytes(refused.error.status))["code"] == 403
        assert bench.kube.opened == []

    run(test)
