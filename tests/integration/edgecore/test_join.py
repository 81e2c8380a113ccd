"""Joining, renewing and what is left on disk, against a hub with real TLS; and the command line around it."""

import asyncio
import contextlib
import hashlib
import os
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from beehive.errors import ConfigError, ProtocolError, SkerryError, Unavailable
from beehive.message import Message, Op
from edgecore import cli
from edgecore.edgehub import certificate, keys
from edgecore.edgehub.certificate import Files, Renewal, Token
from edgecore.edgehub.identity import Identity
from edgecore.errors import JoinRefused
from tests.fakes.hub import TOKEN_SECRET, Authority, FakeHub


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def hub(authority: Authority) -> AsyncIterator[FakeHub]:
    fake = FakeHub(authority)
    async with fake.serving():
        yield fake


async def join(files: Files, fake: FakeHub, token: Token, node: str = "edge-1") -> Identity:
    return await certificate.join(
        files, node=node, addresses=[fake.address], token=token, remember=[fake.address]
    )


def test_a_machine_becomes_a_node_with_a_token(tmp_path: Path, authority: Authority) -> None:
    files = Files(tmp_path / "pki")

    async def story() -> None:
        async with hub(authority) as fake:
            identity = await join(files, fake, authority.token)
            assert identity.node == "edge-1"
            assert files.identity() == Identity(
                node="edge-1",
                clouds=(fake.address,),
                not_before=float(int(identity.not_before)),
                not_after=float(int(identity.not_after)),
                authority=authority.token.ca_hash,
            )

    asyncio.run(story())
    assert {f.name: oct(f.stat().st_mode & 0o777) for f in files.folder.iterdir()} == {
        "ca.pem": "0o600",
        "node.pem": "0o600",
    }
    assert files.tls().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("answer", [b"200 Connection established", b"407 Proxy Authentication Required"])
def test_a_machine_behind_a_proxy_joins_through_it(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    asked: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        writer.write(b"HTTP/1.1 " + answer + b"\r\n\r\n")
        if not answer.startswith(b"200"):
            writer.close()
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        back, there = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, there))
            group.create_task(copy(back, writer))

    async def story() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY", "wss_proxy"):
            monkeypatch.delenv(name, raising=False)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://me:pass%20word@127.0.0.1:{port}")
        async with hub(authority) as fake:
            if answer.startswith(b"200"):
                assert (await join(Files(tmp_path / "pki"), fake, authority.token)).node == "edge-1"
                assert len(asked) == 3, "for the authority, for who follows it, and to join"
            else:
                with pytest.raises(Unavailable, match="the proxy answered 407"):
                    await join(Files(tmp_path / "pki"), fake, authority.token)
            assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk" in asked[0]
        server.close()
        await server.wait_closed()

    asyncio.run(story())


def test_a_used_token_leaves_nothing_behind(tmp_path: Path, authority: Authority) -> None:
    files = Files(tmp_path / "pki")

    async def story() -> None:
        async with hub(authority) as fake:
            fake.spent = True
            with pytest.raises(JoinRefused, match="used already"):
                await join(files, fake, authority.token)

    asyncio.run(story())
    assert not files.folder.exists()


def test_another_authority_than_the_tokens_is_refused_before_the_token_is_shown(
    tmp_path: Path, authority: Authority
) -> None:
    async def story() -> None:
        async with hub(authority) as fake:
            with pytest.raises(JoinRefused, match="not the one in the token"):
                await join(Files(tmp_path / "pki"), fake, Token("0" * 64, TOKEN_SECRET))
            assert not fake.spent
            assert fake.requests == []

    asyncio.run(story())


def test_a_server_with_the_right_ca_file_and_the_wrong_certificate_never_sees_the_token(
    tmp_path: Path, authority: Authority
) -> None:
    """Anybody can serve a copy of ca.crt; only the authority's own server can prove itself."""

    async def story() -> None:
        liar = Authority(tmp_path / "liar")
        fake = FakeHub(liar)
        liar.ca, genuine = authority.ca, liar.ca
        assert genuine is not liar.ca
        async with fake.serving():
            with pytest.raises(SkerryError, match="cannot trust the hub"):
                await join(Files(tmp_path / "pki"), fake, authority.token)
            assert fake.requests == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"h: x\r\n" * 20_000,
    ],
)
def test_what_is_no_hub_is_said_so(tmp_path: Path, authority: Authority, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def story() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server_tls())
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProtocolError, match="not a hub"):
            await certificate.join(
                Files(tmp_path / "pki"),
                node="edge-1",
                addresses=[f"127.0.0.1:{port}"],
                token=authority.token,
            )
        server.close()
        await server.wait_closed()

    asyncio.run(story())


def test_the_next_address_is_tried_when_one_is_away(tmp_path: Path, authority: Authority) -> None:
    async def story() -> None:
        async with hub(authority) as fake:
            found = await certificate.join(
                Files(tmp_path / "pki"),
                node="edge-1",
                addresses=["127.0.0.1:1", fake.address],
                token=authority.token,
            )
            assert found.node == "edge-1"

    asyncio.run(story())


def test_nobody_there_is_unavailable(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(Unavailable, match="cannot reach the cloud at"):
        asyncio.run(
            certificate.join(
                Files(tmp_path / "pki"), node="edge-1", addresses=["127.0.0.1:1"], token=authority.token
            )
        )


def test_a_certificate_for_another_key_or_name_is_not_taken(authority: Authority) -> None:
    async def story() -> None:
        request = await keys.make_request("edge-1")
        ca = authority.ca.certificate_pem.decode()
        other = authority.node("edge-1").certificate_pem.decode()
        now = time.time()
        with pytest.raises(JoinRefused, match="another key"):
            await keys.check("edge-1", key=request.key, certificate=other, ca=ca, now=now)
        pair = authority.node("edge-2")
        with pytest.raises(JoinRefused, match="system:node:edge-2"):
            await keys.check(
                "edge-1", key=pair.key_pem.decode(), certificate=pair.certificate_pem.decode(), ca=ca, now=now
            )
        old = authority.node("edge-1", timedelta(seconds=-10))
        with pytest.raises(JoinRefused, match="set the clock"):
            await keys.check(
                "edge-1", key=old.key_pem.decode(), certificate=old.certificate_pem.decode(), ca=ca, now=now
            )

    asyncio.run(story())


def test_a_renewed_certificate_replaces_the_old_one_whole(tmp_path: Path, authority: Authority) -> None:
    files = authority.joined(tmp_path / "pki", "edge-1")
    before = files.node.read_bytes()

    async def story() -> None:
        fake = FakeHub(authority)

        async def ask(question: Message, timeout_s: float) -> Message:
            from beehive.message import RenewRequest, reply

            assert question.route.operation == Op.RENEW
            return reply(question, fake.sign("edge-1", question.decode(RenewRequest).csr))

        await Renewal(files, ask, rng=random.Random(1)).renew()

    asyncio.run(story())
    assert files.node.read_bytes() != before
    files.tls()  # certificate and key fit
    assert [f.name for f in files.folder.iterdir() if f.name.startswith(".")] == []


def test_a_renewal_that_fails_leaves_the_old_certificate(tmp_path: Path, authority: Authority) -> None:
    files = authority.joined(tmp_path / "pki", "edge-1")
    before = files.node.read_bytes()

    async def ask(question: Message, timeout_s: float) -> Message:
        raise Unavailable("no link")

    with pytest.raises(Unavailable):
        asyncio.run(Renewal(files, ask).renew())
    assert files.node.read_bytes() == before


def test_a_machine_too_busy_to_renew_tries_again_and_does_not_end_the_daemon(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.joined(tmp_path / "pki", "edge-1", timedelta(seconds=1))
    tries: list[str] = []

    async def ask(question: Message, timeout_s: float) -> Message:
        raise AssertionError("there is no request to send")

    async def story() -> None:
        slept = asyncio.Event()

        async def busy(node: str) -> keys.Request:
            tries.append(node)
            if len(tries) == 1:
                raise OSError("Cannot allocate memory")
            if len(tries) == 2:
                return await request(node)  # a child that does not end
            slept.set()
            return await asyncio.Event().wait()  # type: ignore[return-value]

        request = keys.make_request
        monkeypatch.setattr(keys, "make_request", busy)
        monkeypatch.setattr(keys, "CHILD_S", 0.0)
        monkeypatch.setattr(certificate, "RENEW_RETRY_S", 0.0)
        # due at once: it is in the last tenth of its life
        renewal = asyncio.create_task(Renewal(files, ask, rng=random.Random(1)).run())
        waiting = asyncio.create_task(slept.wait())
        await asyncio.wait({renewal, waiting}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert not renewal.done(), renewal.exception()
        renewal.cancel()

    asyncio.run(story())
    assert len(tries) == 3


def test_a_write_that_fails_leaves_the_old_files(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.joined(tmp_path / "pki", "edge-1")
    before = files.node.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        files.write(files.identity(), key="k", certificate="c", ca="a")
    assert files.node.read_bytes() == before
    assert sorted(f.name for f in files.folder.iterdir()) == ["ca.pem", "node.pem"]


def test_renewals_of_a_fleet_are_spread_over_a_fifth_of_the_life() -> None:
    identity = Identity(node="n", clouds=(), not_before=0.0, not_after=1000.0)
    times = [identity.renew_at(random.Random(seed)) for seed in range(200)]
    assert 700 <= min(times) < 720
    assert 880 < max(times) <= 900


@pytest.mark.parametrize(
    "text", ["", "a.b.c", "x" * 64 + ".abc123." + "s" * 32, "0" * 64 + ".abc123." + "S" * 32]
)
def test_a_token_that_is_none_is_not_repeated_in_the_message(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        certificate.parse_token(text)
    assert not text or text not in str(caught.value)


# the command line


def write_config(folder: Path) -> Path:
    path = folder / "edgecore.yaml"
    path.write_text(f"dataDir: {folder / 'data'}\nmodules: {{edged: {{hostnameOverride: edge-1}}}}\n")
    return path


def token_text(authority: Authority) -> str:
    return f"{hashlib.sha256(authority.der).hexdigest()}.{TOKEN_SECRET}"


def test_the_join_command(tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)

    async def story() -> tuple[int, int, int]:
        async with hub(authority) as fake:
            words = [
                "join",
                "--config",
                str(config),
                "--cloud",
                fake.address,
                "--token",
                token_text(authority),
            ]
            first = await asyncio.to_thread(cli.main, words)
            second = await asyncio.to_thread(cli.main, words)
            fake.spent = False
            forced = await asyncio.to_thread(cli.main, [*words, "--force"])
            return first, second, forced

    assert asyncio.run(story()) == (0, 1, 0)
    said = capsys.readouterr()
    assert "joined as node edge-1" in said.out
    assert "already" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--token", "bad"], "the join token is not"),
        (["--token", "0" * 64 + ".abc123." + "s" * 32], "--cloud: say where the hub is"),
        (["--token", "0" * 64 + ".abc123." + "s" * 32, "--cloud", "http://x"], "is not host:port"),
        (["--token", "0" * 64 + ".abc123." + "s" * 32, "--cloud", "127.0.0.1:1"], "cannot reach the cloud"),
        (
            ["--token", "0" * 64 + ".abc123." + "s" * 32, "--cloud", "h", "--node-name", "B_"],
            "not a node name",
        ),
    ],
)
def test_a_join_that_cannot_be_is_one_sentence(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["join", "--config", str(write_config(tmp_path)), *words]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_running_without_having_joined_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(f"dataDir: {tmp_path / 'data'}\nmodules: {{edged: {{enable: false}}}}\n")
    assert cli.main(["run", "--config", str(path)]) == 1
    assert "has not joined" in capsys.readouterr().err


def test_an_unknown_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text("modules: {edgeHub: {websockets: {}}}\n")
    assert cli.main(["config", "--config", str(path)]) == 1
    assert "modules.edgeHub.websockets: unknown key" in capsys.readouterr().err


def test_the_defaults_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--defaults"]) == 0
    assert "containerRuntimeEndpoint" in capsys.readouterr().out
