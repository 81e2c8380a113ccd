"""Two ends of a tunnel joined in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from beehive import tunnel
from beehive.errors import NotFound, ProtocolError, Unavailable
from beehive.tunnel import Answer, Head, Role
from beehive.tunnelpeer import Handler, Peer, Stream, StreamReset

GET = Head(kind="http", method="GET", path="/x")


class Line:
    """One end of a connection in memory."""

    def __init__(self, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]) -> None:
        self.inbox, self.outbox = inbox, outbox

    async def recv(self) -> bytes:
        frame = await self.inbox.get()
        if frame is None:
            raise Unavailable("connection cut")
        return frame

    async def send(self, data: bytes) -> None:
        await self.outbox.put(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.outbox.put(None)


def lines() -> tuple[Line, Line]:
    up: asyncio.Queue[bytes | None] = asyncio.Queue(4)
    down: asyncio.Queue[bytes | None] = asyncio.Queue(4)
    return Line(up, down), Line(down, up)


def joined(handler: Handler, story: Callable[[Peer, Line], Awaitable[None]]) -> list[BaseException]:
    """Run both ends, the story with the hub's; what ended the two ends."""
    ended: list[BaseException] = []

    async def end(peer: Peer) -> None:
        try:
            await peer.run()
        except (Unavailable, ProtocolError) as error:
            ended.append(error)

    async def main() -> None:
        a, b = lines()
        hub, edge = Peer(a, Role.HUB), Peer(b, Role.EDGE, handler=handler)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(end(hub)), group.create_task(end(edge))]
            await story(hub, a)
            for task in tasks:
                task.cancel()

    asyncio.run(main())
    return ended


async def echo(stream: Stream) -> None:
    await stream.answer(Answer(status=200))
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def read_all(stream: Stream) -> bytes:
    got = bytearray()
    while data := await stream.read():
        got += data
    return bytes(got)


def test_a_megabyte_goes_there_and_back_beside_a_reader_that_stalls() -> None:
    payload = bytes(range(256)) * 4096

    async def story(hub: Peer, _: Line) -> None:
        stalled = await hub.open(GET)
        await stalled.answered(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stalled.write(b"x" * 1_000_000), 0.2)
        stream = await hub.open(GET)
        assert (await stream.answered(1)).status == 200

        async def send() -> None:
            await stream.write(payload)
            await stream.end()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            assert await read_all(stream) == payload
        assert await stream.read() == b""

    assert joined(echo, story) == []


def test_an_error_of_the_handler_resets_its_stream_with_the_text() -> None:
    async def handler(stream: Stream) -> None:
        raise NotFound("no such pod")

    async def story(hub: Peer, _: Line) -> None:
        stream = await hub.open(GET)
        with pytest.raises(StreamReset, match="no such pod"):
            await stream.answered(1)

    assert joined(handler, story) == []


def test_a_bug_in_the_handler_ends_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: Stream) -> None:
        if stream.head.path == "/bug":
            raise KeyError("bug")
        await echo(stream)

    async def story(hub: Peer, _: Line) -> None:
        bad = await hub.open(Head(kind="http", method="GET", path="/bug"))
        with pytest.raises(StreamReset, match="internal error: KeyError"):
            await bad.answered(1)
        good = await hub.open(GET)
        assert (await good.answered(1)).status == 200

    assert joined(handler, story) == []
    assert "failed" in caplog.text


def test_a_client_that_goes_away_stops_the_handler() -> None:
    seen: list[str] = []
    told = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await stream.answer(Answer(status=200))
        try:
            while True:
                await stream.write(b"line\n")
        except StreamReset as error:
            seen.append(str(error))
            told.set()
            raise

    async def story(hub: Peer, _: Line) -> None:
        stream = await hub.open(GET)
        await stream.answered(1)
        await stream.read()
        stream.reset("client went away")
        with pytest.raises(StreamReset, match="client went away"):
            await read_all(stream)
        await told.wait()

    assert joined(handler, story) == []
    assert seen == ["client went away"]


def test_the_loss_of_the_connection_ends_every_stream_at_once() -> None:
    async def story(hub: Peer, line: Line) -> None:
        stream = await hub.open(GET)
        await stream.answered(1)
        await line.inbox.put(None)
        with pytest.raises(StreamReset, match="tunnel to the node was lost: connection cut"):
            await stream.read()
        with pytest.raises(Unavailable, match="lost"):
            await hub.open(GET)

    assert [str(e) for e in joined(echo, story)] == ["connection cut"]


def test_a_frame_against_the_protocol_ends_the_tunnel() -> None:
    async def story(hub: Peer, line: Line) -> None:
        stream = await hub.open(GET)
        await stream.answered(1)
        await line.inbox.put(b"garbage")
        with pytest.raises(StreamReset, match="lost"):
            await stream.read()

    assert [type(e) for e in joined(echo, story)] == [ProtocolError]


def test_no_answer_in_time_is_said() -> None:
    async def handler(stream: Stream) -> None:
        await asyncio.Event().wait()

    async def story(hub: Peer, _: Line) -> None:
        stream = await hub.open(GET)
        with pytest.raises(StreamReset, match=r"did not answer in 0\.05 s"):
            await stream.answered(0.05)
        assert hub.mux.count == 0

    assert joined(handler, story) == []


def test_silence_is_found_and_pings_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PING_S", 0.0)
    monkeypatch.setattr(tunnel, "SILENCE_S", 0.05)
    monkeypatch.setattr("beehive.tunnelpeer.TICK_S", 0.01)

    async def main() -> None:
        a, b = lines()
        hub, edge = Peer(a, Role.HUB), Peer(b, Role.EDGE, handler=echo)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            served = group.create_task(edge.run())
            alive = group.create_task(hub.run())
            await asyncio.sleep(0.2)
            assert not alive.done()
            assert not served.done()
            served.cancel()
            with pytest.raises(Unavailable, match="nothing heard"):
                await alive

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
