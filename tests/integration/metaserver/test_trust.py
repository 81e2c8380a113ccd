"""What pods know of the local API before it serves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from edgecore.metaserver.module import MetaServer, MetaServerOptions
from edgecore.metaserver.trust import Trust
from tests.unit.edgecore.metaserver import fakes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


async def ask(port: int, ca: bytes) -> bytes:
    """The first line that an unmodified client gets."""
    context = ssl.create_default_context(cadata=ca.decode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


def test_a_client_that_is_faster_than_the_local_api_is_served_when_it_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        trust = Trust("127.0.0.1", port, pki=tmp_path, node="edge-1")
        await trust.prepare()
        assert trust.ca().startswith(b"-----BEGIN CERTIFICATE")
        assert trust.env["KUBERNETES_SERVICE_PORT"] == str(port)
        trust.knock()
        early = asyncio.create_task(ask(port, trust.ca()))
        done, _ = await asyncio.wait([early], timeout=0.2)
        assert not done, "neither refused nor served"

        options = MetaServerOptions(host="127.0.0.1", port=port, pki=tmp_path)
        server = MetaServer(
            options, node="edge-1", store=fakes.FakeStore(), cloud=fakes.FakeCloud(), trust=trust
        )
        running = asyncio.create_task(server.run())
        async with asyncio.timeout(60):
            assert (await early).startswith(b"HTTP/1.1 ")
            assert (await ask(port, trust.ca())).startswith(b"HTTP/1.1 ")
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(ConnectionRefusedError):
            await ask(port, trust.ca())

    asyncio.run(story())


def test_a_port_that_somebody_has_is_nobodys_fault_yet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        trust = Trust("127.0.0.1", other.getsockname()[1], pki=tmp_path, node="edge-1")
        trust.knock()
        assert trust.take_listening() is None
    trust.knock()
    assert trust._listening is not None
    trust.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", trust.port), timeout=5)
