"""The edge's end of KubeEdge's own tunnel; the cloud is a script made of the bytes that a stock one sends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from beehive import inbox, tunnel
from beehive.errors import NotFound, ProtocolError, Unavailable
from beehive.tunnelpeer import StreamReset
from edgecore.edgestream import stock
from edgecore.edgestream.kubelet import Kubelet
from edgecore.edgestream.ports import Served
from edgecore.edgestream.stock import StockTunnel
from tests.fakes.stockedge import ATTACH, CLOSE, DATA, EXEC, LOGS, METRIC, REMOVE, number, split
from tests.unit.edgecore.edgestream.test_kubelet import Runtime, logged, web

SPDY = {
    "Connection": ["Upgrade"],
    "Upgrade": ["SPDY/3.1"],
    "X-Stream-Protocol-Version": ["v4.channel.k8s.io"],
}


class Cloud:
    """The script's end."""

    def __init__(self) -> None:
        self.down: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.up: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self.pings: list[float] = []
        self.mute = False

    async def recv(self) -> bytes:
        message = await self.down.get()
        if message is None:
            raise Unavailable("connection cut")
        return message

    async def send(self, data: bytes) -> None:
        self.up.put_nowait(split(data))

    async def ping(self, timeout_s: float) -> None:
        self.pings.append(timeout_s)
        if self.mute:
            raise Unavailable(f"no answer to a ping in {timeout_s:g} s")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        return None

    def says(self, connection: int, kind: int, data: bytes = b"") -> None:
        self.down.put_nowait(number(connection) + number(kind) + data)

    def asks(self, connection: int, kind: int, path: str, query: str = "", **more: Any) -> None:
        url = {"Scheme": "http", "Host": "127.0.0.1:10350", "Path": path, "RawPath": "", "RawQuery": query}
        body = {"MessID": connection, "url": url, "header": {"User-Agent": ["kube-apiserver"]}, **more}
        self.says(connection, kind, json.dumps(body).encode())

    async def until_removed(self, connection: int) -> bytes:
        """What came on a stream until the edge's last word about it."""
        got = b""
        while True:
            who, kind, data = await self.up.get()
            if who == connection and kind == REMOVE:
                return got
            if who == connection and kind == DATA:
                got += data


def play(
    handler: Callable[[Served], Awaitable[None]], story: Callable[[Cloud], Awaitable[None]]
) -> list[str]:
    """Why the tunnel ended, if it did."""
    ended: list[str] = []

    async def serve(cloud: Cloud) -> None:
        try:
            await StockTunnel(cloud, handler).run()
        except (Unavailable, ProtocolError) as error:
            ended.append(str(error))

    async def main() -> None:
        cloud = Cloud()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(serve(cloud))
            await story(cloud)
            task.cancel()

    asyncio.run(main())
    return ended


def test_logs_and_numbers_are_bytes_until_the_last_word(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, logged(tmp_path, 0, running=True))})

    async def story(cloud: Cloud) -> None:
        cloud.asks(300, LOGS, "/containerLogs/default/web/c", "tailLines=5")
        assert await cloud.until_removed(300) == b"life 0\n"
        cloud.asks(301, METRIC, "/metrics/resource")
        assert await cloud.until_removed(301) == b"metrics/resource"
        # what is wrong can only be told as the body
        cloud.asks(302, LOGS, "/containerLogs/default/web/c", "previous=true")
        assert await cloud.until_removed(302) == b'previous terminated container "c" in pod "web" not found'
        cloud.asks(303, LOGS, "/containerLogs/default/nope/c")
        assert await cloud.until_removed(303) == b'pod "nope" does not exist'

    assert play(Kubelet(runtime).serve, story) == []


def test_an_exec_begins_with_the_runtimes_answer_and_is_a_pipe_then(tmp_path: Path) -> None:
    async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: SPDY/3.1" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data.upper())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(streaming, "127.0.0.1", 0)
        runtime = Runtime({"web": web(tmp_path, logged(tmp_path, 0, running=True))})
        runtime.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/exec/token"
        cloud = Cloud()
        async with asyncio.timeout(30), server, asyncio.TaskGroup() as group:
            task = group.create_task(StockTunnel(cloud, Kubelet(runtime).serve).run())
            for connection, kind, path in ((1, EXEC, "/exec"), (2, ATTACH, "/attach")):
                cloud.asks(
                    connection,
                    kind,
                    f"{path}/default/web/c",
                    "command=x&input=1&output=1",
                    method="POST",
                    header=SPDY,
                )
                head = b""
                while b"\r\n\r\n" not in head:
                    who, kind, data = await cloud.up.get()
                    assert (who, kind) == (connection, DATA)
                    head += data
                assert re.match(
                    rb"HTTP/1\.1 101 Switching Protocols\r\n(.*\r\n)*Upgrade: SPDY/3\.1\r\n", head
                )
                payload = b"abc" * 100_000
                for at in range(0, len(payload), 256):
                    cloud.says(connection, DATA, payload[at : at + 256])
                got = b""
                while len(got) < len(payload):
                    got += (await cloud.up.get())[2]
                assert got == payload.upper()
                cloud.says(connection, REMOVE)
            cloud.asks(3, EXEC, "/exec/default/nope/c", "command=x&output=1", method="POST", header=SPDY)
            refused = await cloud.until_removed(3)
            assert refused.startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert b"Content-Length: 18\r\n\r\npod does not exist" in refused
            task.cancel()

    asyncio.run(main())


def test_a_client_that_goes_away_ends_its_stream() -> None:
    ended = asyncio.Event()

    async def handler(stream: Served) -> None:
        await stream.answer(tunnel.Answer(status=200))
        await stream.write(b"here")
        with pytest.raises(StreamReset, match="client went away"):
            await stream.read()
        ended.set()

    async def story(cloud: Cloud) -> None:
        cloud.asks(5, LOGS, "/containerLogs/default/web/c", "follow=true")
        assert await cloud.up.get() == (5, DATA, b"here")
        cloud.says(5, REMOVE)
        await ended.wait()
        # nothing more is said of it
        await asyncio.sleep(0)
        assert cloud.up.empty()

    assert play(handler, story) == []


def test_a_container_that_takes_nothing_holds_up_the_others_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "STALL_S", 0.05)

    async def handler(stream: Served) -> None:
        await stream.answer(tunnel.Answer(status=101))
        if "deaf" in stream.head.path:
            await asyncio.sleep(3600)
        while data := await stream.read():
            await stream.write(data)

    async def story(cloud: Cloud) -> None:
        for connection, name in ((1, "deaf"), (2, "web")):
            cloud.asks(connection, EXEC, f"/exec/default/{name}/c", "command=x", method="POST", header=SPDY)
        for _ in range(40):
            cloud.says(1, DATA, b"x" * 16384)
        cloud.says(2, DATA, b"still heard")
        while (await cloud.up.get())[2] != b"still heard":
            pass

    assert play(handler, story) == []


def test_what_goes_wrong_in_one_stream_ends_that_one(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: Served) -> None:
        if "bug" in stream.head.path:
            raise RuntimeError("a bug")
        raise NotFound("gone")

    async def story(cloud: Cloud) -> None:
        cloud.asks(1, LOGS, "/containerLogs/default/bug/c")
        assert await cloud.until_removed(1) == b""
        cloud.asks(2, LOGS, "/containerLogs/default/web/c")
        assert await cloud.until_removed(2) == b""
        cloud.says(3, LOGS, b"{not json")
        assert await cloud.until_removed(3) == b""
        cloud.says(4, DATA, b"for nobody")
        cloud.says(4, REMOVE)
        cloud.says(4, 77, b"an unknown type")
        cloud.asks(5, LOGS, "/containerLogs/default/web/c")
        assert await cloud.until_removed(5) == b""

    assert play(handler, story) == []
    assert "Stream 1 failed" in caplog.text


def test_it_ends_when_the_cloud_says_so_or_nothing() -> None:
    async def handler(stream: Served) -> None:
        await stream.read()

    async def closes(cloud: Cloud) -> None:
        cloud.says(0, CLOSE, b"no such node")
        await asyncio.sleep(0.01)

    assert play(handler, closes) == ["the cloud ended it: no such node"]

    async def cut(cloud: Cloud) -> None:
        cloud.asks(1, LOGS, "/containerLogs/default/web/c")
        cloud.down.put_nowait(None)
        await asyncio.sleep(0.01)

    assert play(handler, cut) == ["connection cut"]

    async def mute(cloud: Cloud) -> None:
        cloud.mute = True
        await asyncio.sleep(0.01)
        assert cloud.pings == [stock.FIRST_PONG_S]

    assert play(handler, mute) == ["no answer to a ping in 150 s"]

    async def garbage(cloud: Cloud) -> None:
        cloud.down.put_nowait(b"\xff" * 12)
        await asyncio.sleep(0.01)

    assert play(handler, garbage) == ["tunnel message with a number of more than 64 bits"]


def test_no_more_streams_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "MAX_STREAMS", 2)

    async def handler(stream: Served) -> None:
        await stream.read()

    async def story(cloud: Cloud) -> None:
        for connection in (1, 2, 3):
            cloud.asks(connection, LOGS, "/containerLogs/default/web/c", "follow=true")
        assert await cloud.up.get() == (3, REMOVE, b"")

    assert play(handler, story) == []
