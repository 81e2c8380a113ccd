"""The Kubernetes API has a bad hour, and hubs are many, or away: F-C, with edges that are only a wire."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudcore.identity.authority import CA_SECRET, SYSTEM_NAMESPACE
from cloudcore.objects import NODE, POD, SECRET
from tests.bench.fleet import SimEdge
from tests.fakes import edge
from tests.faults.test_hostile import GROWTH_KIB, memory_kib
from tests.integration.link.cloud import Cloud, Process, node_body, pod_body, process, replica, using
from tests.support.badapi import Asked, BadApi, Fault, before, failure
from tests.support.badline import BadLine
from tests.support.ports import free_port

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A control plane that is good all the while."""
    with process(tmp_path_factory.mktemp("first"), compat_port=free_port()) as running:
        yield running


@contextlib.contextmanager
def behind(folder: Path, first: Process) -> Iterator[tuple[BadApi, Process]]:
    """A cloudcore that reaches the API through one that can be bad."""
    with before(first.kubeconfig) as api, replica(folder, api.kubeconfig(folder)) as (second, _):
        yield api, second


@contextlib.asynccontextmanager
async def connected(cloud: Cloud, second: Process, node: str) -> AsyncIterator[edge.Edge]:
    """An edge of this name at the hub behind the bad API, which has told it all there was."""
    identity = await cloud.node(node)
    await cloud.create(NODE, node_body(node))
    await cloud.create(POD, pod_body("begins", node))
    async with edge.connected(second.hub, identity) as link:
        await link.until(lambda it: "default/pod/begins" in it.paths(), LIMIT_S)
        yield link


def of_pods(asked: Asked) -> bool:
    return asked.path == "/api/v1/pods"


async def remove(cloud: Cloud, name: str) -> None:
    await cloud.api.delete(POD, name, "default", options=b'{"gracePeriodSeconds":0}')


def told(link: edge.Edge) -> Counter[tuple[str, str]]:
    return Counter((m.route.operation, m.route.resource) for m in link.pushes if "/pod/" in m.route.resource)


@pytest.mark.parametrize("how", ["status", "event"])
def test_f_c08_the_version_that_was_watched_from_is_gone(first: Process, tmp_path: Path, how: str) -> None:
    """As after a compaction: what changed meanwhile is found by a list, and nothing else is told."""
    gone = failure(410, "Expired")
    if how == "event":
        gone = Fault(events=({"type": "ERROR", "object": gone.body},))

    async def go(api: BadApi, second: Process) -> None:
        async with (
            using(first) as cloud,
            asyncio.timeout(LIMIT_S * 2),
            connected(cloud, second, "old") as link,
        ):
            for name in ("stays", "goes"):
                await cloud.create(POD, pod_body(name, "old"))
            await link.until(lambda it: {"default/pod/stays", "default/pod/goes"} <= it.paths(), LIMIT_S)
            before_ = len(link.pushes)
            api.fault = lambda asked: failure(503, "ServiceUnavailable") if of_pods(asked) else None
            api.reset_watches()
            await remove(cloud, "goes")
            await cloud.create(POD, pod_body("comes", "old"))
            refused: list[Asked] = []

            def fault(asked: Asked) -> Fault | None:
                if of_pods(asked) and asked.watches and not refused:
                    refused.append(asked)
                    return gone
                return None

            api.fault = fault
            await link.until(
                lambda it: "default/pod/comes" in it.paths() and "default/pod/goes" not in it.paths(), LIMIT_S
            )
            assert refused
            since = Counter(m.route.resource for m in link.pushes[before_:] if "/pod/" in m.route.resource)
            assert since == Counter({"default/pod/comes": 1, "default/pod/goes": 1})

    with behind(tmp_path, first) as (api, second):
        asyncio.run(go(api, second))


def test_f_c09_the_api_asks_to_wait(first: Process, tmp_path: Path) -> None:
    """As priority and fairness does, too: it says so in two more headers."""
    wait_s, seconds = 3, 10.0
    headers = {"Retry_After": str(wait_s), "X_Kubernetes_PF_FlowSchema_UID": "f"}
    busy = failure(429, "TooManyRequests", **headers)

    async def go(api: BadApi, second: Process) -> None:
        async with (
            using(first) as cloud,
            asyncio.timeout(LIMIT_S * 2),
            connected(cloud, second, "calm") as link,
        ):
            api.fault = lambda asked: busy
            api.reset_watches()
            began, at = time.monotonic(), len(api.asked)
            await cloud.create(POD, pod_body("meanwhile", "calm"))
            await asyncio.sleep(seconds)
            asked = [one for one in api.asked[at:] if one.at - began <= seconds]
            # each watch knocks again when it may, and not before
            each = Counter((one.method, one.path, one.watches) for one in asked)
            assert asked
            assert max(each.values()) <= seconds / wait_s + 2, each
            api.fault = lambda asked: None
            await link.until(lambda it: "default/pod/meanwhile" in it.paths(), LIMIT_S)
            assert told(link)["insert", "default/pod/begins"] == 1

    with behind(tmp_path, first) as (api, second):
        asyncio.run(go(api, second))


def test_f_c10_errors_resets_and_torn_answers(first: Process, tmp_path: Path) -> None:
    """All at once for a while, and pods come and go; what is lost goes on from the version that was seen last."""
    rng = random.Random(10)
    faults = [
        failure(500, "InternalError"),
        failure(503, "ServiceUnavailable"),
        Fault(status=502, body="<html>", headers={"Content-Type": "text/html"}),
        Fault(cut="reset"),
        Fault(cut="torn"),
        Fault(status=200, body={"kind": "PodList", "items": [{"metadata": {"name": "half"}}]}, cut="torn"),
        Fault(events=({"type": "MODIFIED", "object": {"kind": "Pod"}}, "no event"), cut="torn"),
    ]

    async def go(api: BadApi, second: Process) -> None:
        async with (
            using(first) as cloud,
            asyncio.timeout(LIMIT_S * 3),
            connected(cloud, second, "rough") as link,
        ):
            lists = sum(of_pods(one) and one.lists for one in api.asked)
            api.tear_watches()
            await cloud.create(POD, pod_body("after-a-tear", "rough"))
            await link.until(lambda it: "default/pod/after-a-tear" in it.paths(), LIMIT_S)
            api.reset_watches()
            await cloud.create(POD, pod_body("after-a-reset", "rough"))
            await link.until(lambda it: "default/pod/after-a-reset" in it.paths(), LIMIT_S)
            assert sum(of_pods(one) and one.lists for one in api.asked) == lists, "it listed all again"

            api.fault = lambda asked: rng.choice(faults) if rng.random() < 0.5 else None
            for number in range(20):
                await cloud.create(POD, pod_body(f"p-{number}", "rough"))
                if number % 3 == 2:
                    await remove(cloud, f"p-{number - 1}")
                if number % 4 == 3:
                    rng.choice([api.tear_watches, api.reset_watches])()
                await asyncio.sleep(0.3)
            api.fault = lambda asked: None
            api.reset_watches()
            wanted = {f"default/pod/p-{n}" for n in range(20) if n % 3 != 1 or n == 19}
            wanted |= {f"default/pod/{name}" for name in ("begins", "after-a-tear", "after-a-reset")}

            def is_right(it: edge.Edge) -> bool:
                return {path for path in it.paths() if "/pod/" in path} == wanted

            await link.until(is_right, LIMIT_S)
            # nothing was told twice, and nothing that was never there
            assert [key for key, times in told(link).items() if times > 1] == []
            assert not any("half" in path for _, path in told(link))

    with behind(tmp_path, first) as (api, second):
        asyncio.run(go(api, second))


def test_f_c02_killed_before_it_is_kept_that_an_edge_has_acknowledged(first: Process, tmp_path: Path) -> None:
    """A stock edge's acknowledgements are kept in the API; the edge gets the object once more, in the same version.

    What an edge of ours has it says itself, and gets nothing twice."""

    async def go(api: BadApi, folder: Path) -> None:
        with replica(folder, api.kubeconfig(folder)) as (second, child):
            async with using(first) as cloud, asyncio.timeout(LIMIT_S * 2):
                stock, ours = await cloud.node("stock"), await cloud.node("ours")
                for name in ("stock", "ours"):
                    await cloud.create(NODE, node_body(name))
                    await cloud.create(POD, pod_body(f"of-{name}", name))
                api.fault = lambda asked: (
                    failure(503, "ServiceUnavailable")
                    if "reliablesyncs" in asked.path and asked.method != "GET"
                    else None
                )
                async with (
                    edge.connected(second.hub, stock, ours=False) as one,
                    edge.connected(second.hub, ours) as two,
                ):
                    # both acknowledge what they get
                    await one.until(lambda it: "default/pod/of-stock" in it.paths(), LIMIT_S)
                    await two.until(lambda it: "default/pod/of-ours" in it.paths(), LIMIT_S)
                    child.kill()
                    await one.link.wait_closed()
                    await two.link.wait_closed()
        api.fault = lambda asked: None
        after = folder / "after"
        after.mkdir()
        with replica(after, api.kubeconfig(folder)) as (third, _):
            async with (
                using(first, clean=False) as cloud,
                asyncio.timeout(LIMIT_S * 2),
                edge.connected(third.hub, stock, ours=False, held=dict(one.held)) as again,
                edge.connected(third.hub, ours, held=dict(two.held)) as same,
            ):
                await again.until(lambda it: any("of-stock" in path for _, path in told(it)), LIMIT_S)
                # the same object in the same version: an edge that has it changes nothing
                (pod,) = {uid for uid, entry in one.held.items() if entry.resource == "default/pod/of-stock"}
                assert again.held[pod] == one.held[pod]
                await cloud.create(POD, pod_body("later", "ours"))
                await same.until(lambda it: "default/pod/later" in it.paths(), LIMIT_S)
                assert [path for _, path in told(same)] == ["default/pod/later"]

    with before(first.kubeconfig) as api:
        asyncio.run(go(api, tmp_path))


def test_f_c07_five_hubs_start_together_on_an_empty_cluster(tmp_path: Path) -> None:
    """As processes of their own: one authority, which all of them serve."""
    with process(tmp_path) as running, contextlib.ExitStack() as stack:

        async def empty() -> None:
            async with using(running) as cloud:
                await cloud.api.delete(SECRET, CA_SECRET, SYSTEM_NAMESPACE)

        asyncio.run(empty())
        started: list[Process] = []
        problems: list[BaseException] = []
        managers = []
        for number in range(5):
            (tmp_path / str(number)).mkdir()
            managers.append(replica(tmp_path / str(number), running.kubeconfig))

        def start(manager: contextlib.AbstractContextManager[tuple[Process, Any]]) -> None:
            try:
                started.append(manager.__enter__()[0])
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=start, args=(manager,)) for manager in managers]
        for thread in threads:
            thread.start()
        for thread, manager in zip(threads, managers, strict=True):
            thread.join(120)
            if not problems:
                stack.push(lambda *error, manager=manager: manager.__exit__(None, None, None))  # type: ignore[misc]
        assert problems == []
        assert len(started) == 5

        async def join() -> set[str]:
            found = set()
            async with using(running) as cloud, asyncio.timeout(LIMIT_S):
                for number, hub in enumerate(started):
                    identity = await edge.join(hub.hub, cloud.ca, f"n-{number}", await cloud.token())
                    found.add(identity.ca)
                    # and a certificate of one is good at another
                    async with edge.connected(started[number - 1].hub, identity):
                        pass
            return found

        assert len(asyncio.run(join())) == 1


EDGES = 120


def test_f_c15_a_fleet_comes_back_at_once(first: Process, tmp_path: Path) -> None:
    """All edges lose their hub at once, again and again, and find it or another in its place: it does not grow by that."""

    async def all_back(fleet: list[SimEdge], sessions: int) -> None:
        async with asyncio.timeout(LIMIT_S * 2):
            while not all(one.connected.is_set() and one.sessions > sessions for one in fleet):
                await asyncio.sleep(0.1)

    async def go(line: BadLine, pid: int, restart: Callable[[], int]) -> None:
        async with using(first) as cloud:
            identities = []
            for number in range(EDGES):
                identities.append(await cloud.node(f"fleet-{number}"))
                await cloud.create(NODE, node_body(f"fleet-{number}"))
            await cloud.create(POD, pod_body("of-the-last", f"fleet-{EDGES - 1}"))
            url = f"wss://127.0.0.1:{line.port}"
            fleet = [SimEdge(name=one.node, url=url, tls=one.tls()) for one in identities]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one.run()) for one in fleet]
                await all_back(fleet, 0)
                sizes = []
                for _ in range(3):
                    number = min(one.sessions for one in fleet)
                    line.cut()
                    await all_back(fleet, number)
                    sizes.append(memory_kib(pid))
                assert sizes[-1] - sizes[0] < GROWTH_KIB, sizes
                number = min(one.sessions for one in fleet)
                await asyncio.to_thread(restart)
                await all_back(fleet, number)
                # and it serves them: only what changed is told
                applied = [one.applied for one in fleet]
                await cloud.create(POD, pod_body("after", "fleet-0"))
                async with asyncio.timeout(LIMIT_S):
                    while fleet[0].applied == applied[0]:
                        await asyncio.sleep(0.1)
                assert sum(one.went_back for one in fleet) == 0
                for task in tasks:
                    task.cancel()

    with contextlib.ExitStack() as stack:
        second, child = stack.enter_context(replica(tmp_path, first.kubeconfig))
        host, port = second.hub.split(":")
        line = stack.enter_context(BadLine(host, int(port)))

        def restart() -> int:
            child.kill()
            folder = tmp_path / "again"
            folder.mkdir()
            third, _ = stack.enter_context(replica(folder, first.kubeconfig))
            line.redirect(*(lambda at: (at[0], int(at[1])))(third.hub.split(":")))
            return third.pid

        asyncio.run(go(line, second.pid, restart))
