"""Our edge at a stock cloudcore that answers as a real one was recorded to: a node's life, and the pitfalls on its way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beehive import session
from beehive.message import Group, Message, Op, Source, new, reply
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.link import Link
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from edgecore.nodestatus import NodeStatus
from tests.fakes.hub import Authority, FakeHub
from tests.vectors_kubeedge import frames

NODE = "vec-edge"
LIMIT_S = 60.0
CLOUD_SOURCES = {"cloudhub", "cloudStream", "devicecontroller", "edgecontroller", "synccontroller"}
OUR_WORDS = {Op.ACK, Op.INVENTORY, Op.DIGEST, Op.JOIN, Op.RENEW}
TOKEN = {
    "spec": {"audiences": [], "expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "name": "p1"}}
}


def recorded_answers() -> dict[str, list[Any]]:
    """Request ("query configmap") → the contents that a stock cloud answered it with, in order."""
    asked = {f["header"]["msg_id"]: f for f in frames("up") if not f["header"].get("parent_msg_id")}
    found: dict[str, list[Any]] = {}
    for answer in frames("down"):
        request = asked.get(answer["header"].get("parent_msg_id", ""))
        if request is not None:
            kind = [*request["route"].get("resource", "").split("/"), ""][1]
            found.setdefault(f"{request['route'].get('operation', '')} {kind}", []).append(answer["content"])
    return found


class StockCloud(FakeHub):
    """Answers each kind of request with what was recorded for it; the last one again and again."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority, ours=False)
        self.thanked: set[str] = set()
        for kind, contents in recorded_answers().items():
            self.answers[kind] = self._script(list(contents))

    def _script(self, contents: list[Any]) -> Callable[[Message], Any]:
        def answer(message: Message) -> Message:
            content = contents.pop(0) if len(contents) > 1 else contents[0]
            said = reply(message, content, source="edgecontroller", group="resource")
            self.thanked.add(said.id)
            return said

        return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


Story = Callable[[StockCloud, MetaManager], Awaitable[None]]


@asynccontextmanager
async def living(
    authority: Authority, files: Files, store: Store
) -> AsyncIterator[tuple[StockCloud, MetaManager]]:
    cloud = StockCloud(authority)
    meta = MetaManager(store, NODE, query_s=5)
    async with cloud.serving():
        link = Link(node=NODE, addresses=[cloud.address], tls=files.tls, peer=meta)
        meta.bind(link)
        await meta.load()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(meta.run()), group.create_task(link.run())]
            await cloud.until(lambda: cloud.got(Op.KEEPALIVE), LIMIT_S)
            try:
                yield cloud, meta
            finally:
                for task in tasks:
                    task.cancel()


def play(tmp_path: Path, authority: Authority, story: Story) -> None:
    """And whatever happened, only a stock edge's words were said, in its form."""
    files = authority.joined(tmp_path / "pki", NODE)
    store = Store.open(tmp_path / "edgecore.db")

    async def go() -> None:
        async with asyncio.timeout(LIMIT_S * 2), living(authority, files, store) as (cloud, meta):
            await story(cloud, meta)
            check_words(cloud)

    try:
        asyncio.run(go())
    finally:
        store.close()


def check_words(cloud: StockCloud) -> None:
    headers = cloud.requests[0]
    assert headers["node_id"] == NODE
    assert headers["ConnectionUse"] == "msg"
    assert headers["project_id"] == session.PROJECT_ID
    assert "Origin" not in headers
    ids = [message.id for message in cloud.received]
    assert len(ids) == len(set(ids))
    for message in cloud.received:
        assert message.route.operation not in OUR_WORDS
        assert message.route.source not in CLOUD_SOURCES
        assert not message.header.type
    first = cloud.received[0]
    assert (first.route.operation, first.text()) == (Op.KEEPALIVE, "ping")


class Machine:
    """edged's facts."""

    async def node_status(self) -> bytes:
        return b'{"conditions":[{"type":"Ready","status":"True"}]}'

    async def node_object(self) -> bytes:
        labels = {"node-role.kubernetes.io/edge": ""}
        return msgspec.json.encode({"metadata": {"name": NODE, "labels": labels}, "status": {}})


def test_a_node_registers_keeps_its_lease_and_tells_its_status(tmp_path: Path, authority: Authority) -> None:
    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(NodeStatus(meta, Machine(), report_s=300).run())
            await cloud.until(lambda: cloud.got(Op.PATCH, "nodepatch"), LIMIT_S)
            await cloud.until(lambda: cloud.got(Op.INSERT, "lease") or cloud.got(Op.UPDATE, "lease"), LIMIT_S)
            task.cancel()
        registered = cloud.got(Op.INSERT, "node")[0]
        assert (registered.route.source, registered.route.group) == (Source.EDGED, Group.META)
        assert registered.route.resource == f"null/node/{NODE}"
        # a patch is a string that holds the patch
        patch = json.loads(cloud.got(Op.PATCH, "nodepatch")[0].decode(str))
        assert patch["status"]["conditions"][0]["type"] == "Ready"
        assert cloud.got(Op.QUERY, "lease")[0].route.resource == f"kube-node-lease/lease/{NODE}"

    play(tmp_path, authority, story)


def test_a_pod_lives_and_goes(tmp_path: Path, authority: Authority) -> None:
    pushes = [
        f
        for f in frames("down")
        if f["route"].get("resource", "").startswith("vectors/pod/") and not f["header"].get("parent_msg_id")
    ]
    pod = pushes[0]
    name, uid = pod["content"]["metadata"]["name"], pod["content"]["metadata"]["uid"]

    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        assert cloud.connection is not None
        # as Go sends it: a newline at the end, and in pieces of 4 KiB
        text = json.dumps(pod) + "\n"
        await cloud.connection.send([text[at : at + 4096] for at in range(0, len(text), 4096)])
        await cloud.until(lambda: pod["header"]["msg_id"] in cloud.acked, LIMIT_S)
        assert await meta.get("pod", "vectors", name) is not None
        await meta.pod_status("vectors", name, uid, b'{"phase":"Running"}')
        await cloud.until(lambda: cloud.got(Op.PATCH, "podpatch"), LIMIT_S)
        told = json.loads(cloud.got(Op.PATCH, "podpatch")[0].decode(str))
        assert told["status"]["phase"] == "Running"
        await settled(meta)
        await meta.pod_gone("vectors", name, uid)
        await cloud.until(lambda: cloud.got(Op.DELETE, "pod"), LIMIT_S)
        asked = cloud.got(Op.DELETE, "pod")[0].decode(dict[str, Any])
        assert asked == {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await settled(meta)
        gone = new(
            source="edgecontroller",
            group="resource",
            operation=Op.DELETE,
            resource=f"vectors/pod/{name}",
            content={"metadata": {"name": name, "namespace": "vectors", "uid": uid}},
        )
        await cloud.send(gone)
        await cloud.until(lambda: gone.id in cloud.acked, LIMIT_S)
        assert await meta.get("pod", "vectors", name) is None

    play(tmp_path, authority, story)


async def settled(meta: MetaManager) -> None:
    """Every report was answered."""
    while len(meta.outbox):
        await asyncio.sleep(0.01)


def test_what_a_pod_refers_to_is_asked_for_stored_and_acknowledged(
    tmp_path: Path, authority: Authority
) -> None:
    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        for kind, name in (("configmap", "kube-root-ca.crt"), ("secret", "s1")):
            found = await meta.fetch(kind, "vectors", name)
            assert found is not None
            assert await meta.fetch(kind, "vectors", name) == found
            assert len(cloud.got(Op.QUERY, kind)) == 1
        token = json.loads(await meta.token("vectors", "default", msgspec.json.encode(TOKEN)))
        assert token["status"]["token"]
        # a stock cloud sends an answer of these until it is acknowledged
        await cloud.until(lambda: len(cloud.thanked & cloud.acked) >= 3, LIMIT_S)

    play(tmp_path, authority, story)


def test_what_is_not_there_is_not_stored_as_if_it_were(tmp_path: Path, authority: Authority) -> None:
    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        status = {"metadata": {}, "status": "Failure", "message": "no", "reason": "NotFound", "code": 404}
        cloud.answers["query configmap"] = lambda message: {"ErrStatus": status}
        assert await meta.fetch("configmap", "vectors", "none") is None
        assert await meta.get("configmap", "vectors", "none") is None

    play(tmp_path, authority, story)


@pytest.mark.parametrize(
    "content",
    [{"Object": None, "Err": None}, {"Object": {"metadata": {"name": "p"}}, "Err": {}}],
    ids=["neither object nor error", "an empty error"],
)
def test_odd_answers_are_successes_and_end_nothing(
    tmp_path: Path, authority: Authority, content: Any
) -> None:
    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        cloud.answers["patch podpatch"] = lambda message: content
        await meta.pod_status("vectors", "p", "u-1", b'{"phase":"Running"}')
        await settled(meta)
        assert meta.online

    play(tmp_path, authority, story)


def test_an_answer_that_nobody_waits_for_and_an_error_leave_the_link_alone(
    tmp_path: Path, authority: Authority
) -> None:
    async def story(cloud: StockCloud, meta: MetaManager) -> None:
        stray = new(
            source="edgecontroller",
            group="resource",
            operation=Op.UPDATE,
            resource="vectors/pod/c",
            content={"metadata": {"name": "c", "namespace": "vectors", "uid": "u", "resourceVersion": "7"}},
            version="7",
            parent="nobody",
        )
        await cloud.send(stray)
        await cloud.send(new(source="edgecontroller", group="nobody", operation="x", resource="", content={}))
        pushed = await cloud.push(Op.INSERT, "vectors/configmap/d", 8)
        await cloud.until(lambda: pushed in cloud.acked, LIMIT_S)
        assert stray.id not in cloud.acked
        refused = await cloud.push(Op.INSERT, "vectors/configmap/e", 9, metadata={"name": "other"})
        await cloud.until(lambda: refused in cloud.failed, LIMIT_S)
        assert not cloud.failed[refused].startswith("{"), "a stock cloud logs this as it is"

    play(tmp_path, authority, story)
