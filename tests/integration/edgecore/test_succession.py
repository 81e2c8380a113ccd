"""A node and the statements that hubs send it, over real TLS, with a hub that may be hostile."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from beehive import clock, succession
from beehive.message import Group, Op, Source, new
from beehive.succession import Chain
from cloudcore.identity import pki
from cloudcore.identity.succession import Held, begin, extend
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.link import Link
from edgecore.edgehub.succession import Follower
from edgecore.edgehub.truetime import TrueTime
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from tests.fakes.hub import HOUR, Authority, FakeHub
from tests.integration.edgecore.test_clock_ahead import YEARS_S, Machine

DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return authority.joined(tmp_path / "pki", "edge-1")


def rotated(authority: Authority, *, window: timedelta = DAY) -> Held:
    now = datetime.now(UTC)
    return begin(
        Held(authority.ca),
        pki.make_ca("next", lifetime=9 * DAY, now=now),
        now=now,
        window=window,
        certificate_life=DAY,
    )


def hash_(pair: pki.KeyPair) -> str:
    return pki.fingerprint(pair.certificate_pem)


class Node:
    def __init__(self, folder: Path, files: Files, hub: FakeHub) -> None:
        self.files, self.follower = files, Follower(files)
        self.store = Store.open(folder / "edgecore.db")
        self.meta = MetaManager(self.store, "edge-1", query_s=5)
        self.link = Link(
            node="edge-1",
            addresses=[hub.address],
            tls=files.tls,
            peer=self.meta,
            ask_time=TrueTime(files).ask,
            authorities=self.follower,
        )
        self.meta.bind(self.link)
        self.meta.handlers["authority"] = self.follower.pushed
        self.follower.tell = self.link.send

    async def run(self) -> None:
        await self.meta.load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.meta.run())
            group.create_task(self.link.run())


def push(statements: list[str]) -> bytes:
    return b'{"statements":[' + b",".join(b'"%s"' % text.encode() for text in statements) + b"]}"


def test_what_a_hub_sends_is_followed_or_refused_and_the_link_stays(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    held, stranger = rotated(authority), rotated(Authority(tmp_path / "other"))
    longer = extend(held, until=datetime.now(UTC) + 2 * DAY)

    async def story() -> None:
        hub = FakeHub(authority)
        async with hub.serving():
            node = Node(tmp_path, files, hub)
            running = asyncio.create_task(node.run())

            async def send(content: bytes) -> str:
                """Push it; what the node says of its trust then."""
                before = len(said())
                await hub.send(
                    new(
                        source=Source.CLOUDHUB,
                        group=Group.HUB,
                        operation=Op.SUCCESSION,
                        resource="null/node/edge-1",
                        content=msgspec.Raw(content),
                    )
                )
                async with asyncio.timeout(30), hub.changed:
                    await hub.changed.wait_for(lambda: len(said()) > before)
                return said()[-1]

            def said() -> list[str]:
                return [m.text() for m in hub.received if m.route.operation == Op.SUCCESSION]

            async with asyncio.timeout(60):
                while node.link.session is None:
                    await asyncio.sleep(0.01)
            old = hash_(authority.ca)
            refused = 0
            for bad in (
                b"[]",
                b'{"statements":[""]}',
                b'{"statements":["' + b"x" * 100_000 + b'"]}',
                b'{"statements":[' + b",".join([b'""'] * 100) + b"]}",
                push(list(stranger.statements)),  # of another cluster
                push([stranger.statements[0], stranger.statements[0]]),
                push([held.statements[0][:-2] + "AA"]),
            ):
                assert await send(bad) == old
                refused += 1
                assert node.follower.refused == refused
            assert await send(push(list(held.statements))) == f"{hash_(held.pair)} 1"
            assert await send(push(list(longer.statements))) == f"{hash_(held.pair)} 2"
            # said again, and the older one
            assert await send(push(list(longer.statements))) == f"{hash_(held.pair)} 2"
            assert await send(push(list(held.statements))) == f"{hash_(held.pair)} 2"
            assert (node.follower.refused, node.follower.followed) == (refused + 1, 1)
            assert hub.sessions == 1
            running.cancel()
            await asyncio.wait({running})
            node.store.close()

    asyncio.run(story())
    assert [known.hash for known in files.trusted()] == [hash_(authority.ca), hash_(held.pair)]


def serving_by(authority: Authority, pair: pki.KeyPair) -> Authority:
    """A hub of the same cluster that proves itself by another authority of it."""
    server = pki.issue(pair, common_name="hub", server=True, lifetime=HOUR, now=datetime.now(UTC))
    (authority.folder / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
    return authority


class Telling(FakeHub):
    """Gives its chain to anybody."""

    chain = Chain()

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == succession.PATH:
            body = msgspec.json.encode(self.chain)
            return Response(200, "OK", Headers({"Content-Length": str(len(body))}), body)
        return super()._request(connection, request)


async def linked_or_told(node: Node) -> str:
    running = asyncio.create_task(node.run())
    try:
        async with asyncio.timeout(60):
            while node.link.session is None and not node.link.last_error:
                await asyncio.sleep(0.01)
        return node.link.last_error if node.link.session is None else ""
    finally:
        running.cancel()
        await asyncio.wait({running})
        node.store.close()


def test_a_hub_that_is_not_trusted_leads_the_node_by_what_it_gives_to_anybody(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    held = rotated(authority)
    hub = Telling(serving_by(authority, held.pair))
    hub.chain = held.chain

    async def story() -> None:
        async with hub.serving():
            assert await linked_or_told(Node(tmp_path, files, hub)) == ""

    asyncio.run(story())
    assert files.trusted()[-1].hash == hash_(held.pair)


def test_somebody_in_between_leads_it_nowhere(tmp_path: Path, authority: Authority, files: Files) -> None:
    before, stranger = files.ca.read_bytes(), rotated(Authority(tmp_path / "other"))
    hub = Telling(serving_by(authority, stranger.pair))
    node: list[Node] = []

    async def story(chain: Chain) -> None:
        hub.chain = chain
        async with hub.serving():
            node.append(Node(tmp_path, files, hub))
            assert "cannot trust the hub" in await linked_or_told(node[-1])

    asyncio.run(story(stranger.chain))
    assert node[-1].follower.refused == 1
    # what is genuine and leads elsewhere than to this hub is followed, and the hub is trusted no more than before
    asyncio.run(story(rotated(authority).chain))
    assert (node[-1].follower.followed, files.ca.read_bytes() != before) == (1, True)


def test_a_clock_that_is_ahead_ends_no_window(
    tmp_path: Path, authority: Authority, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub still proves itself by the old authority, which by the node's clock counts no more."""
    held, machine = rotated(authority), Machine()
    follower = Follower(files)
    assert follower._follow(list(held.statements))
    monkeypatch.setattr(clock, "time", machine)
    monkeypatch.setattr(clock, "_known", None)
    machine.ahead_s = YEARS_S
    hub = FakeHub(authority)

    async def story() -> str:
        async with hub.serving():
            authority.ca = held.pair  # which signs from now on
            return await linked_or_told(Node(tmp_path, files, hub))

    assert asyncio.run(story()) == ""
    assert abs(clock.wall().timestamp() - time.time()) < 120
    assert len(files.trusted()) == 2
