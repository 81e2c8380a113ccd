"""One authority takes the place of another while nodes are linked, away, stock or new: real cloudcores and edgecore's parts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from websockets.exceptions import InvalidMessage
from websockets.protocol import State

from beehive import clock, session
from cloudcore.identity import pki, rotation
from cloudcore.identity.authority import (
    CA_LIFETIME,
    CA_SECRET,
    SYSTEM_NAMESPACE,
    change_authority,
    ensure_authority,
)
from cloudcore.identity.succession import Held, begin, extend, finish, readmit
from cloudcore.kube import Kube
from cloudcore.objects import NODE, SECRET, SESSION_ANNOTATION
from edgecore.edgehub import certificate
from edgecore.edgehub.certificate import Files, Renewal, parse_token
from edgecore.edgehub.link import Link
from edgecore.edgehub.succession import Follower
from edgecore.edgehub.truetime import TrueTime
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, Process, node_body, process, replica, using

WAIT_S = 60.0
LIFE = timedelta(days=30)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("first")) as running:
        yield running


async def rotate(api: Kube, window: timedelta = timedelta(minutes=10)) -> Held:
    """As the command does."""
    now = datetime.now(UTC)
    made = pki.make_ca(f"KubeEdge {now}", lifetime=CA_LIFETIME, now=now)
    return await change_authority(
        api, lambda held: begin(held, made, now=now, window=window, certificate_life=LIFE)
    )


async def end(api: Kube) -> None:
    """Whatever goes on."""
    held = (await ensure_authority(api)).held
    if held.old is not None:
        await change_authority(api, lambda found: finish(found, now=datetime.now(UTC)))


async def eventually(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise AssertionError(f"waited in vain for {what}") from error


class Soon(random.Random):
    """Of what is spread over time, the beginning."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Machine:
    """A machine whose link, store, trust and renewal are edgecore's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(exist_ok=True)
        self.files = Files(folder / "pki")
        self.follower = Follower(self.files)

    async def join(self, cloud: Cloud, ca_hash: str, *, hub: str = "") -> None:
        token = parse_token(f"{ca_hash}.{await cloud.token(node=self.name)}")
        await certificate.join(self.files, node=self.name, addresses=[hub or cloud.hub], token=token)
        if not [node for node in (await cloud.api.list_all(NODE)).objects if node.name == self.name]:
            await cloud.create(NODE, node_body(self.name))

    @contextlib.asynccontextmanager
    async def running(self, hub: str) -> AsyncIterator[Link]:
        store = Store.open(self.folder / "edgecore.db")
        meta = MetaManager(store, self.name, query_s=5)
        link = Link(
            node=self.name,
            addresses=[hub],
            tls=self.files.tls,
            peer=meta,
            ask_time=TrueTime(self.files).ask,
            authorities=self.follower,
        )
        meta.bind(link)
        meta.handlers["authority"] = self.follower.pushed
        self.follower.tell = link.send
        renewal = Renewal(self.files, meta.request, rng=Soon(), renewed=link.redial)
        self.follower.on_followed[:] = [renewal.followed]
        meta.on_connected.append(lambda _: renewal.linked())
        try:
            await meta.load()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part.run()) for part in (meta, link, renewal)]
                yield link
                for task in tasks:
                    task.cancel()
        finally:
            store.close()

    @property
    def trusted(self) -> list[str]:
        return [known.hash for known in self.files.trusted()]

    def holds(self, authority: str) -> bool:
        return self.files.identity().authority == authority

    async def is_known(self, cloud: Cloud, authority: str) -> bool:
        """Whether the API says that it trusts this authority and holds a certificate of it."""
        said = rotation.trust_of(await cloud.api.get(NODE, self.name))
        return (said.newest, said.signed_by) == (authority, authority)


async def is_refused(hub: str, identity: edge.Identity) -> bool:
    """Whether TLS refuses this certificate."""
    try:
        async with edge.connected(hub, identity, ours=False):
            return False
    except ssl.SSLCertVerificationError:
        raise  # it is we who refuse the hub
    except (OSError, InvalidMessage, ssl.SSLError):
        return True


async def can_connect(hub: str, identity: edge.Identity) -> bool:
    async with edge.connected(hub, identity, ours=False):
        return True


def test_both_are_trusted_in_the_window_and_the_old_one_is_rejected_after_it(
    first: Process, tmp_path: Path
) -> None:
    async def go(second: Process) -> None:
        async with using(first) as cloud:
            old = (await ensure_authority(cloud.api)).fingerprint
            machine, away = Machine(tmp_path / "m", "edge-1"), Machine(tmp_path / "a", "edge-2")
            await machine.join(cloud, old)
            await away.join(cloud, old)
            late_token = f"{old}.{await cloud.token(node='late')}"
            stock, other = await cloud.node("stock-1"), await cloud.node("stock-2")
            # for its sake the old one goes on being shown
            await cloud.create(NODE, node_body("stock-1", annotations={SESSION_ANNOTATION: "1"}))
            async with machine.running(second.hub) as link:
                await eventually(lambda: link.session is not None, "a link")
                new = (await rotate(cloud.api)).newest
                await eventually(lambda: machine.trusted == [old, new], "trust in both")
                await eventually(lambda: machine.holds(new), "a certificate of the new one")
                await eventually(lambda: machine.is_known(cloud, new), "the API to say so")
                # both count, at both hubs, and each hub proves itself by the old one, as stock edges need it
                for hub in (cloud.hub, second.hub):
                    assert await can_connect(hub, other)
                # one that was away follows, without ever having been linked, at the hub that did not begin it
                async with away.running(second.hub) as back:
                    await eventually(lambda: away.holds(new), "the one that was away to follow")
                    await eventually(lambda: away.is_known(cloud, new), "the API to say so")
                    assert back.session is not None
                # the window is over
                async with edge.connected(cloud.hub, stock, ours=False) as it:
                    until = datetime.now(UTC) + timedelta(seconds=3)
                    await change_authority(cloud.api, lambda held: extend(held, until=until))
                    await eventually(lambda: it.link.state is State.CLOSED, "the old one's link to end")
                    assert it.link.close_code == session.CLOSE_REVOKED
                for hub in (cloud.hub, second.hub):
                    trusting_both = edge.Identity(
                        other.node, machine.files.ca.read_text(), other.certificate, other.key
                    )
                    await eventually(lambda h=hub, t=trusting_both: is_refused(h, t), "rejection")  # type: ignore[misc]
                await eventually(lambda: link.session is not None, "the link")
                stored = await cloud.api.get(SECRET, CA_SECRET, SYSTEM_NAMESPACE)
                assert b"oldcakeydata" not in stored.raw
                # with the next dial the node forgets the old one
                link.redial()
                await eventually(lambda: machine.trusted == [new], "the old one, forgotten")
                await eventually(lambda: link.session is not None, "the link")
            assert (machine.follower.refused, machine.follower.followed) == (0, 1)
            # a token from before it all still says who follows whom
            late = Files(tmp_path / "late")
            await certificate.join(late, node="late", addresses=[cloud.hub], token=parse_token(late_token))
            assert late.identity().authority == new

    with replica(tmp_path, first.kubeconfig) as (second, _):
        asyncio.run(go(second))


def test_a_node_that_missed_several_rotations_is_let_in_when_the_operator_says_so(
    first: Process, tmp_path: Path
) -> None:
    async def go() -> None:
        async with using(first) as cloud:
            await end(cloud.api)
            old = (await ensure_authority(cloud.api)).fingerprint
            machine, other = Machine(tmp_path / "m", "tunnel-7"), Machine(tmp_path / "o", "tunnel-8")
            await machine.join(cloud, old)
            await other.join(cloud, old)
            await rotate(cloud.api)
            await end(cloud.api)
            new = (await rotate(cloud.api)).newest
            await end(cloud.api)

            async def nobody_is_readmitted() -> bool:
                return not (await ensure_authority(cloud.api)).held.readmitted

            async with machine.running(cloud.hub) as link:
                # the hub proves itself: the statements lead from what the node knows to what it sees
                await eventually(lambda: machine.trusted[-1] == new, "trust in the newest")
                await eventually(lambda: "authority readmit tunnel-7" in link.last_error, "what to do")
                assert link.session is None
                until = clock.wall() + timedelta(hours=1)
                await change_authority(cloud.api, lambda held: readmit(held, "tunnel-7", until=until))
                await eventually(lambda: machine.holds(new), "a certificate of the newest")
                await eventually(lambda: machine.is_known(cloud, new), "the link with it")
                await eventually(nobody_is_readmitted, "the end of the exception")
            async with other.running(cloud.hub) as link:
                await eventually(lambda: "authority readmit tunnel-8" in link.last_error, "what to do")
                assert link.session is None

    asyncio.run(go())


def test_tokens_and_machines_that_join_in_the_window(first: Process, tmp_path: Path) -> None:
    async def go() -> None:
        async with using(first) as cloud:
            await end(cloud.api)
            old = (await ensure_authority(cloud.api)).fingerprint
            away = Machine(tmp_path / "a", "away")
            await away.join(cloud, old)
            # for whose sake the old one goes on being shown
            await cloud.create(NODE, node_body("stock-3", annotations={SESSION_ANNOTATION: "1"}))
            new = (await rotate(cloud.api)).newest
            assert (await ensure_authority(cloud.api)).fingerprint == old  # what new tokens begin with
            machine = Machine(tmp_path / "m", "joiner")
            await machine.join(cloud, old)
            assert (machine.trusted, machine.holds(new)) == ([old, new], True)
            # one that is older than rotations joins, too, and gets what it can use
            stranger = await edge.join(
                cloud.hub, away.files.ca.read_text(), "simple", await cloud.token(node="simple")
            )
            assert pki.signed_by(stranger.certificate.encode(), away.files.ca.read_bytes())
            assert await can_connect(cloud.hub, stranger)

    asyncio.run(go())
