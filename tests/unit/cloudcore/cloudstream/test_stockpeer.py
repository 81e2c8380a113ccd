"""The tunnel of a stock edge that is a script: good, slow, silent, hostile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from beehive import clock, inbox, stocktunnel, tunnel
from beehive.errors import ProtocolError, Unavailable
from beehive.stocktunnel import Kind
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream import stockpeer
from cloudcore.cloudstream.stockpeer import StockPeer, StockStream

LOGS = tunnel.Head(kind="http", method="GET", path="/containerLogs/default/web/c")
FOLLOW = tunnel.Head(kind="http", method="GET", path="/containerLogs/default/web/c?follow=true")
EXEC = tunnel.Head(kind="upgrade", method="POST", path="/exec/default/web/c?command=x&output=1")


class Line:
    """A connection to a stock edge; the test is the edge."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.down: asyncio.Queue[stocktunnel.Frame] = asyncio.Queue()
        self.silent_since: float | None = None

    @property
    def heard(self) -> float:
        return clock.monotonic() if self.silent_since is None else self.silent_since

    async def recv(self) -> bytes:
        frame = await self.up.get()
        if frame is None:
            raise Unavailable("connection cut")
        return frame

    async def send(self, data: bytes) -> None:
        self.down.put_nowait(stocktunnel.decode(data))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.up.put_nowait(None)

    def says(self, number: int, kind: int, data: bytes = b"") -> None:
        self.up.put_nowait(stocktunnel.encode(number, kind, data))


def play(story: Callable[[StockPeer, Line], Awaitable[None]]) -> list[str]:
    """Why the tunnel ended, if it did."""
    ended: list[str] = []

    async def serve(peer: StockPeer) -> None:
        try:
            await peer.run()
        except (Unavailable, ProtocolError) as error:
            ended.append(str(error))

    async def main() -> None:
        line = Line()
        peer = StockPeer("edge-1", line)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            serving = group.create_task(serve(peer))
            await story(peer, line)
            serving.cancel()

    asyncio.run(main())
    return ended


async def read_all(stream: StockStream) -> bytes:
    got = b""
    while data := await stream.read():
        got += data
    return got


def test_a_log_comes_in_parts_and_ends() -> None:
    async def story(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(LOGS)
        asked = await line.down.get()
        assert (asked.connection, asked.kind) == (stream.number, Kind.LOGS_CONNECT)
        for part in (b"one\n", b"\xff\xfe", b"two\n"):
            line.says(stream.number, Kind.DATA, part)
        line.says(stream.number, Kind.REMOVE_CONNECT)
        assert (await stream.answered(5)).status == 200
        assert await read_all(stream) == b"one\n\xff\xfetwo\n"
        assert peer.count == 0
        assert line.down.empty()
        empty = await peer.open(LOGS)
        line.says(empty.number, Kind.REMOVE_CONNECT)
        assert (await empty.answered(5)).status == 200
        assert await read_all(empty) == b""
        # one that is followed is answered before there is anything
        assert (await (await peer.open(FOLLOW)).answered(5)).status == 200

    play(story)


def test_an_exec_is_a_pipe_after_its_101_and_a_client_that_goes_is_told() -> None:
    async def story(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(EXEC)
        assert (await line.down.get()).kind == Kind.EXEC_CONNECT
        for part in (b"HTTP/1.1 101 Switch", b"ing\r\nUpgrade: SPDY/3.1\r\n\r", b"\n\x80"):
            line.says(stream.number, Kind.DATA, part)
        answer = await stream.answered(5)
        assert (answer.status, answer.header("upgrade")) == (101, "SPDY/3.1")
        assert await stream.read() == b"\x80"
        await stream.write(b"x" * 40_000)
        sizes = [await line.down.get() for _ in range(3)]
        assert [(f.kind, len(f.data)) for f in sizes] == [(Kind.DATA, n) for n in (16384, 16384, 7232)]
        stream.reset("the client went away")
        assert await line.down.get() == stocktunnel.Frame(stream.number, Kind.REMOVE_CONNECT, b"")
        with pytest.raises(StreamReset, match="client went away"):
            await stream.write(b"x")
        line.says(stream.number, Kind.DATA, b"late")
        other = await peer.open(EXEC)
        line.says(other.number, Kind.DATA, b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n")
        assert (await other.answered(5)).status == 404
        assert await read_all(other) == b"nope\n"
        await asyncio.sleep(0)
        assert peer.count == 0

    play(story)


def test_a_reader_that_stalls_is_given_up_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "STALL_S", 0.05)

    async def story(peer: StockPeer, line: Line) -> None:
        stalled, quick = await peer.open(FOLLOW), await peer.open(FOLLOW)
        for _ in range(20):
            line.says(stalled.number, Kind.DATA, b"x" * 65536)
        line.says(quick.number, Kind.DATA, b"here")
        assert await quick.read() == b"here"
        with pytest.raises(StreamReset, match="too slowly"):
            await read_all(stalled)
        removed = [f for f in [await line.down.get() for _ in range(3)] if f.kind == Kind.REMOVE_CONNECT]
        assert [f.connection for f in removed] == [stalled.number]

    play(story)


def test_a_reader_that_is_only_slow_loses_nothing() -> None:
    async def story(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(LOGS)
        for number in range(64):
            line.says(stream.number, Kind.DATA, bytes([number]) * 65536)
        line.says(stream.number, Kind.REMOVE_CONNECT)
        await stream.answered(5)
        got = b""
        while data := await stream.read():
            await asyncio.sleep(0)
            got += data
        assert got == b"".join(bytes([n]) * 65536 for n in range(64))

    play(story)


def test_a_stream_of_somebody_else_is_nobodys() -> None:
    async def story(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(FOLLOW)
        line.says(stream.number + 1, Kind.DATA, b"foreign")
        line.says(stream.number + 1, Kind.REMOVE_CONNECT)
        line.says(stream.number, 99, b"unknown type")
        line.says(stream.number, Kind.EXEC_CONNECT, b"{}")
        line.says(stream.number, Kind.DATA, b"own")
        assert await stream.read() == b"own"

    assert play(story) == []


def test_text_where_an_answer_was_due_ends_that_stream_only() -> None:
    async def story(peer: StockPeer, line: Line) -> None:
        stream, other = await peer.open(EXEC), await peer.open(FOLLOW)
        line.says(stream.number, Kind.DATA, b"hello there\r\n\r\n")
        with pytest.raises(StreamReset, match="does not speak HTTP"):
            await stream.answered(5)
        line.says(other.number, Kind.DATA, b"x")
        assert await other.read() == b"x"
        silent = await peer.open(EXEC)
        with pytest.raises(StreamReset, match=r"did not answer in 0\.01 s"):
            await silent.answered(0.01)
        gone = await peer.open(EXEC)
        line.says(gone.number, Kind.REMOVE_CONNECT)
        with pytest.raises(StreamReset, match="without an answer"):
            await gone.answered(5)

    play(story)


def test_the_end_of_the_tunnel_ends_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stockpeer, "TICK_S", 0.01)

    async def cut(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(FOLLOW)
        line.up.put_nowait(None)
        with pytest.raises(StreamReset, match="lost: connection cut"):
            await stream.read()
        with pytest.raises(Unavailable, match="lost"):
            await peer.open(LOGS)

    assert play(cut) == ["connection cut"]

    async def silent(peer: StockPeer, line: Line) -> None:
        line.silent_since = clock.monotonic() - 60
        stream = await peer.open(FOLLOW)
        with pytest.raises(StreamReset, match="nothing heard for 60 s"):
            await stream.read()

    assert play(silent) == ["nothing heard for 60 s"]

    async def garbage(peer: StockPeer, line: Line) -> None:
        stream = await peer.open(FOLLOW)
        line.up.put_nowait(b"\xff" * 20)
        with pytest.raises(StreamReset, match="more than 64 bits"):
            await stream.read()

    assert play(garbage) == ["tunnel message with a number of more than 64 bits"]


def test_no_more_streams_than_a_node_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stockpeer, "MAX_STREAMS", 2)

    async def story(peer: StockPeer, line: Line) -> None:
        first = await peer.open(FOLLOW)
        await peer.open(FOLLOW)
        with pytest.raises(Unavailable, match="2 streams open already"):
            await peer.open(FOLLOW)
        first.reset("done")
        await peer.open(FOLLOW)

    play(story)
