"""What a node or an API should never do, done to a real hub: the others must not feel it.  Cases of A, F-C and M."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from beehive import codec, session
from beehive.message import Inventory, InventoryEntry, Op, Source, new
from cloudcore.objects import CONFIGMAP, DEVICE, EVENT, NODE, POD
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, Process, node_body, pod_body, process, using

LIMIT_S = 60.0
MIB = 1024 * 1024
Test = Callable[[Cloud, edge.Edge, edge.Edge], Awaitable[None]]


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def with_two(running: Process, test: Test) -> None:
    """Nodes `good` and `bad` are connected; afterwards `good` still is, and is still served."""

    async def go() -> None:
        async with using(running) as cloud, asyncio.timeout(LIMIT_S * 2):
            good, bad = await cloud.node("good"), await cloud.node("bad")
            for name in ("good", "bad"):
                await cloud.create(NODE, node_body(name))
            async with edge.connected(cloud.hub, good) as first, edge.connected(cloud.hub, bad) as second:
                await first.until(lambda it: "null/node/good" in it.paths(), LIMIT_S)
                await second.until(lambda it: "null/node/bad" in it.paths(), LIMIT_S)
                await test(cloud, first, second)
                await cloud.create(POD, pod_body("after", "good"))
                await first.until(lambda it: "default/pod/after" in it.paths(), LIMIT_S)

    asyncio.run(go())


async def answered(link: edge.Edge, operation: str, path: str, content: Any, timeout_s: float = 3.0) -> bytes:
    """What a request is answered with; nothing when it is not answered."""
    with contextlib.suppress(TimeoutError):
        question = new(source=Source.EDGED, group="meta", operation=operation, resource=path, content=content)
        answer = await link.ask(question, timeout_s)
        return answer.route.operation.encode() + bytes(answer.content)
    return b""


def is_refusal(answer: bytes) -> bool:
    return not answer or answer.startswith(b"error") or b'"Failure"' in answer


def test_m09_poison_objects_hold_up_nobody(cloudcore: Process) -> None:
    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        env = [
            {"name": f"E{number}", "valueFrom": {"configMapKeyRef": {"name": f"c-{number}", "key": "k"}}}
            for number in range(5000)
        ]
        await cloud.create(CONFIGMAP, {"metadata": {"name": "huge"}, "data": {"a": "x" * 900_000}})
        containers = [{"name": "c", "image": "busybox", "env": env}]
        volumes = [{"name": "v", "configMap": {"name": "huge"}}]
        poison = pod_body("poison", "bad", volumes=volumes, containers=containers)
        await cloud.create(POD, poison)
        orphan = {"metadata": {"name": "orphan"}, "spec": {"nodeName": "bad", "protocol": {}}}
        await cloud.create(DEVICE, orphan)
        await bad.until(lambda it: {"default/pod/poison", "default/configmap/huge"} <= it.paths(), LIMIT_S)
        # the whole of it again, for one that comes with nothing
        async with edge.connected(cloud.hub, bad.identity) as again:
            await again.until(lambda it: "default/pod/poison" in it.paths(), LIMIT_S)

    with_two(cloudcore, test)


def test_m02_depth_and_m08_a_flood_end_one_link_at_most(cloudcore: Process) -> None:
    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        deep = b"[" * 100_000 + b"]" * 100_000
        frame = b'{"header":{"msg_id":"d","timestamp":1},"route":{"operation":"patch"},"content":%s}' % deep
        tiny = codec.encode(session.keepalive())

        async def flood() -> None:
            with contextlib.suppress(ConnectionClosed):
                for number in range(6000):
                    await bad.link.send(frame if number == 3000 else tiny, text=True)

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            for _ in range(20):
                # the other is answered all the while
                assert b"good" in await answered(good, Op.QUERY, "null/node/good", None, LIMIT_S)
            await flooding

    with_two(cloudcore, test)


def test_what_a_node_makes_up_is_neither_kept_nor_in_the_way(cloudcore: Process) -> None:
    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        held = {f"u-{n}": InventoryEntry(f"default/pod/made-up-{n}", "9") for n in range(4000)}
        inventory = Inventory(objects=held)
        async with edge.connected(cloud.hub, bad.identity, inventory=False, acks=False) as liar:
            await liar.send(session.holding("bad", Op.INVENTORY, inventory))
            for _ in range(5):
                # a second one was not asked for
                await liar.send(session.holding("bad", Op.INVENTORY, inventory))
            async with asyncio.timeout(LIMIT_S):
                await liar.link.wait_closed()
            assert liar.link.close_code == session.CLOSE_BAD_FRAME
        async with edge.connected(cloud.hub, good.identity, held={}) as other:
            await other.until(lambda it: "null/node/good" in it.paths(), LIMIT_S)

    async def go() -> None:
        async with using(cloudcore) as cloud, asyncio.timeout(LIMIT_S * 2):
            good, bad = await cloud.node("good"), await cloud.node("bad")
            for name in ("good", "bad"):
                await cloud.create(NODE, node_body(name))
            async with edge.connected(cloud.hub, good) as first, edge.connected(cloud.hub, bad) as second:
                await test(cloud, first, second)

    asyncio.run(go())


def test_a08_a10_a11_a12_a14_what_a_node_may_not_do_it_cannot(cloudcore: Process) -> None:
    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        theirs = await cloud.create(POD, pod_body("theirs", "good"))
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "theirs", "uid": theirs.uid}
        mirror = {"kubernetes.io/config.mirror": "x"}
        planted = {"metadata": {"name": "planted", "namespace": "default", "annotations": mirror}}
        spec = {
            "nodeName": "bad",
            "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i"}],
        }
        taint = [{"key": "mine", "effect": "NoSchedule"}]
        event = {
            "metadata": {"name": "forged", "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": "good", "uid": "good"},
            "source": {"component": "kubelet", "host": "good"},
            "reason": "Forged",
        }
        label = {"metadata": {"labels": {"node-restriction.kubernetes.io/team": "x"}}}
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "theirs", "uid": theirs.uid}
        attempts: list[tuple[str, str, Any]] = [
            (Op.QUERY, "default/serviceaccounttoken/default", {"spec": {"boundObjectRef": bound}}),
            (Op.QUERY, "default/serviceaccounttoken/default", {"spec": {"expirationSeconds": 10**9}}),
            (Op.INSERT, "default/pod/planted", {**planted, "spec": spec}),
            (Op.PATCH, "null/nodepatch/bad", json.dumps(label)),
            (Op.PATCH, "null/nodepatch/good", json.dumps({"status": {"phase": "x"}})),
            (Op.UPDATE, "null/node/bad", {"metadata": {"name": "bad"}, "spec": {"taints": taint}}),
            (Op.UPDATE, "null/node/bad", {"metadata": {"name": "bad", "ownerReferences": [owner]}}),
            (Op.DELETE, "null/node/bad", None),
            (Op.INSERT, "default/event/forged", event),
        ]
        for operation, path, content in attempts:
            answer = await answered(bad, operation, path, content)
            assert is_refusal(answer), (operation, path, answer[:300])
        events = [item.name for item in (await cloud.api.list_all(EVENT)).objects]
        assert "forged" not in events
        assert "planted" not in [item.name for item in (await cloud.api.list_all(POD)).objects]
        nodes = {item.name: item for item in (await cloud.api.list_all(NODE)).objects}
        assert b'"mine"' not in nodes["bad"].raw
        assert "node-restriction.kubernetes.io/team" not in (nodes["bad"].labels or {})

    with_two(cloudcore, test)


def test_m05_a_frame_is_of_the_right_types_or_none_at_all(cloudcore: Process) -> None:
    """Also text that is no UTF-8, where a decoder that skips would not see it."""

    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        head = b'{"header":{"msg_id":"m","timestamp":1},"route":{"source":"metamanager","group":"resource",'
        bad_frames = [
            head
            + b'"operation":"inventory","resource":"null/node/bad"},"content":{"objects":{"\xff":["p","1"]}}}',
            head + b'"operation":"ack","resource":"null/node/bad"},"content":["\xff"]}',
            head + b'"operation":7},"content":null}',
        ]
        for frame in bad_frames:
            with contextlib.suppress(ConnectionClosed):
                await bad.link.send(frame, text=False)
        async with asyncio.timeout(LIMIT_S):
            await bad.link.wait_closed()
        assert bad.link.close_code == session.CLOSE_BAD_FRAME

    with_two(cloudcore, test)


def test_m10_pings_whose_answers_nobody_reads_end_the_link(cloudcore: Process) -> None:
    """The library answers each ping at once, beside the hub's own bounds of what it writes."""

    async def test(cloud: Cloud, good: edge.Edge, bad: edge.Edge) -> None:
        reader, writer = await upgraded(cloud.hub, bad.identity)
        del reader  # what comes is never taken from the socket
        ping = b"\x89\xfd" + bytes(4) + bytes(125)
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 96 * MIB:
                writer.write(ping * 1024)
                async with asyncio.timeout(20):
                    await writer.drain()
                sent += len(ping) * 1024
        writer.transport.abort()
        assert sent < 96 * MIB, "the hub goes on taking pings"

    with_two(cloudcore, test)


async def upgraded(hub: str, who: edge.Identity) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A link by hand, whose answers are not read."""
    host, port = hub.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=who.tls(), limit=4096)
    lines = [
        f"GET /{session.PROJECT_ID}/{who.node}/events HTTP/1.1",
        f"Host: {hub}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"{session.HEADER_NODE}: {who.node}",
        f"{session.HEADER_USE}: msg",
        f"{session.HEADER_PROTOCOL}: {session.PROTOCOL_VERSION}",
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    return reader, writer
