"""Name look-ups of the daemon's event loop, with name servers that answer, fail and say nothing."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from edgecore import resolver
from edgecore.edgehub.websocket import Unreachable, knock
from edgecore.resolver import Loop, Names

LOOPBACK = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
ELSEWHERE = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 1))]


class Server:
    """A name server.  `say`: what it answers; None: nothing until `answer` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.say: list[Any] | Exception | None = LOOPBACK
        self.answer = threading.Event()

    def lookup(self, host: str, *_: Any) -> list[Any]:
        self.asked.append(host)
        if self.say is None:
            assert self.answer.wait(60)
        if isinstance(self.say, Exception):
            raise self.say
        return self.say or LOOPBACK


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.answer.set()


def run(server: Server, story: Coroutine[Any, Any, None]) -> None:
    def make() -> Loop:
        loop = Loop()
        loop.names = Names(server.lookup)
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(story)


def test_a_name_server_that_says_nothing_leaves_the_threads_to_others(server: Server) -> None:
    """A node in a tunnel knocks for hours; the volumes of its pods are made in the threads that asyncio would use up."""
    server.say = None

    async def story() -> None:
        for _ in range(50):
            with pytest.raises(Unreachable):
                await knock("hub.example:10000", 0.001)
        before = threading.active_count()
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "made") == "made"
        assert threading.active_count() <= before + 1

    run(server, story())
    assert server.asked == ["hub.example"]


def test_whoever_asks_meanwhile_shares_the_answer(server: Server) -> None:
    server.say = None

    async def story() -> None:
        loop = asyncio.get_running_loop()
        both = asyncio.gather(loop.getaddrinfo("hub", 1), loop.getaddrinfo("hub", 1))
        await asyncio.sleep(0)
        server.say = ELSEWHERE
        server.answer.set()
        assert await both == [ELSEWHERE, ELSEWHERE]

    run(server, story())
    assert server.asked == ["hub"]


@pytest.mark.parametrize("trouble", [None, socket.gaierror(socket.EAI_AGAIN, "not now")])
def test_an_old_answer_is_used_while_there_is_no_new_one(
    server: Server, trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE_S", 0.05)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.getaddrinfo("hub", 1) == LOOPBACK
        server.say = trouble
        assert await loop.getaddrinfo("hub", 1) == LOOPBACK
        server.say = ELSEWHERE
        server.answer.set()
        async with asyncio.timeout(30):
            while await loop.getaddrinfo("hub", 1) != ELSEWHERE:
                await asyncio.sleep(0.01)

    run(server, story())


def test_what_was_never_known_and_what_is_no_more_are_errors(server: Server) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        server.say = socket.gaierror(socket.EAI_AGAIN, "not now")
        with pytest.raises(socket.gaierror, match="not now"):
            await loop.getaddrinfo("hub", 1)
        server.say = LOOPBACK
        await loop.getaddrinfo("hub", 1)
        server.say = socket.gaierror(socket.EAI_NONAME, "no such name")
        with pytest.raises(socket.gaierror, match="no such name"):
            await loop.getaddrinfo("hub", 1)

    run(server, story())


def test_look_ups_are_bounded(server: Server) -> None:
    server.say = None

    async def story() -> None:
        loop = asyncio.get_running_loop()
        asked = [asyncio.ensure_future(loop.getaddrinfo(f"h{n}", 1)) for n in range(resolver.MAX_LOOKUPS)]
        await asyncio.sleep(0)
        with pytest.raises(socket.gaierror, match="too many"):
            await loop.getaddrinfo("one more", 1)
        server.answer.set()
        await asyncio.gather(*asked)

    run(server, story())


def test_addresses_are_not_looked_up(server: Server) -> None:
    async def story() -> None:
        listening = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            await knock(f"127.0.0.1:{port}", 30)

    run(server, story())
    assert server.asked == []
