"""A hub that answers nonsense: the edge says so, takes no memory for it, and finds the right one afterwards.  A23, M03."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from pathlib import Path

import pytest

from beehive.errors import Refused
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.websocket import Unreachable, dial, knock
from edgecore.metamanager.store import Store
from tests.fakes.hub import Authority, FakeHub
from tests.integration.edgecore.test_link import Edge

LIMIT_S = 60.0
MIB = 1024 * 1024
ENDLESS = b"x" * 65536


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    return authority.joined(tmp_path / "pki", "edge-1")


def answer(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def moved(where: str) -> bytes:
    return answer("302 Found", f"Location: {where}", "Content-Length: 0")


HEADS = {
    "a redirect that is no address": moved("wss://["),
    "a redirect to a port that is none": moved("wss://127.0.0.1:99999999/"),
    "a redirect elsewhere": moved("wss://127.0.0.1:1/"),
    "a redirect to itself": moved("/"),
    "a redirect without TLS": moved("ws://127.0.0.1:1/"),
    "a redirect in another script": moved("wss://\xff\xfe/"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an endless body": answer("503 No", "Content-Length: 10737418240"),
    "an endless body in chunks": answer("503 No", "Transfer-Encoding: chunked") + b"fffffff\r\n",
    "a length that is none": answer("503 No", "Content-Length: -7"),
    "a length of many digits": answer("503 No", "Content-Length: " + "9" * 5000),
    "an endless header": b"HTTP/1.1 101 Switching Protocols\r\nX: ",
    "headers without end": answer("101 Switching Protocols", *[f"X-{n}: y" for n in range(3000)]),
    "an upgrade without its key": answer(
        "101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"
    ),
    "a strange status": answer("999999 What"),
    "nothing": b"",
}


@pytest.mark.parametrize("what", HEADS)
def test_a_hub_that_talks_nonsense_is_said_and_outlived(
    tmp_path: Path, authority: Authority, files: Files, what: str
) -> None:
    asked = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            writer.write(HEADS[what])
            if "endless" in what:
                async with asyncio.timeout(LIMIT_S):
                    for _ in range(4096):
                        writer.write(ENDLESS)
                        await writer.drain()
            await writer.drain()
        writer.transport.abort()

    async def story() -> None:
        hub = FakeHub(authority)
        store = Store.open(tmp_path / "edgecore.db")
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=authority.server_tls())
        bad = server.sockets[0].getsockname()[1]
        first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            async with (
                asyncio.timeout(LIMIT_S),
                hub.serving(),
                Edge(store, files, [f"127.0.0.1:{bad}", hub.address]).running() as edge,
            ):
                # the next address is tried as soon as this one has had its say
                await edge.until_online()
                assert asked == 1
                assert edge.link.last_error
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first
                assert grown < 32 * MIB // 1024
        finally:
            server.close()
            await server.wait_closed()
            store.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "proxy",
    [
        "http://[",
        "nonsense",
        "ftp://x:1",
        "http://h:abc",
        "http://h:99999",
        "http://",
        "socks5://user:secret@h:1",
    ],
)
def test_a_proxy_that_is_none_is_a_sentence_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(Refused, match="cannot use the proxy") as refused:
        asyncio.run(dial("wss://127.0.0.1:1/x", tls=ssl.create_default_context(), headers={}))
    assert "secret" not in str(refused.value)


def test_what_is_set_for_other_programs_does_not_end_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "wss_proxy", "no_proxy", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("socks_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "socks5h://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"cannot connect to 127.0.0.1:1: Connection refused$"):
        asyncio.run(dial("wss://127.0.0.1:1/x", tls=ssl.create_default_context(), headers={}))
    with pytest.raises(Unreachable, match=r"cannot connect to 127.0.0.1:1: Connection refused$"):
        asyncio.run(knock("127.0.0.1:1", 5.0))
    monkeypatch.setenv("all_proxy", "http://user:secret@127.0.0.1:2")
    asyncio.run(knock("127.0.0.1:1", 5.0))  # says nothing of what is behind a proxy
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(Unreachable):
        asyncio.run(knock("127.0.0.1:1", 5.0))
