"""A node's kubelet endpoint on loopback, asked as an API server asks; the edge behind it is good, bad or gone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import Peer, Stream
from cloudcore.cloudstream.endpoints import OWN_ADDRESSES, Ports
from cloudcore.cloudstream.server import KubeletServer, endpoint_context
from cloudcore.cloudstream.tunnels import Tunnels
from cloudcore.identity import pki
from cloudcore.objects import NODE as NODE_KIND
from cloudcore.objects import Change, Object
from tests.integration.streams.rig import Line
from tests.support.ports import free_port

NODE = "edge-1"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PATCH = (
    b'{"status":{"addresses":[{"type":"InternalIP","address":"10.1.2.3"},{"type":"Hostname","address":"h"}]}}'
)


@dataclass
class Stage:
    """allowed: what the API's authorizer says yes to.   reviews: what it was asked."""

    server: KubeletServer
    tunnels: Tunnels
    port: int
    folder: Path
    cluster: pki.KeyPair
    authority: pki.KeyPair
    edge: Callable[[Stream], Awaitable[None]] | None = None
    allowed: set[tuple[str, str]] = field(
        default_factory=lambda: {("get", "proxy"), ("create", "proxy"), ("get", "stats")}
    )
    tokens: dict[str, str] = field(default_factory=lambda: {"good": "metrics-server"})
    reviews: list[dict[str, Any]] = field(default_factory=list)
    away: bool = False

    async def ask(self, path: str, review: dict[str, Any]) -> dict[str, Any]:
        if self.away:
            raise Unavailable("the API is away")
        self.reviews.append(review)
        if path.endswith("tokenreviews"):
            name = self.tokens.get(review["spec"]["token"])
            return {"status": {"authenticated": name is not None, "user": {"username": name}}}
        wanted = review["spec"]["resourceAttributes"]
        assert wanted["name"] == NODE
        return {"status": {"allowed": (wanted["verb"], wanted["subresource"]) in self.allowed}}

    def client(
        self, signer: pki.KeyPair | None, name: str = "kube-apiserver-kubelet-client"
    ) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
        if signer is not None:
            pair = pki.issue(
                signer, common_name=name, organizations=["system:masters"], client=True, lifetime=DAY, now=NOW
            )
            file = self.folder / "client.pem"
            file.write_bytes(pair.certificate_pem + pair.key_pem)
            context.load_cert_chain(file)
        return context

    async def get(
        self, path: str, *, method: str = "GET", tls: ssl.SSLContext | None = None, **options: Any
    ) -> tuple[int, str]:
        context = tls or self.client(self.cluster)
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"https://127.0.0.1:{self.port}{path}", ssl=context, allow_redirects=False, **options
            ) as answer,
        ):
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def stage(folder: Path, *, connected: bool = True) -> AsyncIterator[Stage]:
    cluster = pki.make_ca("cluster", lifetime=DAY, now=NOW)
    authority = pki.make_ca("skerry", lifetime=DAY, now=NOW)
    tls = endpoint_context(cluster.certificate_pem.decode())
    pair = pki.issue(authority, common_name="hub", ips=["127.0.0.1"], server=True, lifetime=DAY, now=NOW)
    file = folder / "server.pem"
    file.write_bytes(pair.certificate_pem + pair.key_pem)
    tls.load_cert_chain(file)
    first = free_port()
    tunnels = Tunnels()
    made: Stage

    async def ask(path: str, review: dict[str, Any]) -> dict[str, Any]:
        return await made.ask(path, review)

    server = KubeletServer(
        tunnels, tls=tls, ask=ask, address="192.0.2.9", ports=Ports(first, first + 50), host="127.0.0.1"
    )
    made = Stage(server, tunnels, 0, folder, cluster, authority)

    async def edge(stream: Stream) -> None:
        assert made.edge is not None
        await made.edge(stream)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(server.run())]
        up: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        down: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        if connected:
            tasks.append(group.create_task(tunnels.serve_tunnel(NODE, Line(up, down))))
            tasks.append(group.create_task(Peer(Line(down, up), tunnel.Role.EDGE, handler=edge).run()))
        await asyncio.sleep(0)
        while True:
            status = msgspec.json.decode(await server.node_status(NODE, PATCH))
            if "daemonEndpoints" in status["status"]:
                break
            await asyncio.sleep(0.01)
        made.port = status["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()


async def says_hello(stream: Stream) -> None:
    await stream.answer(
        tunnel.Answer(status=200, headers=[("Content-Type", "text/plain"), ("Set-Cookie", "x=y")])
    )
    await stream.write(f"hello {stream.head.path} {sorted(stream.head.headers)}".encode())
    await stream.end()


def play(folder: Path, story: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    async def scene() -> None:
        async with stage(folder, **options) as made:
            await story(made)

    asyncio.run(scene())


def test_the_node_says_that_its_kubelet_is_here(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        patch = msgspec.json.decode(await s.server.node_status(NODE, PATCH))
        assert patch["status"]["addresses"] == [
            {"type": "InternalIP", "address": "192.0.2.9"},
            {"type": "Hostname", "address": "h"},
        ]
        assert patch["metadata"]["annotations"] == {OWN_ADDRESSES: "10.1.2.3"}
        assert patch["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == s.port
        other = msgspec.json.decode(await s.server.node_status("edge-2", PATCH))
        assert other["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] != s.port
        port = other["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        gone = Object(NODE_KIND, "", "edge-2", "uid", "1", b"{}")
        s.server.on_node(Change(gone, None))
        async with asyncio.timeout(30):
            while (await s.server.node_status("edge-3", PATCH)).find(b'"Port":%d}' % port) < 0:
                s.server.on_node(Change(dataclasses.replace(gone, name="edge-3"), None))
                await asyncio.sleep(0.01)

    play(tmp_path, story)


def test_who_may_and_who_may_not(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        s.edge = says_hello
        status, text = await s.get(
            "/containerLogs/default/web/c?follow=true",
            headers={"X-Secret": "s", "Authorization": "Basic eA=="},
        )
        assert (status, text) == (200, "hello /containerLogs/default/web/c?follow=true []")
        nobody = s.client(None)
        assert await s.get("/pods", tls=nobody) == (401, "Unauthorized\n")
        assert (await s.get("/pods", tls=nobody, headers={"Authorization": "Bearer bad"}))[0] == 401
        assert (await s.get("/pods", tls=nobody, headers={"Authorization": "Bearer good"}))[0] == 200
        status, text = await s.get("/metrics/resource")
        assert status == 403
        assert "verb=get, resource=nodes, subresource=metrics" in text
        with pytest.raises(aiohttp.ClientError):
            # a node's certificate is signed by our own authority, which is not the cluster's
            await s.get("/pods", tls=s.client(s.authority, "system:node:edge-2"))
        s.away = True
        # what was decided before still holds; what was not is not allowed
        assert (await s.get("/pods"))[0] == 200
        assert (await s.get("/pods", method="POST"))[0] in (405, 503)
        assert (await s.get("/metrics"))[0] == 403
        assert (await s.get("/stats/summary"))[0] == 503

    play(tmp_path, story)


def test_running_needs_the_right_to_create_whatever_the_method(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        s.allowed = {("get", "proxy")}
        upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        for method in ("GET", "POST"):
            for path in (
                "/exec/default/web/c?command=x",
                "/attach/default/web/c",
                "/portForward/default/web",
                "/run/default/web/c",
            ):
                assert (await s.get(path, method=method, headers=upgrade))[0] == 403

    play(tmp_path, story)


def test_an_upgrade_is_piped_both_ways(tmp_path: Path) -> None:
    async def edge(stream: Stream) -> None:
        assert stream.head.kind == "upgrade"
        assert stream.head.path == "/exec/default/web/c?command=x"
        assert dict(stream.head.headers)["upgrade"] == "SPDY/3.1"
        answer = tunnel.Answer(
            status=101, headers=[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Bad", "1")]
        )
        await stream.answer(answer)
        await stream.write(b"early")
        while data := await stream.read():
            await stream.write(data.upper())

    async def story(s: Stage) -> None:
        s.edge = edge
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port, ssl=s.client(s.cluster))
        writer.write(
            b"POST /exec/default/web/c?command=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"Authorization: Basic eA==\r\nContent-Length: 0\r\n\r\n"
        )
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"X-Bad" not in head
            assert await reader.readexactly(5) == b"early"
            payload = b"abc" * 300_000
            async with asyncio.TaskGroup() as group:
                group.create_task(send(writer, payload))
                assert await reader.readexactly(len(payload)) == payload.upper()
        writer.close()
        async with asyncio.timeout(30):
            while s.tunnels._peers[NODE][0].mux.count:
                await asyncio.sleep(0.01)

    async def send(writer: asyncio.StreamWriter, payload: bytes) -> None:
        writer.write(payload)
        await writer.drain()

    play(tmp_path, story)


def answering(
    status: int, headers: list[tuple[str, str]], body: bytes = b""
) -> Callable[[Stream], Awaitable[None]]:
    async def edge(stream: Stream) -> None:
        await stream.answer(tunnel.Answer(status=status, headers=headers))
        await stream.write(body)
        await stream.end()

    return edge


def test_a_hostile_edge_reaches_nobody(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        s.edge = answering(302, [("Location", "https://127.0.0.1/secret")])
        for path, headers in (("/pods", {}), ("/exec/default/web/c?command=x", upgrade)):
            status, text = await s.get(path, headers=headers)
            assert (status, text) == (502, "the node answered with status 302\n")
        s.edge = answering(101, [])
        assert (await s.get("/pods"))[0] == 502
        s.edge = answering(404, [("Content-Type", "text/plain")], b"pod does not exist")
        assert await s.get("/exec/default/web/c?command=x", headers=upgrade) == (404, "pod does not exist")

        async def endless(stream: Stream) -> None:
            await stream.answer(tunnel.Answer(status=200))
            while True:
                await stream.write(b"x" * 10_000)

        s.edge = endless
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{s.port}/pods", ssl=s.client(s.cluster)) as answer,
        ):
            assert len(await answer.content.readexactly(100_000)) == 100_000

        async def breaks(stream: Stream) -> None:
            await stream.answer(tunnel.Answer(status=200))
            await stream.write(b"half")
            stream.reset("broken")

        s.edge = breaks
        with pytest.raises(aiohttp.ClientError):
            await s.get("/pods")

    play(tmp_path, story)


def test_a_node_that_is_gone_is_said(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        status, text = await s.get("/containerLogs/default/web/c")
        assert status == 503
        assert text == 'node "edge-1" is not connected, so there is no way to its pods now\n'
        assert (await s.get("/nothing"))[0] == 404
        assert await s.get("/healthz") == (200, "ok")

    play(tmp_path, story, connected=False)


def test_more_streams_than_a_node_may_have_are_refused(tmp_path: Path) -> None:
    async def hold(stream: Stream) -> None:
        await stream.answer(tunnel.Answer(status=200))
        await stream.read()

    async def story(s: Stage) -> None:
        s.edge = hold
        peer = s.tunnels._peers[NODE][0]
        peer.mux.limits = tunnel.Limits(streams=3)
        head = tunnel.Head(kind="http", method="GET", path="/pods")
        held = [await s.tunnels.open(NODE, head) for _ in range(3)]
        status, text = await s.get("/pods")
        assert status == 503
        assert "3 streams open already" in text
        for stream, _ in held:
            stream.reset("done")

    play(tmp_path, story)
