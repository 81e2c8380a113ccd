"""Joining and renewing the way KubeEdge does, at cloudcore's port for stock edges."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from beehive import clock
from beehive.errors import ConfigError, SkerryError, Unavailable
from beehive.message import Message
from cloudcore.cloudhub.https import CompatServer
from cloudcore.errors import ApiNotFound, Status
from cloudcore.identity import kubeedge_token, pki
from cloudcore.identity.authority import Authority as CloudAuthority
from cloudcore.identity.succession import Held
from edgecore import cli
from edgecore.edgehub import certificate, kubeedge
from edgecore.edgehub.certificate import Files, Renewal
from edgecore.edgehub.kubeedge import StockToken
from edgecore.errors import JoinRefused
from tests.fakes.hub import Authority

HOUR = timedelta(hours=1)


class NoApi:
    """The API server; the token that is stored there is not read here."""

    async def create(self, *arguments: Any) -> None:
        return None

    async def get(self, kind: object, name: str) -> None:
        raise ApiNotFound(Status(message=f"nodes {name!r} not found", reason="NotFound", code=404))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def port(authority: Authority) -> AsyncIterator[str]:
    server = CompatServer(
        kube=cast("Any", NoApi()),
        authority=CloudAuthority(Held(authority.ca)),
        tls=authority.server_tls,
        host="127.0.0.1",
        port=0,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        while not server.bound_port:
            await asyncio.sleep(0.01)
        yield f"127.0.0.1:{server.bound_port}"
        task.cancel()


def text_of(authority: Authority, lifetime: timedelta = HOUR) -> str:
    ca, key = pki.to_der(authority.ca)
    return kubeedge_token.make(ca, key, now=clock.wall(), lifetime=lifetime)


def token_of(authority: Authority, lifetime: timedelta = HOUR) -> StockToken:
    token = kubeedge.parse_token(text_of(authority, lifetime))
    assert token is not None
    return token


def test_a_machine_joins_and_renews_with_its_old_certificate(tmp_path: Path, authority: Authority) -> None:
    files = Files(tmp_path / "pki")

    async def nobody(question: Message, timeout_s: float) -> Message:
        raise AssertionError("a stock cloud renews over HTTPS")

    async def story() -> None:
        async with port(authority) as address:
            joined = await certificate.join_kubeedge(
                files, node="edge-1", https_address=address, token=token_of(authority), remember=["h:10000"]
            )
            assert joined.https == address
            assert files.identity().clouds == ("h:10000",)
            before = files.node.read_bytes()
            renewed = await Renewal(files, nobody).renew()
            assert renewed.https == address
            assert files.node.read_bytes() != before
            files.tls()

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["expired", "forged", "other authority"])
def test_a_token_that_is_not_good_leaves_nothing_behind(
    tmp_path: Path, authority: Authority, fault: str
) -> None:
    token = token_of(authority, -HOUR if fault == "expired" else HOUR)
    if fault == "forged":
        token = StockToken(token.ca_hash, token.jwt[:-4] + "AAAA")
    if fault == "other authority":
        token = StockToken("0" * 64, token.jwt)

    async def story() -> None:
        async with port(authority) as address:
            with pytest.raises(JoinRefused):
                await certificate.join_kubeedge(
                    Files(tmp_path / "pki"), node="edge-1", https_address=address, token=token
                )

    asyncio.run(story())
    assert not (tmp_path / "pki").exists()


def test_a_server_of_another_authority_never_sees_the_token(tmp_path: Path, authority: Authority) -> None:
    async def story() -> None:
        other = Authority(tmp_path / "other")
        async with port(other) as address:
            with pytest.raises(SkerryError, match="cannot trust"):
                await kubeedge.certificate(
                    address,
                    "edge-1",
                    "-----BEGIN X-----\nMAo=\n-----END X-----",
                    tls=certificate.trusting(authority.ca.certificate_pem.decode()),
                    token=token_of(authority),
                )

    asyncio.run(story())


def test_nobody_there_is_unavailable(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        asyncio.run(
            certificate.join_kubeedge(
                Files(tmp_path), node="e", https_address="127.0.0.1:1", token=token_of(authority)
            )
        )


def test_the_join_command_knows_both_forms_of_token(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story() -> int:
        async with port(authority) as address:
            config = tmp_path / "edgecore.yaml"
            config.write_text(
                f"dataDir: {tmp_path}/data\nmodules: {{edgeHub: {{httpServer: 'https://{address}'}}}}\n"
            )
            words = ["join", "--config", str(config), "--cloud", "127.0.0.1", "--node-name", "edge-9"]
            return await asyncio.to_thread(cli.main, [*words, "--token", text_of(authority)])

    assert asyncio.run(story()) == 0
    assert "joined as node edge-9" in capsys.readouterr().out
    assert Files(tmp_path / "data/pki").identity().clouds == ("127.0.0.1:10000",)


def test_where_the_certificates_are() -> None:
    assert kubeedge.https_address("hub.example:10000", "") == "hub.example:10002"
    assert kubeedge.https_address("h:1", "https://10.0.0.1:10002") == "10.0.0.1:10002"
    assert kubeedge.https_address("h:1", "https://[::1]:7/") == "[::1]:7"
    with pytest.raises(ConfigError):
        kubeedge.https_address("h:1", "http://x")


def test_a_token_of_ours_is_not_taken_for_theirs() -> None:
    assert kubeedge.parse_token("0" * 64 + ".abc123." + "s" * 32) is None
    assert kubeedge.parse_token("x") is None
    assert kubeedge.parse_token("0" * 64 + "." + "a" * 5000 + ".b.c") is None
