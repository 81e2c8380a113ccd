"""What the cloud says of a link that is gone."""

import asyncio

import pytest

from beehive.session import HubSession, State
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.edgecontroller import presence as presence_module
from cloudcore.edgecontroller.presence import Presence
from cloudcore.objects import NODE, SESSION_ANNOTATION
from tests.unit.cloudcore.edgecontroller.scene import Api, Cache, node


def link(name: str, number: int = 1, *, ours: bool = True) -> Link:
    session = HubSession(node=name, ours=ours, number=number, opened_at=0.0)
    session.opened(0.0)
    return Link(session)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(presence_module, "now", lambda: at[0])
    return at


def test_a_link_that_is_gone_for_good_is_said_once(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"), node("b"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        one = link("a")
        nodes.open(one)
        nodes.open(link("b"))
        await presence.look(silent=True)
        one.session.state = State.CLOSED
        await presence.look(silent=True)
        clock[0] += 5
        await presence.look(silent=True)
        assert api.patches == []
        clock[0] += 6
        await presence.look(silent=False)
        ((name, body),) = api.patches
        said = {one["type"]: one["status"] for one in body["status"]["conditions"]}
        assert (name, said) == ("a", {"CloudConnected": "False", "Autonomous": "True"})
        clock[0] += 60
        await presence.look(silent=False)
        assert len(api.patches) == 1

    asyncio.run(main())


def test_a_link_that_is_back_soon_or_at_another_hub_is_not_said(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"), node("b"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        links = [link("a"), link("b"), link("stock", ours=False)]
        cache.put(node("stock"))
        for one in links:
            nodes.open(one)
        await presence.look(silent=False)
        for one in links:
            one.session.state = State.CLOSED
        await presence.look(silent=False)
        nodes.open(link("a", 2))
        cache.put(node("b", session=2))
        clock[0] += 30
        await presence.look(silent=True)
        assert api.patches == []

    asyncio.run(main())


def test_a_node_that_came_back_while_it_was_said_to_be_away_is_said_to_be_linked(clock: list[float]) -> None:
    async def main() -> None:
        api, nodes, cache = Api(), Nodes(), Cache(NODE, node("a"))
        presence = Presence(api, nodes, cache)  # type: ignore[arg-type]
        nodes.open(link("a", 2))
        lost = node("a", session=2, connected="False")
        lost["status"]["conditions"][1]["reason"] = "LinkLost"
        cache.put(lost)
        await presence.look(silent=False)
        assert api.patches == []  # the node's own word may be on its way
        await presence.look(silent=False)
        ((name, body),) = api.patches
        said = {one["type"]: one["status"] for one in body["status"]["conditions"]}
        assert (name, said) == ("a", {"CloudConnected": "True", "Autonomous": "False"})
        lost["metadata"]["annotations"][SESSION_ANNOTATION] = "3"  # it is at another hub by now
        cache.put(lost)
        await presence.look(silent=False)
        assert len(api.patches) == 1

    asyncio.run(main())


def test_a_node_whose_hub_is_gone_is_said_when_it_is_silent(clock: list[float]) -> None:
    async def main() -> None:
        api = Api()
        cache = Cache(
            NODE, node("a", ready="Unknown"), node("b"), node("c", ready="Unknown", connected="False")
        )
        presence = Presence(api, Nodes(), cache)  # type: ignore[arg-type]
        await presence.look(silent=False)
        assert api.patches == []
        await presence.look(silent=True)
        assert [name for name, _ in api.patches] == ["a"]

    asyncio.run(main())
