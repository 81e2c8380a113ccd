"""Several hubs at one API: a node is one hub's at a time, and moving it costs nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.protocol import State

from beehive import session
from beehive.errors import NotFound
from beehive.message import InventoryEntry, Message, Op
from cloudcore.identity.authority import CA_SECRET, SYSTEM_NAMESPACE, ensure_authority
from cloudcore.objects import CONFIGMAP, NODE, POD, SECRET, SESSION_ANNOTATION, annotation
from tests.fakes import edge
from tests.integration.link.cloud import Process, node_body, pod_body, process, replica, using
from tests.support.relay import Relay

EDGES = 12


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("first")) as running:
        yield running


def pods_told(link: edge.Edge) -> list[str]:
    return [m.route.resource for m in link.pushes if "/pod/" in m.route.resource]


def test_a_node_that_comes_to_another_hub_leaves_the_first(first: Process, tmp_path: Path) -> None:
    async def go(second: Process) -> None:
        async with using(first) as cloud, asyncio.timeout(60):
            identity = await cloud.node("mover")
            await cloud.create(NODE, node_body("mover"))
            await cloud.create(CONFIGMAP, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
            volumes = [{"name": "v", "configMap": {"name": "settings"}}]
            await cloud.create(POD, pod_body("one", "mover", volumes=volumes))
            async with edge.connected(cloud.hub, identity) as old:
                await old.until(lambda it: "default/pod/one" in it.paths())
                async with edge.connected(second.hub, identity, held=dict(old.held)) as new_:
                    assert new_.session > old.session
                    async with asyncio.timeout(30):
                        await old.link.wait_closed()
                    assert old.link.close_code == session.CLOSE_REPLACED
                    before = len(old.pushes)
                    await cloud.create(POD, pod_body("two", "mover"))
                    await cloud.patch(CONFIGMAP, "settings", {"data": {"a": "2"}})
                    await new_.until(lambda it: it.pushed(Op.UPDATE, "default/configmap/settings"))
                    await new_.until(lambda it: "default/pod/two" in it.paths())
                    # the one it had is not sent again, though another hub had sent it
                    assert pods_told(new_) == ["default/pod/two"]
                    assert len(old.pushes) == before
                    held, number = dict(new_.held), new_.session
                    # and back, while the second still holds the socket
                    async with edge.connected(cloud.hub, identity, held=held) as back:
                        assert back.session > number
                        async with asyncio.timeout(30):
                            await new_.link.wait_closed()
                        assert new_.link.close_code == session.CLOSE_REPLACED
                        await cloud.create(POD, pod_body("three", "mover"))
                        await back.until(lambda it: "default/pod/three" in it.paths())
                        assert pods_told(back) == ["default/pod/three"]
                        # the clean-up of the replaced session does not touch this one
                        node = await cloud.api.get(NODE, "mover")
                        assert annotation(node, SESSION_ANNOTATION) == str(back.session)
                        await back.request(Op.QUERY, "null/node/mover")

    with replica(tmp_path, first.kubeconfig) as (second, _):
        asyncio.run(go(second))


def test_a_hub_that_is_killed_loses_and_doubles_nothing(first: Process, tmp_path: Path) -> None:
    async def one_edge(
        number: int, cloud_hub: str, second: Process, identity: edge.Identity, ready: asyncio.Semaphore
    ) -> list[str]:
        """Told at the second hub until that dies, then at the first; every pod it was told, in order."""
        async with edge.connected(second.hub, identity) as link:
            await link.until(lambda it: f"default/pod/before-{number}" in it.paths(), 60)
            ready.release()
            await link.link.wait_closed()
        held: dict[str, InventoryEntry] = dict(link.held)
        told = pods_told(link)
        async with edge.connected(cloud_hub, identity, held=held) as link:
            await link.until(lambda it: f"default/pod/after-{number}" in it.paths(), 60)
            return told + pods_told(link)

    async def go() -> None:
        async with using(first) as cloud, asyncio.timeout(90):
            with replica(tmp_path, first.kubeconfig) as (second, child):
                identities = []
                for number in range(EDGES):
                    name = f"many-{number}"
                    identities.append(await cloud.node(name))
                    await cloud.create(NODE, node_body(name))
                    await cloud.create(POD, pod_body(f"before-{number}", name))
                ready = asyncio.Semaphore(0)
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(one_edge(number, cloud.hub, second, identity, ready))
                        for number, identity in enumerate(identities)
                    ]
                    for _ in tasks:
                        await ready.acquire()
                    child.kill()
                    for number in range(EDGES):
                        await cloud.create(POD, pod_body(f"after-{number}", f"many-{number}"))
                told = Counter(path for task in tasks for path in task.result())
                names = [f"default/pod/{when}-{n}" for when in ("before", "after") for n in range(EDGES)]
                assert told == Counter(names)

    asyncio.run(go())


def test_hubs_that_start_together_make_one_authority(tmp_path: Path) -> None:
    async def go(running: Process) -> None:
        async with using(running) as cloud, asyncio.timeout(60):
            await cloud.api.delete(SECRET, CA_SECRET, SYSTEM_NAMESPACE)
            with pytest.raises(NotFound):
                await cloud.api.get(SECRET, CA_SECRET, SYSTEM_NAMESPACE)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ensure_authority(cloud.api)) for _ in range(5)]
            assert len({task.result().fingerprint for task in tasks}) == 1

    with process(tmp_path) as running:
        asyncio.run(go(running))


def test_f_c11_while_the_api_is_away_edges_stay_and_nothing_is_lost(first: Process, tmp_path: Path) -> None:
    text = first.kubeconfig.read_text()
    found = re.search(r"server: https://127\.0\.0\.1:(\d+)", text)
    assert found is not None

    async def told(link: edge.Edge, path: str, uid: str) -> Message:
        patch = {"metadata": {"uid": uid}, "status": {"phase": "Running", "message": "seen while away"}}
        return await link.request(Op.PATCH, path, json.dumps(patch))

    async def go(relay: Relay, second: Process) -> None:
        async with using(first) as cloud, asyncio.timeout(90):
            identity = await cloud.node("patient")
            await cloud.create(NODE, node_body("patient"))
            pod = await cloud.create(POD, pod_body("one", "patient"))
            async with edge.connected(second.hub, identity) as link:
                await link.until(lambda it: "default/pod/one" in it.paths())
                relay.line.refuse = True
                relay.cut()
                answer = await told(link, "default/podpatch/one", pod.uid)
                # which an edge sends again
                assert json.loads(bytes(answer.content))["Err"]["ErrStatus"]["code"] == 503
                await cloud.create(POD, pod_body("two", "patient"))
                await cloud.api.delete(POD, "one", "default", options=b'{"gracePeriodSeconds":0}')
                await asyncio.sleep(1)
                assert "default/pod/two" not in link.paths()
                relay.line.refuse = False
                await link.until(
                    lambda it: "default/pod/two" in it.paths() and "default/pod/one" not in it.paths()
                )
                assert link.link.state is State.OPEN

    async def story() -> None:
        async with Relay("127.0.0.1", int(found[1])) as relay:
            config = tmp_path / "kubeconfig"
            config.write_text(text.replace(f"127.0.0.1:{found[1]}", f"127.0.0.1:{relay.listen_port}"))
            manager = replica(tmp_path, config)
            # it waits for the hub, which waits for the relay
            second, _ = await asyncio.to_thread(manager.__enter__)
            try:
                await go(relay, second)
            finally:
                await asyncio.to_thread(manager.__exit__, None, None, None)

    asyncio.run(story())
