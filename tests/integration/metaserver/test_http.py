"""The HTTP server on real sockets: what it must bear, and where it must stop."""

import asyncio
import contextlib
import os
import resource
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from beehive.errors import Unavailable
from edgecore.metaserver import http
from edgecore.metaserver.http import Answer, Request, Server
from edgecore.metaserver.serving import ServingFiles

MIB = 1024 * 1024


async def echo(request: Request) -> Answer:
    if request.target == "/endless":
        return Answer(stream=endless())
    if request.target == "/fault":
        raise KeyError("a bug")
    if request.target == "/broken":
        return Answer(stream=broken())
    return Answer(body=f"{request.method} {request.target} {len(request.body)}".encode())


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536
        await asyncio.sleep(0)


async def broken() -> AsyncIterator[bytes]:
    yield b"x"
    raise Unavailable("the disk is gone")


class Peer:
    """A raw client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def ended(self) -> bool:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(30):
                while await self.reader.read(65536):
                    pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def serve(tmp_path: Path, story: Callable[[Server, Callable[[], Awaitable[Peer]]], Awaitable[None]]) -> None:
    async def main() -> None:
        server = Server(echo)
        path = tmp_path / "api.sock"
        ready = asyncio.Event()
        peers: list[Peer] = []

        async def connect() -> Peer:
            peers.append(Peer(*await asyncio.open_unix_connection(path)))
            return peers[-1]

        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.serve_unix(path, ready=ready.set))
            await ready.wait()
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            try:
                await story(server, connect)
            finally:
                for peer in peers:
                    await peer.close()
                task.cancel()
        assert not path.exists()

    asyncio.run(main())


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def test_one_connection_carries_many_requests(tmp_path: Path) -> None:
    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        peer = await connect()
        for _ in range(3):
            await peer.send(GET)
            assert await peer.answer() == (200, b"GET /a 0")
        await peer.send(GET + GET)
        assert await peer.answer() == await peer.answer() == (200, b"GET /a 0")
        await peer.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert await peer.answer() == (200, b"POST /b 3")
        assert server.connections == 1

    serve(tmp_path, story)


@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_ends_at_the_limit(tmp_path: Path, chunked: bool) -> None:
    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        peer = await connect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if chunked:
            await peer.send(b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(6):
                await peer.send(b"100000\r\n" + b"x" * MIB + b"\r\n")
        else:
            await peer.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n")
        code, body = await peer.answer()
        assert code == 413
        assert b"limit is 3145728" in body
        with contextlib.suppress(ConnectionError):
            # whoever goes on all the same is cut off
            for _ in range(64):
                await peer.send(b"100000\r\n" + b"x" * MIB + b"\r\n")
        assert await peer.ended()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 24 * 1024  # KiB; three bodies' worth, of both ends, in one process

    serve(tmp_path, story)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_is_told_off_and_ended(tmp_path: Path, garbage: bytes) -> None:
    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        peer = await connect()
        with contextlib.suppress(ConnectionError):
            await peer.send(garbage)
        code, _ = await peer.answer()
        assert 400 <= code < 500
        assert await peer.ended()
        again = await connect()
        await again.send(GET)
        assert (await again.answer())[0] == 200

    serve(tmp_path, story)


def test_too_many_connections_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_PER_CLIENT", 3)

    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        held = [await connect() for _ in range(3)]
        for peer in held:
            await peer.send(GET)
            await peer.answer()
        fourth = await connect()
        assert await fourth.ended()
        assert server.turned_away == 1
        await held[0].close()
        async with asyncio.timeout(30):
            while server.connections == 3:
                await asyncio.sleep(0.01)
        fifth = await connect()
        await fifth.send(GET)
        assert (await fifth.answer())[0] == 200

    serve(tmp_path, story)


def test_who_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DRAIN_S", 0.2)

    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        peer = await connect()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while server.connections == 0:
                await asyncio.sleep(0.01)
            while server.connections:
                await asyncio.sleep(0.05)

    serve(tmp_path, story)


def test_a_stream_ends_with_its_client(tmp_path: Path) -> None:
    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        peer = await connect()
        await peer.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.close()
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.01)

    serve(tmp_path, story)


def test_a_fault_in_one_answer_ends_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        other = await connect()
        await other.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await other.reader.readuntil(b"\r\n\r\n")
        peer = await connect()
        await peer.send(b"GET /fault HTTP/1.1\r\nHost: x\r\n\r\n")
        code, body = await peer.answer()
        assert (code, b"a bug" in body) == (500, False)
        cut = await connect()
        await cut.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await cut.ended()
        assert await other.reader.readexactly(1 * MIB)
        again = await connect()
        await again.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await again.answer())[0] == 200

    serve(tmp_path, story)
    assert "KeyError" in caplog.text


def test_a_silent_client_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.1)
    monkeypatch.setattr(http, "HEAD_S", 0.1)
    monkeypatch.setattr(http, "BODY_S", 0.1)

    async def story(server: Server, connect: Callable[[], Awaitable[Peer]]) -> None:
        for start in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"):
            peer = await connect()
            await peer.send(start)
            assert await peer.ended()

    serve(tmp_path, story)


def test_tls_with_the_nodes_own_authority(tmp_path: Path) -> None:
    async def story() -> None:
        files = ServingFiles(tmp_path / "pki", "edge-1")
        now = 1_800_000_000.0
        first = await files.ensure({"127.0.0.1", "169.254.30.10"}, now)
        assert await files.ensure({"169.254.30.10", "127.0.0.1"}, now + 86400) == first
        for name in ("metaserver.pem", "metaserver-ca.pem"):
            assert stat.S_IMODE((tmp_path / "pki" / name).stat().st_mode) == 0o600
        near = now + 320 * 86400
        assert await files.current({"127.0.0.1", "169.254.30.10"}, near) == first
        assert await files.current({"127.0.0.1"}, now) is None
        assert await files.current({"127.0.0.1", "169.254.30.10"}, now + 400 * 86400) is None
        # near its end a new one, by the same authority: pods need not be told
        renewed = await files.ensure({"127.0.0.1", "169.254.30.10"}, near)
        assert renewed.ends > first.ends
        assert renewed.ca == first.ca
        server = Server(echo)
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                server.serve_tcp("127.0.0.1", 0, renewed.context(), ready=port.set_result)
            )
            context = ssl.create_default_context(cadata=first.ca.decode())
            bound = await port
            for name in ("127.0.0.1", "kubernetes.default.svc"):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", bound, ssl=context, server_hostname=name
                )
                peer = Peer(reader, writer)
                await peer.send(GET)
                assert (await peer.answer())[0] == 200
                await peer.close()
            stranger = ssl.create_default_context()
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", bound, ssl=stranger, server_hostname="127.0.0.1")
            task.cancel()

    asyncio.run(story())


def test_a_damaged_certificate_is_made_anew(tmp_path: Path) -> None:
    async def story() -> None:
        files = ServingFiles(tmp_path, "edge-1")
        first = await files.ensure({"127.0.0.1"}, 1_800_000_000.0)
        (tmp_path / "metaserver.pem").write_bytes(b"\0" * 4000)
        again = await files.ensure({"127.0.0.1"}, 1_800_000_000.0)
        assert again.ca == first.ca
        again.context()

    asyncio.run(story())
