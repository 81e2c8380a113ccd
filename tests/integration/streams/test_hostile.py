"""Nodes and clients that mean no good, at the subresources of the control plane in the box and at a node's endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import Peer, Stream
from cloudcore.cloudstream import channels, proxy
from cloudcore.cloudstream.proxy import PodStreams
from cloudcore.cloudstream.tunnels import Tunnels
from tests.integration.streams.rig import Line
from tests.integration.streams.test_endpoint import stage

NODE = "edge-1"
POD = {
    "metadata": {"namespace": "default", "name": "web"},
    "spec": {"nodeName": NODE, "containers": [{"name": "c"}]},
    "status": {"phase": "Running"},
}
PATIENCE_S = 30.0
SPDY = [
    ("Connection", "Upgrade"),
    ("Upgrade", "SPDY/3.1"),
    ("X-Stream-Protocol-Version", channels.RUNTIME_PROTOCOL),
]
Handler = Callable[[Stream], Awaitable[None]]


@dataclass
class Stage:
    tunnels: Tunnels
    url: str
    session: aiohttp.ClientSession
    edge: Handler

    async def log(self) -> tuple[int, str]:
        async with self.session.get(f"{self.url}/log", allow_redirects=False) as answer:
            return answer.status, await answer.text()

    def exec(self) -> Any:
        return self.session.ws_connect(f"{self.url}/exec?command=x&stdout=true", protocols=(channels.V5,))

    async def refused(self) -> tuple[int, str]:
        """What a client is told whose exec did not come about."""
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        async with self.session.post(f"{self.url}/exec?command=x&stdout=true", headers=headers) as answer:
            return answer.status, await answer.text()


async def nothing(stream: Stream) -> None:
    del stream


@contextlib.asynccontextmanager
async def plane() -> AsyncIterator[Stage]:
    tunnels = Tunnels()

    async def get_pod(namespace: str, name: str) -> dict[str, Any]:
        del namespace, name
        return POD

    streams = PodStreams(tunnels, get_pod=get_pod)
    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await streams.handle(request, "default", "web", request.match_info["what"])

    app.router.add_route("*", "/{what}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    up: asyncio.Queue[bytes | None] = asyncio.Queue(16)
    down: asyncio.Queue[bytes | None] = asyncio.Queue(16)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        made = Stage(tunnels, f"http://127.0.0.1:{runner.addresses[0][1]}", session, nothing)

        async def edge(stream: Stream) -> None:
            await made.edge(stream)

        tasks = [
            group.create_task(tunnels.serve_tunnel(NODE, Line(up, down))),
            group.create_task(Peer(Line(down, up), tunnel.Role.EDGE, handler=edge).run()),
        ]
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            await session.close()
            await runner.cleanup()
            for task in tasks:
                task.cancel()


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def scene() -> None:
        async with plane() as made, asyncio.timeout(PATIENCE_S):
            await story(made)

    asyncio.run(scene())


def answering(status: int, headers: list[tuple[str, str]], body: bytes = b"", *, end: bool = True) -> Handler:
    async def edge(stream: Stream) -> None:
        await stream.answer(tunnel.Answer(status=status, headers=headers))
        await stream.write(body)
        if end:
            await stream.end()
        else:
            await stream.read()

    return edge


async def endless_refusal(stream: Stream) -> None:
    await stream.answer(tunnel.Answer(status=400))
    while True:
        await stream.write(b"no " * 10_000)


def test_a_node_redirects_nobody_and_its_refusals_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "ERROR_TEXT_S", 0.1)

    async def story(s: Stage) -> None:
        for status, headers in (
            (302, [("Location", "http://127.0.0.1/secret")]),
            (101, SPDY),
            (204, []),
            (599, []),
        ):
            s.edge = answering(status, headers)
            code, text = await s.log()
            assert code == 502
            assert json.loads(text)["message"] == f"the node answered with status {status}"
        s.edge = answering(401, [("WWW-Authenticate", "Basic")], b"give me your password")
        assert (await s.log())[0] == 502
        s.edge = endless_refusal
        code, text = await s.log()
        assert code == 400
        assert 100 < len(json.loads(text)["message"]) <= proxy.MAX_ERROR_TEXT
        # one that begins to speak and stops
        s.edge = answering(404, [], b"pod does", end=False)
        assert json.loads((await s.log())[1])["message"] == "pod does"
        assert await s.refused() == (404, "pod does\n")

    play(story)


def test_text_where_an_upgrade_was_due() -> None:
    async def story(s: Stage) -> None:
        for status, headers in ((200, []), (302, [("Location", "/")]), (101, [])):
            s.edge = answering(status, headers, b"hello" * 100)
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await s.exec()
            assert caught.value.status == 502
        s.edge = answering(200, [])
        assert (await s.refused())[0] == 502

    play(story)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"\0" * 8 + struct.pack("!II", 1, 0xFFFFFF) + b"x" * 1000,
        struct.pack("!HHI", 0x8003, 2, 14) + struct.pack("!I", 1) + b"not zlib!!",
        struct.pack("!HHI", 0x8003, 1, 4) + struct.pack("!I", 2),
        struct.pack("!HHI", 0x8002, 6, 4) + b"\0\0\0\1",
    ],
)
def test_what_is_no_spdy_ends_the_session_with_a_reason(garbage: bytes) -> None:
    async def story(s: Stage) -> None:
        s.edge = answering(101, SPDY, garbage, end=False)
        async with s.exec() as socket:
            last = b""
            async for message in socket:
                last = message.data if message.data[1:] else last
            assert last[0] == channels.ERROR
            status = json.loads(last[1:])
            assert status["status"] == "Failure"
            assert "SPDY" in status["message"]
            assert socket.close_code == 1011
        assert s.tunnels.connected(NODE)

    play(story)


def test_a_client_that_never_reads_holds_its_own_stream_only() -> None:
    sent = 0

    async def floods(stream: Stream) -> None:
        nonlocal sent
        await stream.answer(tunnel.Answer(status=200))
        if sent:
            await stream.write(b"quick")
            await stream.end()
            return
        while True:
            await stream.write(b"x" * 65536)
            sent += 65536

    async def story(s: Stage) -> None:
        s.edge = floods
        host, _, port = s.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(b"GET /log HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while sent != before:
            # it is full when it has taken nothing for a while
            before = sent
            await asyncio.sleep(0.5)
        # windows, socket buffers and a little in between
        assert 0 < sent < 16 * 1024 * 1024
        assert await s.log() == (200, "quick")
        writer.transport.abort()

    play(story)


def test_ten_thousand_opens_are_refused_beyond_what_a_node_may_have() -> None:
    async def story(s: Stage) -> None:
        s.edge = answering(200, [], end=False)
        head = tunnel.Head(kind="http", method="GET", path="/containerLogs/default/web/c?follow=true")
        opened, refused = [], []
        for _ in range(10_000):
            try:
                opened.append((await s.tunnels.open(NODE, head))[0])
            except Unavailable as error:
                refused.append(str(error))
        assert (len(opened), len(refused)) == (256, 10_000 - 256)
        assert set(refused) == {"node has 256 streams open already"}
        assert (await s.log())[0] == 503
        for stream in opened:
            stream.reset("done")
        s.edge = answering(200, [], b"again")
        assert await s.log() == (200, "again")

    play(story)


def test_a_header_of_64_mib_is_cut_short(tmp_path: Path) -> None:
    async def send(port: int, tls: ssl.SSLContext) -> tuple[int, bytes]:
        """Bytes that were taken, and the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(b"GET /pods HTTP/1.1\r\nHost: x\r\nX-Long: ")
        taken = 0
        try:
            for _ in range(64 * 16):
                writer.write(b"x" * 65536)
                await writer.drain()
                taken += 65536
                if reader.at_eof():
                    break
            return taken, await reader.read(4096)
        except ConnectionError:
            return taken, b""
        finally:
            writer.transport.abort()

    async def scene() -> None:
        async with stage(tmp_path) as s, asyncio.timeout(PATIENCE_S):
            s.edge = answering(200, [], b"fine")
            taken, answer = await send(s.port, s.client(s.cluster))
            assert taken < 16 * 1024 * 1024
            assert answer == b"" or answer.startswith(b"HTTP/1.0 400") or answer.startswith(b"HTTP/1.1 400")
            assert await s.get("/pods") == (200, "fine")

    asyncio.run(scene())
