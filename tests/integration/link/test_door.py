"""Whom the hub's ports let in by TLS, and what they show, while one authority takes the place of another.  Real handshakes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from cloudcore.identity import pki
from cloudcore.identity.authority import Authority
from cloudcore.identity.succession import Held, begin, readmit, settle, show_new
from cloudcore.identity.tls import Door, peer_context
from tests.fakes import edge

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def ca(name: str) -> pki.KeyPair:
    return pki.make_ca(name, lifetime=900 * DAY, now=NOW)


A, B, C = ca("KubeEdge"), ca("KubeEdge 2"), ca("other")
WINDOW = begin(Held(A), B, now=NOW, window=DAY, certificate_life=9 * DAY)


def server(by: pki.KeyPair) -> pki.KeyPair:
    return pki.issue(by, common_name="hub", ips=["127.0.0.1"], server=True, lifetime=DAY, now=NOW)


def client(by: pki.KeyPair, trusts: list[pki.KeyPair], version: ssl.TLSVersion) -> ssl.SSLContext:
    own = pki.issue(by, common_name="system:node:a", client=True, lifetime=DAY, now=NOW)
    trusted = b"".join(pair.certificate_pem for pair in trusts).decode()
    context = edge.client_tls(trusted, own.certificate_pem.decode(), own.key_pem)
    context.minimum_version = context.maximum_version = version
    return context


async def greet(port: int, tls: ssl.SSLContext) -> bool:
    """Whether the hub takes the certificate.  Raises SSLCertVerificationError where its own is not trusted."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    except ssl.SSLCertVerificationError:
        raise
    except (ssl.SSLError, ConnectionError):
        return False
    try:
        return await reader.read(2) == b"hi"
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        writer.close()


def served(door: Door, story: Callable[[int], Awaitable[None]]) -> None:
    async def welcome(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi")
        writer.close()

    async def go() -> None:
        listening = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=door.context)
        async with listening, asyncio.timeout(60):
            await story(listening.sockets[0].getsockname()[1])

    asyncio.run(go())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listening_port_learns_whom_to_trust_and_whom_no_more(version: ssl.TLSVersion) -> None:
    authority = Authority(Held(A))
    door = Door(authority, server(A))

    async def story(port: int) -> None:
        old, new, other = (client(by, [A, B], version) for by in (A, B, C))
        assert [await greet(port, one) for one in (old, new, other)] == [True, False, False]
        authority.held = WINDOW
        door.show(server(authority.held.shown))
        assert [await greet(port, one) for one in (old, new, other)] == [True, True, False]
        # a stock edge trusts the old one only, and the hub is still proved by it
        assert await greet(port, client(A, [A], version))
        authority.held = show_new(WINDOW)
        door.show(server(authority.held.shown))
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(port, client(A, [A], version))
        assert [await greet(port, one) for one in (old, new, other)] == [True, True, False]
        authority.held = settle(WINDOW, now=NOW + 2 * DAY)
        door.show(server(authority.held.shown))
        assert [await greet(port, one) for one in (old, new, other)] == [False, True, False]
        authority.held = readmit(authority.held, "a", until=NOW + 9 * DAY)
        door.show(server(authority.held.shown))
        assert [await greet(port, one) for one in (old, new, other)] == [True, True, False]

    served(door, story)


POINTS = [Held(A), WINDOW, show_new(WINDOW), settle(WINDOW, now=NOW + 2 * DAY)]


@pytest.mark.parametrize(
    ("asking", "asked"), [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 3)]
)
def test_cloudcores_know_each_other_though_one_is_a_moment_behind(asking: int, asked: int) -> None:
    authority = Authority(POINTS[asked])

    async def story(port: int) -> None:
        assert await greet(port, peer_context(Authority(POINTS[asking])))

    served(Door(authority, server(authority.held.shown)), story)
