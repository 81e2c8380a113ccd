"""Two cloudcores in memory: what is passed on, what is not, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from beehive import tunnel
from beehive.errors import ProtocolError, Unavailable
from beehive.tunnelpeer import Peer, Stream, StreamReset
from cloudcore.cloudstream import peers
from cloudcore.cloudstream.peers import Peers
from cloudcore.cloudstream.pipe import Pipe
from cloudcore.cloudstream.tunnels import Tunnels
from cloudcore.objects import HUB_ANNOTATION, NODE, Change, Object

A, B, DEAD = "10.0.0.1:10000", "10.0.0.2:10000", "10.0.0.9:10000"
LOGS = tunnel.Head(kind="http", method="GET", path="/containerLogs/default/web/c?follow=true")


def node(name: str, where: str) -> Object:
    body = {"metadata": {"name": name, "annotations": {HUB_ANNOTATION: where}}}
    return Object(NODE, "", name, "uid", "1", msgspec.json.encode(body))


class Line:
    def __init__(self, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]) -> None:
        self._inbox, self._outbox = inbox, outbox
        # a queue lets who comes by chance overtake who waits
        self._turn = asyncio.Lock()

    async def recv(self) -> bytes:
        frame = await self._inbox.get()
        if frame is None:
            raise Unavailable("connection cut")
        return frame

    async def send(self, data: bytes) -> None:
        async with self._turn:
            await self._outbox.put(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._outbox.put_nowait(None)
        self._inbox.put_nowait(None)


def line() -> tuple[Line, Line]:
    up: asyncio.Queue[bytes | None] = asyncio.Queue(64)
    down: asyncio.Queue[bytes | None] = asyncio.Queue(64)
    return Line(up, down), Line(down, up)


@dataclass
class Stage:
    """Two hubs and the API's word about nodes.   edge: how the node at B answers."""

    group: asyncio.TaskGroup
    word: dict[str, str] = field(
        default_factory=lambda: {"far": B, "near": A, "lost": DEAD, "odd": "nowhere"}
    )
    hubs: dict[str, tuple[Tunnels, Peers]] = field(default_factory=dict)
    dials: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def hub(self, own: str) -> Tunnels:
        tunnels = Tunnels()
        made = Peers(
            tunnels,
            own=own,
            find=lambda name: node(name, self.word[name]) if name in self.word else None,
            nodes=lambda: [node(name, where) for name, where in self.word.items()],
            tls=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        tunnels.bind(made)
        self.hubs[own] = tunnels, made
        self.tasks.append(self.group.create_task(made.run()))
        return tunnels

    async def connect(self, where: str, tls: ssl.SSLContext) -> Line:
        del tls
        self.dials.append(where)
        await asyncio.sleep(0.01)
        if where not in self.hubs:
            raise Unavailable("no answer in 5 s")
        ours, theirs = line()
        self.lines.append(ours)
        self.tasks.append(self.group.create_task(self.hubs[where][1].serve(theirs)))
        return ours

    async def edge(self, tunnels: Tunnels, name: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        cloud, edge = line()
        self.tasks.append(self.group.create_task(tunnels.serve_tunnel(name, cloud)))

        async def run() -> None:
            try:
                await Peer(edge, tunnel.Role.EDGE, handler=handler).run()
            except Unavailable:
                return

        self.tasks.append(self.group.create_task(run()))
        await asyncio.sleep(0)


def play(monkeypatch: pytest.MonkeyPatch, story: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            stage = Stage(group)
            monkeypatch.setattr(peers, "_connect", stage.connect)
            await story(stage)
            for task in stage.tasks:
                task.cancel()

    asyncio.run(main())


async def read_all(pipe: Pipe) -> bytes:
    got = b""
    while data := await pipe.read():
        got += data
    return got


async def tells_path(stream: Stream) -> None:
    await stream.answer(tunnel.Answer(status=200, headers=[("Content-Type", "text/plain")]))
    await stream.write(stream.head.path.encode())
    await stream.end()


async def shouts(stream: Stream) -> None:
    await stream.answer(tunnel.Answer(status=101, headers=[("Upgrade", "SPDY/3.1")]))
    while data := await stream.read():
        await stream.write(data.upper())
    await stream.end()


def test_a_request_is_passed_on_and_its_answer_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Stage) -> None:
        a, b = s.hub(A), s.hub(B)
        await s.edge(b, "far", tells_path)
        pipe, answer = await a.open("far", LOGS)
        assert (answer.status, answer.header("content-type")) == (200, "text/plain")
        assert await read_all(pipe) == LOGS.path.encode()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(a.open("far", LOGS))
        assert s.dials == [B]
        assert a.nodes() == ["far", "lost"]
        # and the other way round, by a connection of its own
        await s.edge(a, "near", tells_path)
        assert await read_all((await b.open("near", LOGS))[0]) == LOGS.path.encode()
        assert s.dials == [B, A]

    play(monkeypatch, story)


def test_bulk_goes_both_ways_and_the_end_of_either_side_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Stage) -> None:
        a, b = s.hub(A), s.hub(B)
        await s.edge(b, "far", shouts)
        head = tunnel.Head(kind="upgrade", method="POST", path="/exec/default/web/c?command=x")
        pipe, answer = await a.open("far", head)
        assert answer.status == 101
        payload = b"abc" * 200_000
        async with asyncio.TaskGroup() as group:
            group.create_task(write(pipe, payload))
            assert await read_all(pipe) == payload.upper()
        pipe, _ = await a.open("far", head)
        await pipe.write(b"x")
        assert await pipe.read() == b"X"
        pipe.reset("the client went away")
        way = b._peers["far"][0]
        assert isinstance(way, Peer)
        while way.mux.count:
            await asyncio.sleep(0.01)

    async def write(pipe: Pipe, payload: bytes) -> None:
        await pipe.write(payload)
        await pipe.end()

    play(monkeypatch, story)


def test_what_breaks_a_stream_is_told_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(stream: Stream) -> None:
        await stream.answer(tunnel.Answer(status=200))
        await stream.write(b"half")
        stream.reset("the disk is away")

    async def story(s: Stage) -> None:
        a, b = s.hub(A), s.hub(B)
        await s.edge(b, "far", breaks)
        pipe, _ = await a.open("far", LOGS)
        with pytest.raises(StreamReset, match="the disk is away"):
            await read_all(pipe)
        await s.edge(b, "far", shouts)
        pipe, _ = await a.open("far", LOGS)
        await s.lines[-1].close()
        with pytest.raises(StreamReset, match="tunnel to the node was lost"):
            await pipe.read()
        while s.hubs[A][1]._lines:
            await asyncio.sleep(0.01)
        assert (await a.open("far", LOGS))[1].status == 101
        assert s.dials == [B, B]

    play(monkeypatch, story)


def test_nothing_is_passed_on_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Stage) -> None:
        a = s.hub(A)
        s.word = {"far": B}
        s.hub(B)
        # a word that sends each to the other
        s.hubs[B][1]._find = lambda name: node(name, A)
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match='"far" is not connected'):
            await a.open("far", LOGS)
        assert s.dials == [B]
        for name in ("unknown", "near", "odd"):
            s.word.update(near=A, odd="nowhere")
            with pytest.raises(Unavailable, match=f'"{name}" is not connected'):
                await a.open(name, LOGS)
        assert s.dials == [B]

    play(monkeypatch, story)


def test_a_tunnel_follows_its_link_to_another_cloudcore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)

    async def story(s: Stage) -> None:
        a, b = s.hub(A), s.hub(B)
        await s.edge(b, "far", shouts)
        pipe, _ = await b.open("far", LOGS)
        here = node("far", B)
        b.on_node(Change(here, here))
        b.on_node(Change(here, node("far", "")))
        assert not pipe.over
        b.on_node(Change(here, node("far", A)))
        with pytest.raises(StreamReset, match="another cloudcore now"):
            await pipe.read()
        while b.connected("far"):
            await asyncio.sleep(0.01)
        await s.edge(a, "far", tells_path)
        s.word["far"] = A
        assert await read_all((await b.open("far", LOGS))[0]) == LOGS.path.encode()

    play(monkeypatch, story)


def test_a_cloudcore_that_is_away_is_dialled_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Stage) -> None:
        a = s.hub(A)
        await asyncio.sleep(0)
        texts: list[str] = []

        async def ask() -> None:
            try:
                await a.open("lost", LOGS)
            except Unavailable as error:
                texts.append(str(error))

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(ask())
        assert set(texts) == {
            f'node "lost" was last connected to the cloudcore at {DEAD}, which cannot be asked now: no answer in 5 s'
        }
        assert (len(texts), s.dials) == (50, [DEAD])
        # nor is it dialled again at once, but it is later
        await ask()
        assert (len(texts), s.dials) == (51, [DEAD])
        monkeypatch.setattr(peers, "RETRY_S", 0.0)
        await ask()
        assert (len(texts), s.dials) == (52, [DEAD, DEAD])

    play(monkeypatch, story)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "TICK_S", 0.01)
    monkeypatch.setattr(peers, "IDLE_S", 0.05)
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)

    async def story(s: Stage) -> None:
        a, b = s.hub(A), s.hub(B)
        await s.edge(b, "far", shouts)
        pipe, _ = await a.open("far", LOGS)
        await asyncio.sleep(0.2)
        assert not pipe.over
        pipe.reset("done")
        while s.hubs[A][1]._lines:
            await asyncio.sleep(0.01)
        await a.open("far", LOGS)
        assert s.dials == [B, B]

    play(monkeypatch, story)


@pytest.mark.parametrize("path", ["/pods", "/nodes/far", "/nodes/../x", "/nodes//pods", "/nodes/a%20b/pods"])
def test_a_path_without_a_node_is_refused(path: str) -> None:
    with pytest.raises(ProtocolError, match="names no node"):
        peers._addressee(tunnel.Head(kind="http", method="GET", path=path))


@pytest.mark.parametrize(
    "where",
    [
        "",
        "x",
        "host:1",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:99999",
        "10.0.0.1:1/x",
        "[::1:5",
        "::1:5",
        "[10.0.0.1]:5",
    ],
)
def test_what_is_no_address_is_nowhere(where: str) -> None:
    assert peers._address(where) is None
    assert peers._address("10.0.0.1:5") == ("10.0.0.1", 5)
    assert peers._address("[fd00::1]:5") == ("[fd00::1]", 5)
