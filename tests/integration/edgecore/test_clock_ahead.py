"""A machine whose clock is years ahead reaches its hub all the same, and one that shows what is really over does not."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beehive import clock
from beehive.errors import Refused, SkerryError
from beehive.message import JoinAnswer
from cloudcore.identity import pki
from edgecore.edgehub import truetime
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.link import Link
from edgecore.edgehub.truetime import TrueTime
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from tests.fakes.hub import HOUR, Authority, FakeHub

YEARS_S = 7 * 365 * 86400


class Machine:
    """The machine's clocks, of which the one on the wall can be set."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
    clock_gettime = staticmethod(time.clock_gettime)

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def time_ns(self) -> int:
        return time.time_ns() + int(self.ahead_s * 1e9)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(clock, "time", found)
    monkeypatch.setattr(clock, "_known", None)
    return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return authority.joined(tmp_path / "pki", "edge-1")


class Node:
    """A link with its store, until it is there or says why not."""

    def __init__(self, folder: Path, files: Files, hub: FakeHub) -> None:
        self.store = Store.open(folder / "edgecore.db")
        self.meta = MetaManager(self.store, "edge-1", query_s=5)
        self.link = Link(
            node="edge-1",
            addresses=[hub.address],
            tls=files.tls,
            peer=self.meta,
            ask_time=TrueTime(files).ask,
        )
        self.meta.bind(self.link)

    async def outcome(self) -> str:
        """Nothing when it is linked, else what is said of it."""
        try:
            await self.meta.load()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.meta.run()), group.create_task(self.link.run())]
                async with asyncio.timeout(60):
                    while not self.meta.online and not self.link.last_error:
                        await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                return "" if self.meta.online else self.link.last_error
        finally:
            self.store.close()


def outcome(folder: Path, files: Files, hub: FakeHub) -> str:
    async def story() -> str:
        async with hub.serving():
            return await Node(folder, files, hub).outcome()

    return asyncio.run(story())


def test_a_machine_years_ahead_goes_by_the_clouds_time(
    tmp_path: Path, authority: Authority, files: Files, machine: Machine
) -> None:
    machine.ahead_s = YEARS_S
    before = files.node.read_bytes()
    assert outcome(tmp_path, files, FakeHub(authority)) == ""
    # of the minutes that the hub dates back nothing is left
    assert abs(clock.wall().timestamp() - time.time()) < 120
    assert abs(clock.wall_ms() / 1000 - time.time()) < 120
    assert abs(clock.ahead_s() - YEARS_S) < 120
    assert clock.machine().year >= datetime.now(UTC).year + 6
    assert files.node.read_bytes() == before
    # somebody sets it
    machine.ahead_s = 0.0
    assert abs(clock.wall().timestamp() - time.time()) < 1
    assert clock.ahead_s() == 0


def test_a_hub_whose_certificate_is_over_is_refused_whatever_the_clock_says(
    tmp_path: Path, authority: Authority, files: Files, machine: Machine
) -> None:
    """As somebody has it who stole a hub's key, and whose old certificate is all there is to it."""
    old = pki.issue(
        authority.ca, common_name="hub", server=True, lifetime=HOUR, now=datetime.now(UTC) - 2 * HOUR
    )
    (authority.folder / "old.pem").write_bytes(old.certificate_pem + old.key_pem)
    for ahead_s in (0.0, YEARS_S):
        machine.ahead_s = ahead_s
        hub = FakeHub(authority)
        hub.certificate = "old.pem"
        assert "its certificate has expired" in outcome(tmp_path, files, hub)
        assert clock.ahead_s() == 0


def test_an_old_answer_or_one_of_another_authority_says_nothing_of_the_time(
    tmp_path: Path, authority: Authority, files: Files, machine: Machine
) -> None:
    machine.ahead_s = YEARS_S
    recorded = authority.node("edge-1").certificate_pem.decode()
    stranger = Authority(tmp_path / "stranger")

    class Liar(FakeHub):
        def sign(self, node: str, csr: str) -> JoinAnswer:
            return JoinAnswer(certificate=recorded, ca="")

    class Stranger(FakeHub):
        def sign(self, node: str, csr: str) -> JoinAnswer:
            signed = FakeHub(stranger).sign(node, csr)
            return JoinAnswer(certificate=signed.certificate, ca="")

    for hub in (Liar(authority), Stranger(authority)):
        said = outcome(tmp_path, files, hub)
        assert "another key" in said or "not signed by" in said
        assert clock.ahead_s() == 0


def test_a_nodes_certificate_that_is_over_says_what_to_do(
    tmp_path: Path, authority: Authority, machine: Machine
) -> None:
    files = authority.joined(tmp_path / "pki", "edge-1", timedelta(seconds=-10))
    for ahead_s in (0.0, YEARS_S):
        machine.ahead_s = ahead_s
        said = outcome(tmp_path, files, FakeHub(authority))
        assert "the certificate of node edge-1 has expired: run `edgecore join --token" in said
        assert f"this machine's clock says {clock.machine():%Y-%m}" in said
        assert clock.ahead_s() == 0


def test_what_was_confirmed_is_not_asked_again_at_once(
    tmp_path: Path, authority: Authority, files: Files, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = truetime.keys.make_request

    async def counted(node: str) -> truetime.keys.Request:
        made.append(node)
        return await real(node)

    monkeypatch.setattr(truetime.keys, "make_request", counted)
    old = pki.issue(
        authority.ca, common_name="hub", server=True, lifetime=HOUR, now=datetime.now(UTC) - 2 * HOUR
    )
    (authority.folder / "old.pem").write_bytes(old.certificate_pem + old.key_pem)

    async def story() -> None:
        hub, known = FakeHub(authority), TrueTime(files)
        with pytest.raises(SkerryError):  # nobody there: the key is kept for the next time
            await known.ask("127.0.0.1:1")
        hub.certificate = "old.pem"
        async with hub.serving():
            with pytest.raises(Refused, match="has expired"):
                await known.ask(hub.address)
            assert not await known.ask(hub.address)
            assert len(made) == 1
            # a clock that was set is another matter
            machine.ahead_s = -YEARS_S
            with pytest.raises(Refused, match="has expired"):
                await known.ask(hub.address)
        assert len(made) == 2

    asyncio.run(story())
