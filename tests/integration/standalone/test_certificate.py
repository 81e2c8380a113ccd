"""The server's certificate follows this machine's address while it serves."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloudcore.standalone import credentials, server
from cloudcore.standalone.server import ControlPlane, StandaloneConfig


async def names(port: int) -> list[str]:
    """The addresses in the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(address) for address in found.value.get_values_for_type(x509.IPAddress)]


def test_a_new_address_is_certified_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CERTIFICATE_CHECK_S", 0.05)
    addresses = ["192.0.2.1"]

    async def main() -> None:
        plane = ControlPlane(
            StandaloneConfig(state_dir=tmp_path, listen_host="0.0.0.0", listen_port=0),
            addresses=lambda: tuple(addresses),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(plane.run())
            await plane.started()
            port = int(plane.server.rpartition(":")[2])
            assert "192.0.2.1" in await names(port)
            addresses[0] = "192.0.2.2"
            async with asyncio.timeout(30):
                while "192.0.2.2" not in (shown := await names(port)):
                    await asyncio.sleep(0.05)
            assert "192.0.2.1" not in shown
            task.cancel()
        await asyncio.sleep(0.1)

    asyncio.run(main())


def test_it_is_due_when_two_thirds_of_its_life_are_over(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    made = credentials.ensure(tmp_path, hosts=("a",), now=now).server.certificate_pem

    def due(days: int, *hosts: str) -> bool:
        return credentials.due(made, hosts=hosts, made_for=("a",), now=now + timedelta(days=days))

    assert [due(0, "a"), due(240, "a"), due(250, "a"), due(0, "b")] == [False, False, True, True]
