"""One tunnel a node; the newest wins."""

from __future__ import annotations

import asyncio

import pytest

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream.tunnels import CLOSE_REPLACED, PodReader, Tunnels
from cloudcore.objects import NODE, Change, Object

HEAD = tunnel.Head(kind="http", method="GET", path="/pods")


class Line:
    """A connection whose other end is a queue: what is put there was sent by the edge."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.closed: int | None = None

    async def recv(self) -> bytes:
        frame = await self.up.get()
        if frame is None:
            raise Unavailable("connection lost")
        return frame

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        if data[0] == tunnel.Kind.OPEN:
            self.up.put_nowait(bytes([tunnel.Kind.ANSWER, *data[1:6]]) + b'{"status":200}')

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code


def test_the_newest_tunnel_of_a_node_wins_and_the_older_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)

    async def main() -> None:
        tunnels, first, second = Tunnels(), Line(), Line()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            one = group.create_task(tunnels.serve_tunnel("edge-1", first))
            await asyncio.sleep(0)
            stream, answer = await tunnels.open("edge-1", HEAD)
            assert answer.status == 200
            two = group.create_task(tunnels.serve_tunnel("edge-1", second))
            with pytest.raises(StreamReset, match="connected anew"):
                await stream.read()
            await one
            assert first.closed == CLOSE_REPLACED
            assert tunnels.connected("edge-1")
            await tunnels.open("edge-1", HEAD)
            assert len(second.sent) == 1
            second.up.put_nowait(None)
            await two
            assert second.closed == 1011
            assert not tunnels.connected("edge-1")
            with pytest.raises(Unavailable, match='node "edge-1" is not connected'):
                await tunnels.open("edge-1", HEAD)

    asyncio.run(main())


def test_pipes_are_expected_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)

    async def main() -> None:
        tunnels, expected = Tunnels(), []
        tunnels.on_pipe = lambda: expected.append(1)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(tunnels.serve_tunnel("edge-1", Line()))
            await asyncio.sleep(0)
            await tunnels.open("edge-1", HEAD)
            assert (expected, tunnels.piped()) == ([], False)
            pipe, _ = await tunnels.open(
                "edge-1", tunnel.Head(kind="upgrade", method="POST", path="/exec/a/b/c")
            )
            assert (expected, tunnels.piped()) == ([1], True)
            pipe.reset("done")
            assert not tunnels.piped()
            task.cancel()

    asyncio.run(main())


def test_pods_cannot_be_read_before_there_is_a_client() -> None:
    with pytest.raises(Unavailable, match="starting"):
        asyncio.run(PodReader().get("default", "web"))


def test_a_deleted_node_loses_its_tunnel_and_the_others_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)
    gone = Object(NODE, "", "edge-1", "uid", "1", b"{}")

    async def main() -> None:
        tunnels = Tunnels()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            one = group.create_task(tunnels.serve_tunnel("edge-1", Line()))
            two = group.create_task(tunnels.serve_tunnel("edge-2", Line()))
            await asyncio.sleep(0)
            stream, _ = await tunnels.open("edge-1", HEAD)
            tunnels.on_node(Change(None, gone))
            tunnels.on_node(Change(gone, gone))
            assert not stream.over
            tunnels.on_node(Change(gone, None))
            with pytest.raises(StreamReset, match="the node was deleted"):
                await stream.read()
            await one
            assert not tunnels.connected("edge-1")
            assert tunnels.connected("edge-2")
            two.cancel()

    asyncio.run(main())
