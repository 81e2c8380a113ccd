"""The link and metamanager against a hub with real TLS on loopback."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beehive.errors import NotFound, Refused, Unavailable
from beehive.message import Inventory, Message, Op, new
from cloudcore.identity import pki
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.identity import Identity
from edgecore.edgehub.link import REACH_CAP_S, Link
from edgecore.edgehub.websocket import dial
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.process import Change
from edgecore.metamanager.store import Store
from tests.fakes.hub import HOUR, Authority, FakeHub
from tests.vectors_kubeedge import frames


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    return authority.joined(tmp_path / "pki", "edge-1")


class Edge:
    """A node's link and store, without the parts."""

    def __init__(self, store: Store, files: Files, addresses: list[str]) -> None:
        self.meta = MetaManager(store, "edge-1", query_s=5)
        self.link = Link(
            node="edge-1", addresses=addresses, tls=files.tls, peer=self.meta, rng=random.Random(1)
        )
        self.meta.bind(self.link)
        self.changes: list[Change] = []
        self.meta.on_change.append(self.changes.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Edge"]:
        await self.meta.load()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.meta.run()), group.create_task(self.link.run())]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def until_online(self) -> None:
        async with asyncio.timeout(30):
            while not self.meta.online:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def pair(
    tmp_path: Path, authority: Authority, files: Files, *, ours: bool = True, auto_ack: bool = True
) -> AsyncIterator[tuple[FakeHub, Edge]]:
    store = Store.open(tmp_path / "edgecore.db")
    try:
        hub = FakeHub(authority, ours=ours)
        hub.auto_ack = auto_ack
        async with hub.serving(), Edge(store, files, [hub.address]).running() as edge:
            await edge.until_online()
            yield hub, edge
    finally:
        store.close()


@pytest.mark.parametrize("ours", [True, False])
def test_an_object_is_acknowledged_when_it_is_stored(
    tmp_path: Path, authority: Authority, files: Files, ours: bool
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=ours) as (hub, edge):
            pushed = await hub.push("insert", "default/pod/web", 5, spec={})
            await hub.until(lambda: pushed in hub.acked)
            found = await edge.meta.get("pod", "default", "web")
            assert found is not None
            assert [str(c.resource) for c in edge.changes if c.uid] == ["default/pod/web"]

    asyncio.run(story())


def test_the_first_frames_say_who_we_are_and_what_we_hold(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, _):
            pushed = await hub.push("insert", "default/pod/web", 5)
            await hub.until(lambda: pushed in hub.acked)
            hub.received.clear()
            hub.cut()
            await hub.until(lambda: hub.got(Op.INVENTORY))
            assert [m.route.operation for m in hub.received[:2]] == [Op.KEEPALIVE, Op.INVENTORY]
            held = hub.got(Op.INVENTORY)[0].decode(Inventory)
            assert {uid: (e.resource, e.version) for uid, e in held.objects.items()} == {
                "u1": ("default/pod/web", "5")
            }
            headers = hub.requests[-1]
            assert headers["node_id"] == "edge-1"
            assert headers["ConnectionUse"] == "msg"
            assert headers["Skerry-Protocol"] == "1"

    asyncio.run(story())


def test_a_stock_hub_gets_nothing_of_ours(tmp_path: Path, authority: Authority, files: Files) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=False) as (hub, edge):
            await edge.meta.pod_status("default", "web", "u1", b'{"phase":"Running"}')
            await hub.until(lambda: hub.got(Op.PATCH, "podpatch"))
            operations = {m.route.operation for m in hub.received}
            assert operations == {Op.KEEPALIVE, Op.PATCH}
            assert hub.connection is not None
            assert hub.connection.protocol.extensions == []

    asyncio.run(story())


def test_reports_leave_when_answered_by_a_stock_hub(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=False) as (hub, edge):
            hub.answers["patch podpatch"] = lambda m: {"Object": {"metadata": {"name": "web"}}, "Err": None}
            hub.answers["delete pod"] = lambda m: {
                "ErrStatus": {"status": "Failure", "message": "no", "reason": "NotFound", "code": 404}
            }
            await edge.meta.pod_status("default", "web", "u1", b'{"phase":"Running"}')
            await edge.meta.pod_gone("default", "old", "u0")
            await edge.meta.event(b'{"metadata":{"name":"e.1","namespace":"default"},"count":1}')
            async with asyncio.timeout(30):
                while len(edge.meta.outbox):
                    await asyncio.sleep(0.02)
            assert edge.meta.outbox.dropped == {}
            assert hub.got(Op.DELETE, "pod")[0].decode(dict) == {
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u0"},
            }

    asyncio.run(story())


def test_what_was_not_acknowledged_goes_again_after_a_cut_and_after_a_restart(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def first() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            hub.auto_ack = False
            await edge.meta.pod_status("default", "web", "u1", b'{"phase":"Running"}')
            await hub.until(lambda: hub.got(Op.PATCH, "podpatch"))
            hub.received.clear()
            hub.cut()
            await hub.until(lambda: hub.got(Op.PATCH, "podpatch"))

    async def second() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            await hub.until(lambda: hub.got(Op.PATCH, "podpatch"))
            async with asyncio.timeout(30):
                while await edge.meta.store.read(lambda view: view.outbox()):
                    await asyncio.sleep(0.05)

    asyncio.run(first())
    asyncio.run(second())


def test_a_configmap_is_asked_for_once_and_then_kept(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=False) as (hub, edge):
            hub.answers["query configmap"] = lambda m: {
                "kind": "ConfigMap",
                "metadata": {"name": "c", "namespace": "default", "uid": "u9", "resourceVersion": "7"},
                "data": {"a": "b"},
            }
            hub.answers["query secret"] = lambda m: {
                "ErrStatus": {"status": "Failure", "message": "no", "reason": "NotFound", "code": 404}
            }
            for _ in range(2):
                found = await edge.meta.fetch("configmap", "default", "c")
                assert found is not None
                assert b'"a":"b"' in bytes(found)
            assert len(hub.got(Op.QUERY, "configmap")) == 1
            assert await edge.meta.fetch("secret", "default", "s") is None
            hub.answers.clear()
            hub.cut()
            with pytest.raises(Unavailable):
                await edge.meta.fetch("configmap", "default", "other")
            assert await edge.meta.fetch("configmap", "default", "c") is not None

    asyncio.run(story())


def test_a_token_is_kept_while_the_cloud_is_away(tmp_path: Path, authority: Authority, files: Files) -> None:
    request = b'{"spec":{"audiences":["a"],"expirationSeconds":3607,"boundObjectRef":{"uid":"u1"}}}'

    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            hub.answers["query serviceaccounttoken"] = lambda m: {
                "spec": {},
                "status": {"token": f"t{len(hub.received)}", "expirationTimestamp": "2020-01-01T00:00:00Z"},
            }
            one = await edge.meta.token("default", "sa", request)
            two = await edge.meta.token("default", "sa", request)
            assert one != two  # that one had expired: asked again
            hub.answers.clear()
            hub.cut()
            assert await edge.meta.token("default", "sa", request) == two
            with pytest.raises(Unavailable):
                await edge.meta.token("default", "other", request)

    asyncio.run(story())


def test_a_bad_frame_is_refused_and_the_next_is_taken(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, _):
            assert hub.connection is not None
            await hub.connection.send(b"\xff not json", text=False)
            await hub.connection.send('{"header":{"msg_id":5}}')
            bad = await hub.push("insert", "default/pod/../x/y".replace("/x/y", ""), 5)
            good = await hub.push("insert", "default/pod/web", 5)
            await hub.until(lambda: good in hub.acked and bad in hub.failed)
            assert bad not in hub.acked

    asyncio.run(story())


def test_what_an_application_watches_is_not_what_the_node_should_run(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            seen: list[Message] = []

            async def metaserver(message: Message) -> None:
                seen.append(message)
                edge.meta.acknowledge([message])

            edge.meta.handlers["metaserver"] = metaserver
            watched = new(
                source="dynamiccontroller",
                group="resource",
                operation=Op.INSERT,
                resource="default/pod/elsewhere",
                content={"metadata": {"name": "elsewhere", "namespace": "default", "uid": "u5"}},
                version="5",
            )
            await hub.send(watched)
            await hub.until(lambda: watched.id in hub.acked)
            assert [m.id for m in seen] == [watched.id]
            assert await edge.meta.get("pod", "default", "elsewhere") is None

    asyncio.run(story())


def test_a_burst_shares_its_fsyncs(tmp_path: Path, authority: Authority, files: Files) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            before = edge.meta.store.counters.commits
            ids = [await hub.push("insert", f"default/pod/p{n}", n + 1, uid=f"u{n}") for n in range(400)]
            await hub.until(lambda: hub.acked.issuperset(ids))
            assert edge.meta.store.counters.commits - before <= 100  # 0.25 an object

    asyncio.run(story())


def test_while_the_disk_refuses_nothing_is_acknowledged(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge):
            database = edge.meta.store._writer
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            database.execute(f"PRAGMA max_page_count = {pages}")
            refused = await hub.push("insert", "default/pod/big", 5, blob="x" * 50_000)
            await hub.until(lambda: refused in hub.failed)
            assert refused not in hub.acked
            database.execute("PRAGMA max_page_count = 100000")
            taken = await hub.push("insert", "default/pod/big", 5, blob="x" * 50_000)
            await hub.until(lambda: taken in hub.acked)

    asyncio.run(story())


def test_the_node_is_back_after_its_hub(
    tmp_path: Path, authority: Authority, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def story() -> None:
        hub = FakeHub(authority)
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with hub.serving():
                address = hub.address
            node = Edge(store, files, [address])
            pause = node.link._pause

            async def noted(seconds: float) -> None:
                waits.append(seconds)
                await pause(seconds)

            monkeypatch.setattr(node.link, "_pause", noted)
            async with node.running() as edge:
                await asyncio.sleep(6)  # long enough for the waits to have grown
                assert 1 < max(waits) <= REACH_CAP_S
                async with hub.serving():
                    await edge.until_online()
        finally:
            store.close()

    asyncio.run(story())


def test_a_recorded_stock_cloud_gets_the_acknowledgements_that_a_stock_edge_gave(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    """Every push of the recording, in order, as its bytes; the twin group is never acknowledged."""
    pushes = [f for f in frames("down") if not f["header"].get("parent_msg_id")]
    acknowledged = {
        f["header"]["parent_msg_id"] for f in frames("up") if f["route"].get("operation") == "response"
    }
    wanted = {f["header"]["msg_id"] for f in pushes} & acknowledged

    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=False) as (hub, edge):
            twins: list[str] = []

            async def take(message: Message) -> None:
                twins.append(message.route.resource)

            async def watcher(message: Message) -> None:
                edge.meta.acknowledge([message])

            edge.meta.handlers["devicetwin"] = take
            edge.meta.handlers["metaserver"] = watcher
            assert hub.connection is not None
            for push in pushes:
                await hub.connection.send(json.dumps(push) + "\n")
            await hub.until(lambda: wanted <= hub.acked)
            assert hub.failed == {}
            assert len(wanted) > 30
            assert {"membership", "vectors/device/thermo-1", "vectors/devicemodel/thermo"} <= set(twins)
            assert edge.meta.online

    asyncio.run(story())


def test_the_link_goes_through_the_proxy_of_the_environment(
    tmp_path: Path, authority: Authority, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0])
        host, port = head.split()[1].decode().rsplit(":", 1)
        back, there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, there))
            group.create_task(copy(back, writer))

    async def story() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with pair(tmp_path, authority, files) as (hub, _):
            assert asked == [f"CONNECT {hub.address} HTTP/1.1".encode()]
            pushed = await hub.push("insert", "default/pod/web", 5)
            await hub.until(lambda: pushed in hub.acked)
        server.close()
        await server.wait_closed()

    asyncio.run(story())


def test_the_store_is_complete_once_the_hub_says_so(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, auto_ack=False) as (hub, edge):
            await hub.until(lambda: hub.got(Op.INVENTORY))
            await hub.push("insert", "default/pod/web", 5)
            await asyncio.sleep(1.2)
            with pytest.raises(Unavailable):
                await edge.meta.pods()
            inventory = hub.got(Op.INVENTORY)[0].id
            await hub.send(
                new(source="cloudhub", group="resource", operation=Op.ACK, resource="", content=[inventory])
            )
            async with asyncio.timeout(30):
                while not edge.meta.store.complete:
                    await asyncio.sleep(0.02)
            assert len(await edge.meta.pods()) == 1

    asyncio.run(story())


def test_a_certificate_of_another_authority_is_not_trusted(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        other = FakeHub(Authority(tmp_path / "other"))
        good = FakeHub(authority)
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with (
                other.serving(),
                good.serving(),
                Edge(store, files, [other.address, good.address]).running() as edge,
            ):
                await edge.until_online()  # by the second address
                assert other.sessions == 0
        finally:
            store.close()

    asyncio.run(story())


def test_a_nodes_certificate_does_not_pass_for_a_hubs(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        pair = authority.node("edge-2")
        (authority.folder / "node.pem").write_bytes(pair.certificate_pem + pair.key_pem)
        hub = FakeHub(authority)
        hub.certificate = "node.pem"
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with hub.serving(), Edge(store, files, [hub.address]).running() as edge:
                async with asyncio.timeout(30):
                    while not edge.link.last_error:
                        await asyncio.sleep(0.01)
                assert "cannot trust the hub" in edge.link.last_error
        finally:
            store.close()

    asyncio.run(story())


def test_a_hub_that_refuses_is_asked_again(tmp_path: Path, authority: Authority, files: Files) -> None:
    async def story() -> None:
        import http

        hub = FakeHub(authority)
        hub.refuse_with = http.HTTPStatus.SERVICE_UNAVAILABLE
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with hub.serving(), Edge(store, files, [hub.address]).running() as edge:
                async with asyncio.timeout(30):
                    while "503" not in edge.link.last_error:
                        await asyncio.sleep(0.01)
                hub.refuse_with = None
                await edge.until_online()
        finally:
            store.close()

    asyncio.run(story())


def test_an_expired_certificate_says_what_to_do(tmp_path: Path, authority: Authority) -> None:
    files = authority.joined(tmp_path / "expired", "edge-1", timedelta(seconds=-1))

    async def story() -> None:
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with Edge(store, files, ["127.0.0.1:1"]).running() as edge:
                async with asyncio.timeout(30):
                    while not edge.link.last_error:
                        await asyncio.sleep(0.01)
                assert "edgecore join --token" in edge.link.last_error
        finally:
            store.close()

    asyncio.run(story())


def test_a_board_whose_clock_is_years_behind_reaches_its_hub_and_no_expired_one(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    """Without a clock of its own a board starts at the date of its image; what it could ask for the time may be blocked."""
    for name, now in (
        ("later", datetime.now(UTC) + timedelta(days=365)),
        ("over", datetime.now(UTC) - 2 * HOUR),
    ):
        pair = pki.issue(authority.ca, common_name="hub", server=True, lifetime=HOUR, now=now)
        (authority.folder / f"{name}.pem").write_bytes(pair.certificate_pem + pair.key_pem)

    async def story(certificate: str) -> str:
        hub = FakeHub(authority)
        hub.certificate = certificate
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with hub.serving(), Edge(store, files, [hub.address]).running() as edge:
                async with asyncio.timeout(30):
                    while not edge.meta.online and not edge.link.last_error:
                        await asyncio.sleep(0.01)
                return edge.link.last_error
        finally:
            store.close()

    assert asyncio.run(story("later.pem")) == ""
    assert "its certificate has expired" in asyncio.run(story("over.pem"))


def test_an_authority_that_is_over_is_not_trusted(tmp_path: Path) -> None:
    old = Authority(tmp_path / "old")
    old.ca = pki.make_ca("old", lifetime=HOUR, now=datetime.now(UTC) - 2 * HOUR)
    pair = pki.issue(
        old.ca, common_name="system:node:edge-1", client=True, lifetime=HOUR, now=datetime.now(UTC)
    )
    files = Files(tmp_path / "pki")
    ends = (datetime.now(UTC) + HOUR).timestamp()
    files.write(
        Identity(node="edge-1", clouds=(), not_before=0, not_after=ends),
        key=pair.key_pem.decode(),
        certificate=pair.certificate_pem.decode(),
        ca=old.ca.certificate_pem.decode(),
    )
    with pytest.raises(Refused, match="authority that this node trusts has expired"):
        files.tls()


def test_a_long_farewell_in_any_script_does_not_end_the_daemon(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    """A close frame holds 123 bytes, and a reason may quote what a peer or a file system said."""

    async def story() -> None:
        hub = FakeHub(authority)
        async with hub.serving():
            socket = await dial(
                f"wss://{hub.address}/p/edge-1/events", tls=files.tls(), headers={"node_id": "edge-1"}
            )
            await socket.close(1001, "…" * 120)

    asyncio.run(story())


def test_without_joining_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has not joined"):
        Files(tmp_path).tls()


def test_a_silent_hub_is_found(tmp_path: Path, authority: Authority, files: Files) -> None:
    """A relay that stops carrying bytes, as a modem that lost its carrier."""

    async def story() -> None:
        carrying = asyncio.Event()
        carrying.set()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(65536):
                    await carrying.wait()
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_hub, from_hub = None, None
            try:
                from_hub, to_hub = await asyncio.open_connection("127.0.0.1", hub.port)
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, to_hub))
                    group.create_task(pump(from_hub, writer))
            finally:
                if to_hub is not None:
                    to_hub.close()

        hub = FakeHub(authority)
        store = Store.open(tmp_path / "edgecore.db")
        try:
            async with hub.serving():
                server = await asyncio.start_server(relay, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
                async with Edge(store, files, [f"127.0.0.1:{port}"]).running() as edge:
                    await edge.until_online()
                    carrying.clear()
                    # after SILENCE_S, on a machine that has nothing else to do
                    async with asyncio.timeout(60):
                        while edge.meta.online:
                            await asyncio.sleep(0.05)
                    carrying.set()
                    await edge.until_online()
                server.close()
                await server.wait_closed()
        finally:
            store.close()

    asyncio.run(story())
