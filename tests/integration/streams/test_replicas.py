"""Several cloudcores, as processes with real TLS: a request for a node takes the way to the one that holds it; and the door by
which the tunnels of stock edges come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from beehive import session, tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import Peer
from cloudcore.identity import pki
from cloudcore.identity.authority import ensure_authority
from cloudcore.identity.subjects import HUB_USER
from cloudcore.objects import HUB_ANNOTATION, NODE, POD, annotation
from edgecore.edgehub.websocket import dial_stock_tunnel
from edgecore.edgestream.ports import Served
from edgecore.edgestream.stock import StockTunnel
from tests.fakes import edge
from tests.fakes.stockedge import LOGS, StockEdge, kubelet_port
from tests.integration.link.cloud import (
    Process,
    node_body,
    pod_body,
    process,
    replica,
    using,
)
from tests.support.ports import free_port

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def compat() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stock_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, compat: int, stock_port: int) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("first"), compat_port=compat, stock_port=stock_port) as running:
        yield running


class Binary:
    """A websocket as a tunnel wants it.   text: as a stock edge sends."""

    def __init__(self, socket: ClientConnection, *, text: bool = False) -> None:
        self.socket = socket
        self._text = text

    async def recv(self) -> bytes:
        try:
            return await self.socket.recv(decode=False)
        except ConnectionClosed as closed:
            raise Unavailable(str(closed)) from closed

    async def send(self, data: bytes) -> None:
        try:
            await self.socket.send(data, text=self._text)
        except ConnectionClosed as closed:
            raise Unavailable(str(closed)) from closed

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)


async def serves(stream: Served) -> None:
    """A node of which each answer tells what was asked."""
    if stream.head.path.startswith("/containerLogs/default/broken/"):
        await stream.answer(tunnel.Answer(status=400, headers=[("Content-Type", "text/plain")]))
        await stream.write(b'container "c" in pod "broken" is waiting to start: ContainerCreating')
    elif "follow=true" in stream.head.path:
        await stream.answer(tunnel.Answer(status=200))
        await stream.write(b"first\n")
        await stream.read()
        return
    elif stream.head.path.startswith("/containerLogs/default/big/"):
        await stream.answer(tunnel.Answer(status=200))
        for _ in range(64):
            await stream.write(b"0123456789abcde\n" * 4096)
    else:
        await stream.answer(tunnel.Answer(status=200))
        await stream.write(f"{stream.head.path}\n".encode())
    await stream.end()


@contextlib.asynccontextmanager
async def node_at(hub: str, identity: edge.Identity) -> AsyncIterator[Peer]:
    """A node of ours with its link and its tunnel at this hub."""
    headers = [
        (session.HEADER_NODE, identity.node),
        (session.HEADER_USE, "str"),
        (session.HEADER_PROTOCOL, "1"),
    ]
    async with (
        edge.connected(hub, identity),
        connect(
            f"wss://{hub}/tunnel", ssl=identity.tls(), additional_headers=headers, compression=None
        ) as socket,
    ):
        peer = Peer(Binary(socket), tunnel.Role.EDGE, handler=serves)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(until_closed(peer.run()))
            try:
                yield peer
            finally:
                task.cancel()


async def until_closed(run: Awaitable[None]) -> None:
    with contextlib.suppress(Unavailable):
        await run


async def kubectl(cloud: Process, *args: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        *("kubectl", f"--kubeconfig={cloud.kubeconfig}", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def until_logs(cloud: Process, pod: str, wanted: str) -> tuple[int, str, str]:
    """Ask for a pod's log until `wanted` is in the answer: the tunnel needs a moment to stand."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            got = await kubectl(cloud, "logs", pod)
            if wanted in got[1] + got[2]:
                return got
            await asyncio.sleep(0.2)


def test_a_request_goes_to_the_cloudcore_that_holds_the_node(first: Process, tmp_path: Path) -> None:
    async def go(second: Process, child: Any) -> None:
        async with using(first) as cloud:
            identity = await cloud.node("far")
            await cloud.create(NODE, node_body("far"))
            for name in ("web", "broken", "big"):
                await cloud.create(POD, pod_body(name, "far"))
            async with node_at(first.hub, identity) as tunnelled, edge.connected(second.hub, identity):
                # the link went to the other one, so the tunnel has to follow
                line = tunnelled._connection
                assert isinstance(line, Binary)
                async with asyncio.timeout(PATIENCE_S):
                    await line.socket.wait_closed()
            async with node_at(second.hub, identity):
                told = annotation(await cloud.api.get(NODE, "far"), HUB_ANNOTATION)
                assert told == second.hub
                got = await until_logs(first, "web", "/containerLogs/")
                assert got == (0, "/containerLogs/default/web/c\n", "")
                code, _, err = await kubectl(first, "logs", "broken")
                assert (code, "is waiting to start: ContainerCreating" in err) == (1, True), err
                code, out, err = await kubectl(first, "logs", "big")
                assert code == 0, err
                assert out == "0123456789abcde\n" * 4096 * 64
                # many at once share one connection
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(kubectl(first, "logs", "web")) for _ in range(8)]
                assert {task.result()[:2] for task in tasks} == {(0, "/containerLogs/default/web/c\n")}
                await a_follower_ends_when_its_cloudcore_is_killed(child)
            code, _, err = await kubectl(first, "logs", "web")
            assert code == 1
            assert 'node "far" was last connected to the cloudcore at' in err, err
            assert "which cannot be asked now" in err
            # home again
            async with node_at(first.hub, identity):
                assert (await until_logs(first, "web", "/containerLogs/"))[0] == 0

    async def a_follower_ends_when_its_cloudcore_is_killed(child: Any) -> None:
        follow = await asyncio.create_subprocess_exec(
            *("kubectl", f"--kubeconfig={first.kubeconfig}", "logs", "-f", "web"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert follow.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                assert await follow.stdout.readline() == b"first\n"
                child.kill()
                assert await follow.wait() == 1
        finally:
            if follow.returncode is None:
                follow.kill()
            await follow.communicate()

    with replica(tmp_path, first.kubeconfig, streams=True) as (second, child):
        asyncio.run(go(second, child))


def test_only_a_cloudcore_comes_in_by_the_door_of_cloudcores(first: Process) -> None:
    async def status(tls: ssl.SSLContext, headers: dict[str, str] | None = None) -> int:
        try:
            async with connect(f"wss://{first.hub}/hub", ssl=tls, additional_headers=headers or {}):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    async def go() -> None:
        async with using(first) as cloud:
            identity = await cloud.node("nosy")
            node = {session.HEADER_NODE: "nosy"}
            assert await status(identity.tls(), node) == 403
            assert await status(edge.client_tls(cloud.ca)) == 403
            authority = await ensure_authority(cloud.api)
            now, day = datetime.now(UTC), timedelta(days=1)
            # the name alone is nothing without the group, and neither is it with another authority's word
            half = pki.issue(authority.pair, common_name=HUB_USER, client=True, lifetime=day, now=now)
            assert await status(edge.client_tls(cloud.ca, half.certificate_pem.decode(), half.key_pem)) == 403
            other = pki.make_ca("other", lifetime=day, now=now)
            forged = pki.issue(
                other,
                common_name=HUB_USER,
                organizations=["skerry:cloudcores"],
                client=True,
                lifetime=day,
                now=now,
            )
            with pytest.raises((OSError, InvalidMessage)):
                await status(edge.client_tls(cloud.ca, forged.certificate_pem.decode(), forged.key_pem))

    asyncio.run(go())


def test_a_node_cannot_say_where_its_cloudcore_is(first: Process) -> None:
    async def go() -> None:
        async with using(first) as cloud:
            identity = await cloud.node("liar")
            await cloud.create(NODE, node_body("liar"))
            await cloud.create(POD, pod_body("web", "liar"))
            async with node_at(first.hub, identity), edge.connected(first.hub, identity) as link:
                lie = {"metadata": {"annotations": {HUB_ANNOTATION: "127.0.0.1:1", "own": "1"}}, "status": {}}
                await link.request("patch", "default/nodepatch/liar", json.dumps(lie))
                held = await cloud.api.get(NODE, "liar")
                assert annotation(held, "own") == "1"
                assert annotation(held, HUB_ANNOTATION) == first.hub

    asyncio.run(go())


def test_the_tunnel_of_a_stock_edge(first: Process, stock_port: int) -> None:
    where = f"wss://127.0.0.1:{stock_port}/v1/kubeedge/connect"

    async def status(identity: edge.Identity, tls: ssl.SSLContext, name: str) -> int:
        try:
            async with connect(where, ssl=tls, additional_headers={"SessionHostNameOverride": name}):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    async def go() -> None:
        async with using(first) as cloud:
            identity, other = await cloud.node("stock"), await cloud.node("other")
            await cloud.create(NODE, node_body("stock"))
            await cloud.create(POD, pod_body("web", "stock"))
            await cloud.create(POD, pod_body("loud", "stock"))
            # the link comes first, the certificate says who it is, and the header must agree
            assert await status(identity, identity.tls(), "stock") == 503
            async with edge.connected(first.hub, identity, ours=False):
                assert await status(identity, edge.client_tls(cloud.ca), "stock") == 401
                assert await status(other, other.tls(), "stock") == 403
                assert await status(other, other.tls(), "other") == 503
                headers = {"Sessionhostnameoverride": "stock", "Sessioninternalip": "10.0.0.1"}
                async with (
                    kubelet_port(serves) as port,
                    connect(
                        where + "/",
                        ssl=identity.tls(),
                        additional_headers=headers,
                        compression=None,
                        ping_interval=1,
                    ) as socket,
                ):
                    line = Binary(socket, text=True)
                    stock = StockEdge(port, line.send)
                    async with asyncio.TaskGroup() as group:
                        task = group.create_task(stock.serve(line.recv))
                        assert await kubectl(first, "logs", "web") == (
                            0,
                            "/containerLogs/default/web/c\n",
                            "",
                        )
                        assert stock.asked[0][0] == LOGS
                        follow = await kubectl(first, "logs", "-f", "loud", "--request-timeout=1")
                        assert follow[1] == "first\n"
                        async with asyncio.timeout(PATIENCE_S):
                            while not stock.removed:
                                await asyncio.sleep(0.05)
                        # a second tunnel of the node takes the place of the first
                        async with connect(where, ssl=identity.tls(), additional_headers=headers):
                            async with asyncio.timeout(PATIENCE_S):
                                await socket.wait_closed()
                        task.cancel()

    asyncio.run(go())


def test_our_edge_speaks_the_tunnel_of_a_stock_cloud(first: Process, stock_port: int) -> None:
    async def go() -> None:
        async with using(first) as cloud:
            identity = await cloud.node("moved")
            await cloud.create(NODE, node_body("moved"))
            for name in ("web", "big"):
                await cloud.create(POD, pod_body(name, "moved"))
            # as an edge has to do with a cloud that is not ours
            async with edge.connected(first.hub, identity, ours=False):
                headers = {"SessionHostNameOverride": "moved"}
                line = await dial_stock_tunnel(f"127.0.0.1:{stock_port}", tls=identity.tls(), headers=headers)
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(until_closed(StockTunnel(line, serves).run()))
                    assert await kubectl(first, "logs", "web") == (0, "/containerLogs/default/web/c\n", "")
                    code, out, err = await kubectl(first, "logs", "big")
                    assert (code, err) == (0, "")
                    assert out == "0123456789abcde\n" * 4096 * 64
                    task.cancel()
                await line.close()

    asyncio.run(go())
