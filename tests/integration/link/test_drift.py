"""Two ends that came to differ without a word, and an API that went back: both find out, and agree again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from beehive import session
from beehive.message import Inventory, InventoryEntry, Op, digest
from cloudcore.objects import CONFIGMAP, NODE, POD
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, node_body, pod_body, process, using

LIMIT_S = 60.0
VOLUMES = [{"name": "v", "configMap": {"name": "conf"}}]


def versions(held: dict[str, InventoryEntry]) -> dict[str, int]:
    return {uid: int(entry.version or 0) for uid, entry in held.items()}


def without(held: dict[str, InventoryEntry], path: str) -> dict[str, InventoryEntry]:
    return {uid: entry for uid, entry in held.items() if entry.resource != path}


async def say(link: edge.Edge, what: str) -> None:
    content = Inventory(objects=link.held) if what == Op.INVENTORY else digest(versions(link.held))
    await link.send(session.holding(link.identity.node, what, content))


def test_what_a_node_lost_comes_back_without_a_reconnect(tmp_path: Path) -> None:
    async def go(cloud: Cloud) -> None:
        identity = await cloud.node("drifter")
        await cloud.create(NODE, node_body("drifter"))
        await cloud.create(CONFIGMAP, {"metadata": {"name": "conf"}, "data": {"a": "1"}})
        await cloud.create(POD, pod_body("web", "drifter", volumes=VOLUMES))
        async with edge.connected(cloud.hub, identity) as link:
            await link.until(lambda it: {"default/pod/web", "default/configmap/conf"} <= it.paths(), LIMIT_S)
            link.held = without(link.held, "default/configmap/conf")
            while not link.pushed(Op.INVENTORY, "null/node/drifter"):
                # what is on its way when the hub hears of it is waited for
                await say(link, Op.DIGEST)
                await asyncio.sleep(0.2)
            await say(link, Op.INVENTORY)
            await link.until(lambda it: "default/configmap/conf" in it.paths(), LIMIT_S)
            assert len(link.pushed(Op.INSERT, "default/pod/web")) == 1

    play(tmp_path, go)


def test_a_node_goes_back_with_an_api_whose_disk_was_put_back(tmp_path: Path) -> None:
    database, kept = tmp_path / "cloud" / "objects.db", tmp_path / "kept.db"
    held: dict[str, InventoryEntry] = {}
    identity: edge.Identity | None = None

    async def before(cloud: Cloud) -> None:
        nonlocal identity
        identity = await cloud.node("sleeper")
        await cloud.create(NODE, node_body("sleeper"))
        await cloud.create(CONFIGMAP, {"metadata": {"name": "conf"}, "data": {"a": "old"}})
        await cloud.create(POD, pod_body("web", "sleeper", volumes=VOLUMES))

    async def after(cloud: Cloud) -> None:
        assert identity is not None
        await cloud.create(POD, pod_body("late", "sleeper"))
        for number in range(5):
            await cloud.patch(CONFIGMAP, "conf", {"data": {"a": f"new {number}"}})
        async with edge.connected(cloud.hub, identity) as link:
            await link.until(lambda it: {"default/pod/web", "default/pod/late"} <= it.paths(), LIMIT_S)
            await link.until(lambda it: "default/configmap/conf" in it.paths(), LIMIT_S)
            held.update(link.held)

    async def back(cloud: Cloud) -> None:
        assert identity is not None
        async with edge.connected(cloud.hub, identity, held=held) as link:
            await link.until(lambda it: it.pushed(Op.UPDATE, "default/configmap/conf"), LIMIT_S)
            (pushed,) = link.pushed(Op.UPDATE, "default/configmap/conf")
            assert pushed.is_restored
            assert b'"old"' in bytes(pushed.content)
            # what the API does not know any more goes, and what it has kept stays as it is
            await link.until(lambda it: "default/pod/late" not in it.paths(), LIMIT_S)
            assert "default/pod/web" in link.paths()
            await cloud.patch(CONFIGMAP, "conf", {"data": {"a": "on"}})
            await link.until(lambda it: len(it.pushed(Op.UPDATE, "default/configmap/conf")) == 2, LIMIT_S)
            assert not link.pushed(Op.UPDATE, "default/configmap/conf")[1].is_restored

    play(tmp_path, before)
    shutil.copyfile(database, kept)
    play(tmp_path, after, fresh=False)
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(kept, database)
    play(tmp_path, back, fresh=False)


def play(folder: Path, scene: Callable[[Cloud], Awaitable[None]], *, fresh: bool = True) -> None:
    async def go() -> None:
        async with using(running, clean=fresh) as cloud, asyncio.timeout(LIMIT_S):
            await scene(cloud)

    with process(folder) as running:
        asyncio.run(go())
