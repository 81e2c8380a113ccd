"""A fault in what is done for one node stays with that node: cloudcore.edgecontroller.controller."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from beehive.errors import Unavailable
from beehive.message import Inventory, InventoryEntry, Message, Op, digest
from beehive.session import CLOSE_RESTART, Difference, HubSession, State
from cloudcore import secondlook
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.edgecontroller.controller import Caches, EdgeController, _Job
from cloudcore.errors import ApiNotFound, Status
from cloudcore.kube import WatchEvent
from cloudcore.objects import CONFIGMAP, EDGE_LABEL, NODE, POD, SERVICE, Kind, Object, read
from cloudcore.secondlook import Differed


def test_a_fault_in_one_nodes_difference_ends_only_its_connection() -> None:
    async def main() -> None:
        api: Any = None
        controller = EdgeController(api, Caches(api), Nodes())

        async def broken(link: Link, inventory: Inventory) -> Differed:
            if link.node == "a":
                raise RuntimeError("a fault nobody thought of")
            return Differed(set())

        controller.differs.append(broken)
        links = {}
        for name in ("a", "b"):
            session = HubSession(node=name, ours=True, number=1, opened_at=0.0)
            session.opened(0.0)
            links[name] = Link(session)
            await controller._differ_for(_Job(links[name], Inventory(objects={}), ""))
        assert links["a"].closing is not None
        assert links["a"].closing.code == CLOSE_RESTART
        assert links["b"].closing is None

    asyncio.run(main())


class Api:
    """What a second look finds, by (kind, name)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        found = self.objects.get((kind.wire, name))
        if found is None:
            raise ApiNotFound(Status(message="no", reason="NotFound", code=404))
        return found


class Stage:
    """A controller that knows one node, `a`, with one pod of one configmap; and a link of that node."""

    def __init__(self) -> None:
        self.api = Api()
        self.nodes = Nodes()
        api: Any = self.api
        self.caches = Caches(api)
        self.controller = EdgeController(api, self.caches, self.nodes)
        self.set(NODE, "a", 5, labels={EDGE_LABEL: ""})
        self.set(CONFIGMAP, "conf", 10)
        volumes = [{"name": "v", "configMap": {"name": "conf"}}]
        self.set(POD, "web", 20, spec={"nodeName": "a", "volumes": volumes})
        session = HubSession(node="a", ours=True, number=1, opened_at=0.0)
        session.opened(0.0)
        session.state = State.LIVE
        self.link = Link(session)
        self.nodes.open(self.link)

    def set(self, kind: Kind, name: str, version: int, labels: Any = None, **body: Any) -> None:
        """The API has it so, and the caches know."""
        namespace = "ns" if kind.namespaced else ""
        meta = {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": str(version)}
        item = read(kind, msgspec.json.encode({"metadata": {**meta, "labels": labels}, **body}))
        self.api.objects[kind.wire, name] = item
        cache = {
            "pod": self.caches.pods,
            "node": self.caches.nodes,
            "configmap": self.caches.configmaps,
            "service": self.caches.services,
        }
        cache[kind.wire].take_event(WatchEvent("MODIFIED", "", item))

    async def compare(self, **held: tuple[str, int]) -> list[Message]:
        """The node says that it holds these; what it is sent, which it commits."""
        entries = {f"u-{name}": InventoryEntry(path, str(version)) for name, (path, version) in held.items()}
        self.link.session.asked = False
        self.controller.on_difference(self.link, Difference(Inventory(objects=entries)), "")
        await self.controller._differ_for(self.controller._jobs.get_nowait())
        return self.commit()

    def commit(self) -> list[Message]:
        frames: list[Message] = []
        while (frame := self.link.take(0.0)) is not None:
            frames.append(frame)
            if frame.route.operation in (Op.INSERT, Op.UPDATE, Op.DELETE):
                self.link.acked((frame.id,))
        return frames

    def digest(self, **held: int) -> list[str]:
        self.controller.on_digest(self.link, digest({f"u-{name}": version for name, version in held.items()}))
        return shown(self.commit())


def test_a_stock_edge_is_told_of_no_service() -> None:
    async def main(*, ours: bool) -> list[str]:
        stage = Stage()
        session = HubSession(node="a", ours=ours, number=2, opened_at=0.0)
        session.opened(0.0)
        session.state = State.LIVE
        stage.link = Link(session)
        stage.nodes.open(stage.link)
        stage.set(SERVICE, "web", 30)
        await stage.controller._differ_for(_Job(stage.link, Inventory(objects={}), ""))
        found = shown(stage.commit())
        stage.set(SERVICE, "db", 31)
        return found + shown(stage.commit())

    ours = asyncio.run(main(ours=True))
    assert "insert ns/service/web" in ours
    assert "insert ns/service/db" in ours
    stock = asyncio.run(main(ours=False))
    assert "insert ns/pod/web" in stock
    assert not [line for line in stock if "/service/" in line]


def shown(frames: list[Message]) -> list[str]:
    return [f"{frame.route.operation} {frame.route.resource}" for frame in frames]


WHOLE: dict[str, tuple[str, int]] = {
    "a": ("null/node/a", 5),
    "conf": ("ns/configmap/conf", 10),
    "web": ("ns/pod/web", 20),
}
SHORT = {"a": 5, "conf": 10, "web": 20}
ASKED = ["inventory null/node/a"]


def test_a_digest_that_agrees_asks_for_nothing() -> None:
    async def main() -> None:
        stage = Stage()
        assert await stage.compare(**WHOLE) == []
        assert stage.digest(**SHORT) == []
        assert stage.controller.drifts == 0

    asyncio.run(main())


def test_what_a_node_lost_without_a_word_is_found_and_sent_again() -> None:
    async def main() -> None:
        stage = Stage()
        sent = await stage.compare(a=WHOLE["a"])
        assert shown(sent) == ["insert ns/configmap/conf", "insert ns/pod/web"]
        assert stage.digest(**SHORT) == []
        assert stage.digest(a=5, web=20) == ASKED
        assert shown(await stage.compare(a=WHOLE["a"], web=WHOLE["web"])) == ["insert ns/configmap/conf"]
        assert stage.digest(**SHORT) == []

    asyncio.run(main())


def test_a_push_that_was_missed_here_is_made_good() -> None:
    async def main() -> None:
        stage = Stage()
        await stage.compare(**WHOLE)
        stage.link.ready = False
        stage.set(CONFIGMAP, "conf", 30)
        stage.link.ready = True
        assert stage.digest(**SHORT) == ["update ns/configmap/conf"]
        assert stage.digest(**{**SHORT, "conf": 30}) == []

    asyncio.run(main())


def test_what_nobody_knows_and_stays_is_asked_for_once() -> None:
    async def main() -> None:
        stage = Stage()
        await stage.compare(**WHOLE)
        kept = {**WHOLE, "claim": ("ns/persistentvolumeclaim/claim", 3)}
        assert stage.digest(**SHORT, claim=3) == ASKED
        assert await stage.compare(**kept) == []
        assert [stage.digest(**SHORT, claim=3) for _ in range(9)] == [[]] * 9

    asyncio.run(main())


def test_digests_that_never_agree_cost_ever_less() -> None:
    async def main() -> None:
        stage = Stage()
        await stage.compare(**WHOLE)
        asked = 0
        for _ in range(100):
            if stage.digest(nonsense=1) == ASKED:
                asked += 1
                await stage.compare(**WHOLE)
        assert asked == 7

    asyncio.run(main())


def test_a_node_that_holds_what_the_api_forgot_goes_back_with_it() -> None:
    """It was away when the API was restored: only its versions tell."""

    async def main() -> None:
        stage = Stage()
        ahead = {
            **WHOLE,
            "web": ("ns/pod/web", 70),
            "conf": ("ns/configmap/conf", 80),
            "a": ("null/node/a", 90),
        }
        sent = await stage.compare(**ahead)
        assert sorted(shown(sent)) == ["update ns/configmap/conf", "update ns/pod/web", "update null/node/a"]
        assert all(frame.is_restored for frame in sent)
        assert stage.digest(**SHORT) == []

    asyncio.run(main())


def test_a_cache_that_is_behind_takes_nothing_back() -> None:
    async def main() -> None:
        stage = Stage()
        newer = read(POD, stage.api.objects["pod", "web"].raw.replace(b'"20"', b'"70"'))
        stage.api.objects["pod", "web"] = newer
        assert await stage.compare(**{**WHOLE, "web": ("ns/pod/web", 70)}) == []

    asyncio.run(main())


def test_connected_nodes_go_back_with_the_api_and_on_from_there() -> None:
    async def main() -> None:
        stage = Stage()
        await stage.compare(**WHOLE)
        stage.set(CONFIGMAP, "conf", 4, data={"was": "before"})
        (back,) = stage.commit()
        assert (back.version, back.is_restored) == ("4", True)
        stage.set(CONFIGMAP, "conf", 6, data={"is": "now"})
        (on,) = stage.commit()
        assert (on.version, on.is_restored) == ("6", False)

    asyncio.run(main())


def test_a_second_look_waits_for_an_api_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secondlook, "RETRY_S", 0.0)

    async def main() -> None:
        stage = Stage()
        tries = iter([Unavailable("away")] * 3)
        get = stage.api.get

        async def flaky(kind: Kind, name: str, namespace: str = "") -> Object:
            for error in tries:
                raise error
            return await get(kind, name, namespace)

        monkeypatch.setattr(stage.api, "get", flaky)
        sent = await stage.compare(**WHOLE, old=("ns/pod/old", 3))
        assert shown(sent) == ["delete ns/pod/old"]

    asyncio.run(main())
