"""The local API's certificate on a machine that is slow, and from files that are not what was written."""

import asyncio
import ssl
from pathlib import Path

import pytest

from edgecore.metaserver import serving
from edgecore.metaserver.serving import CertificateError, ServingFiles

ADDRESSES = ("127.0.0.1",)
NOW = 1.8e9


def test_a_machine_too_slow_to_make_it_is_no_fault_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made before pods are started: what came out there ended edgecore, at every start again."""
    monkeypatch.setattr(serving, "CHILD_S", 0.0)
    with pytest.raises(CertificateError, match="too busy"):
        asyncio.run(ServingFiles(tmp_path, "edge-1").ensure(ADDRESSES, NOW))
    monkeypatch.setattr(serving.sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(CertificateError, match="cannot make"):
        asyncio.run(ServingFiles(tmp_path, "edge-1").ensure(ADDRESSES, NOW))


def test_files_that_a_card_lost_in_part_are_made_anew(tmp_path: Path) -> None:
    async def story() -> None:
        files = ServingFiles(tmp_path, "edge-1")
        made = await files.ensure(ADDRESSES, NOW)
        assert await files.current(ADDRESSES, NOW) == made

        authority = tmp_path / "metaserver-ca.pem"
        for damaged in ("", "-----BEGIN CERTIFICATE-----\nMII", authority.read_text()[:300]):
            authority.write_text(damaged)
            assert await files.current(ADDRESSES, NOW) is None
        made = await files.ensure(ADDRESSES, NOW)
        assert isinstance(made.context(), ssl.SSLContext)

        line = made.path.read_text().partition("\n")[0]
        made.path.write_text(f"{line}\nno certificate\n")
        with pytest.raises(CertificateError, match="cannot use"):
            (await files.ensure(ADDRESSES, NOW)).context()
        assert isinstance((await files.ensure(ADDRESSES, NOW)).context(), ssl.SSLContext)

    asyncio.run(story())
