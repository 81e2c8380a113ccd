"""A cloudcore that follows the authority's Secret, with an API that is a dictionary."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from beehive import clock
from beehive.errors import Conflict
from cloudcore.identity import pki, rotation
from cloudcore.identity.authority import CA_SECRET, Authority, authority_body, read_authority
from cloudcore.identity.rotation import Rotation
from cloudcore.identity.succession import Held, begin, extend, readmit, settle
from cloudcore.objects import AUTHORITY_ANNOTATION, NODE, SECRET, SESSION_ANNOTATION, Change, Object, read

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
A, B = (pki.make_ca(name, lifetime=900 * DAY, now=NOW) for name in ("a", "b"))


class Api:
    """One Secret, which counts how often it was written."""

    def __init__(self, held: Held) -> None:
        self.body = authority_body(held, version="1")
        self.version = 1
        self.contested = 0

    def secret(self) -> Object:
        body = json.loads(self.body)
        body["metadata"] |= {"uid": "u", "resourceVersion": str(self.version)}
        return read(SECRET, json.dumps(body).encode())

    async def get(self, kind: Any, name: str, namespace: str = "") -> Object:
        assert (kind, name, namespace) == (SECRET, CA_SECRET, "kubeedge")
        return self.secret()

    async def replace(self, kind: Any, name: str, body: bytes, namespace: str = "") -> None:
        if self.contested:
            self.contested -= 1
            raise Conflict("another was quicker")
        assert json.loads(body)["metadata"]["resourceVersion"] == str(self.version)
        self.body, self.version = body, self.version + 1


class Nodes:
    synced = True

    def __init__(self) -> None:
        self.objects: list[Object] = []

    def __iter__(self) -> Iterator[Object]:
        return iter(self.objects)

    def add(self, name: str, authority: str) -> None:
        annotations = {SESSION_ANNOTATION: "1", AUTHORITY_ANNOTATION: authority}
        body = {"metadata": {"name": name, "uid": name, "annotations": annotations}}
        self.objects = [node for node in self.objects if node.name != name]
        self.objects.append(read(NODE, json.dumps(body).encode()))


class Rig:
    def __init__(self, held: Held) -> None:
        self.api, self.nodes, self.authority = Api(held), Nodes(), Authority(held)
        self.links: list[tuple[str, str]] = []
        self.changes = 0
        secrets: Any = self
        kube: Any = self.api
        nodes: Any = self.nodes
        self.rotation = Rotation(kube, self.authority, secrets, nodes, lambda: self.links)
        self.rotation.on_change.append(self._count)
        self.tell()

    def subscribe(self, hear: Any) -> None:
        self.hear = hear

    def _count(self) -> None:
        self.changes += 1

    def tell(self) -> None:
        """The watch says what the API has."""
        self.hear(Change(None, self.api.secret()))

    def look(self) -> None:
        asyncio.run(self.rotation._look())
        self.tell()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    now = [NOW]
    monkeypatch.setattr(clock, "wall", lambda: now[0])
    return now


def in_window(days: int = 30) -> Held:
    return begin(Held(A), B, now=NOW, window=days * DAY, certificate_life=365 * DAY)


def test_the_secret_says_all_of_it_and_kubeedge_still_reads_its_part() -> None:
    held = readmit(extend(in_window(), until=NOW + 60 * DAY), "edge-1", until=NOW + DAY)
    assert read_authority(Api(held).secret()) == held
    data = json.loads(authority_body(held, version=""))["data"]
    assert {"cadata", "cakeydata"} <= set(data)
    over = settle(held, now=NOW + 61 * DAY)
    assert read_authority(Api(over).secret()) == over
    assert "oldcakeydata" not in json.loads(authority_body(over, version=""))["data"]
    # what writes KubeEdge's part alone made another authority
    body = json.loads(authority_body(held, version=""))
    other = json.loads(authority_body(Held(A), version=""))
    body["data"] |= {key: other["data"][key] for key in ("cadata", "cakeydata")}
    assert read_authority(read(SECRET, json.dumps(body).encode())) == Held(A)


def test_a_rotation_is_taken_up_without_a_restart(time: list[datetime]) -> None:
    rig = Rig(Held(A))
    assert rig.changes == 0
    held = in_window()
    rig.api.body = authority_body(held, version="1")
    rig.tell()
    assert rig.authority.held == held
    assert (rig.authority.held.shown, rig.changes) == (A, 1)
    rig.tell()
    assert rig.changes == 1


def test_the_new_one_is_shown_when_every_node_trusts_it(time: list[datetime]) -> None:
    rig = Rig(in_window())
    new = rig.authority.held.newest
    rig.nodes.add("edge-1", f"{new} {new}")
    rig.nodes.add("edge-2", f"{'0' * 64} {'0' * 64}")
    rig.look()
    assert (rig.authority.held.shown, rig.api.version, rig.rotation.waiting()) == (A, 1, 1)
    rig.nodes.add("edge-2", f"{new} {'0' * 64}")
    rig.api.contested = 3
    rig.look()
    assert (rig.authority.held.shown, rig.api.version, rig.rotation.waiting()) == (B, 2, 0)
    rig.look()
    assert rig.api.version == 2


def test_a_stock_edge_keeps_the_old_one_shown(time: list[datetime]) -> None:
    rig = Rig(in_window())
    rig.nodes.add("stock", f"- {'0' * 64}")
    rig.look()
    assert rig.authority.held.shown == A


def test_before_the_nodes_are_known_nothing_is_concluded_from_their_absence(time: list[datetime]) -> None:
    rig = Rig(in_window())
    rig.nodes.synced = False
    rig.look()
    assert rig.authority.held.shown == A


def test_the_key_goes_when_the_window_is_over(time: list[datetime]) -> None:
    rig = Rig(in_window())
    rig.nodes.add("away", "- -")
    time[0] = NOW + 30 * DAY
    rig.look()
    assert (rig.authority.held.old, rig.changes) == (None, 1)
    assert read_authority(rig.api.secret()).old is None
    assert rig.api.version == 2
    rig.look()
    assert rig.api.version == 2


def test_a_cloudcore_that_starts_after_the_window_cleans_up(time: list[datetime]) -> None:
    time[0] = NOW + 40 * DAY
    rig = Rig(in_window())
    assert rig.authority.held.old is None
    rig.look()
    assert read_authority(rig.api.secret()).old is None


def test_when_the_api_is_away_the_window_ends_all_the_same(time: list[datetime]) -> None:
    rig = Rig(in_window())
    rig.nodes.add("away", "- -")
    time[0] = NOW + 30 * DAY
    rig.api.contested = 10**6
    with pytest.raises(Exception, match="keep changing"):
        asyncio.run(rig.rotation._look())
    assert rig.authority.held.old is None


def test_an_api_that_went_back_does_not_bring_the_old_authority_back(time: list[datetime]) -> None:
    rig = Rig(in_window())
    rig.api.body = authority_body(Held(A), version="1")
    rig.tell()
    assert rig.authority.held.pair == B
    rig.look()
    assert read_authority(rig.api.secret()).pair == B


def test_a_secret_that_was_spoilt_changes_nothing(time: list[datetime]) -> None:
    held = in_window()
    rig = Rig(held)
    good = json.loads(rig.api.body)["data"]
    said = json.loads(base64.b64decode(good["succession"]))
    chains: list[Any] = [
        {"statements": ["x", *said["chain"]["statements"]]},
        {"statements": [5]},
        {"first": "###"},
        [],
    ]
    spoilt = [{"cakeydata": "AAAA"}, {"oldcakeydata": "AAAA"}, {"succession": "e30"}, {"succession": "WzFd"}]
    spoilt += [
        {"succession": base64.b64encode(json.dumps({**said, "chain": chain}).encode()).decode()}
        for chain in chains
    ]
    for change in spoilt:
        body = json.loads(rig.api.body)
        body["data"] = {**good, **change}
        rig.api.body = json.dumps(body).encode()
        rig.tell()
        assert (rig.authority.held, rig.changes) == (held, 0)


def test_who_came_back_may_not_come_with_the_old_certificate_again(time: list[datetime]) -> None:
    held = readmit(settle(in_window(), now=NOW + 31 * DAY), "tunnel", until=NOW + 90 * DAY)
    time[0] = NOW + 40 * DAY
    rig = Rig(held)
    rig.links = [("tunnel", pki.fingerprint(A.certificate_pem)), ("edge-1", held.newest)]
    rig.look()
    assert "tunnel" in rig.authority.held.readmitted
    rig.links = [("tunnel", held.newest)]
    rig.look()
    assert (dict(rig.authority.held.readmitted), rig.api.version) == ({}, 2)


def test_it_goes_on_after_a_fault(time: list[datetime], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(in_window())
    rig.nodes.add("away", "- -")
    time[0] = NOW + 30 * DAY
    rig.api.contested = 25  # more often than one look tries
    monkeypatch.setattr(rotation, "LOOK_S", 0.0)

    async def story() -> None:
        running = asyncio.create_task(rig.rotation.run())
        async with asyncio.timeout(30):
            while read_authority(rig.api.secret()).old is not None:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(story())
