"""Registration, status and lease towards both kinds of hub."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from beehive.message import Message, Op
from edgecore.edgehub.certificate import Files
from edgecore.nodestatus import NodeStatus
from tests.fakes.hub import Authority
from tests.integration.edgecore.test_link import pair


class Machine:
    """edged's facts."""

    def __init__(self) -> None:
        self.ready = "True"
        self.drivers: list[dict[str, object]] = []

    async def node_status(self) -> bytes:
        return json.dumps({"conditions": [{"type": "Ready", "status": self.ready}]}).encode()

    def storage_drivers(self) -> list[dict[str, object]]:
        return self.drivers

    async def node_object(self) -> bytes:
        labels = {"node-role.kubernetes.io/edge": ""}
        return json.dumps({"metadata": {"name": "edge-1", "labels": labels}, "status": {}}).encode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    return authority.joined(tmp_path / "pki", "edge-1")


def exists(message: Message) -> dict[str, Any]:
    return {
        "Object": None,
        "Err": {
            "ErrStatus": {"status": "Failure", "message": "is there", "reason": "AlreadyExists", "code": 409}
        },
    }


@pytest.mark.parametrize("ours", [True, False])
def test_a_node_registers_and_tells_its_status(
    tmp_path: Path, authority: Authority, files: Files, ours: bool
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=ours) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["query lease"] = lambda m: {
                "ErrStatus": {"status": "Failure", "message": "", "reason": "NotFound", "code": 404}
            }
            hub.answers["insert lease"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            task = group.create_task(NodeStatus(edge.meta, Machine(), report_s=300).run())
            await hub.until(lambda: hub.got(Op.INSERT, "node") and hub.got(Op.PATCH, "nodepatch"))
            if not ours:
                await hub.until(lambda: hub.got(Op.INSERT, "lease"))
                lease = hub.got(Op.INSERT, "lease")[0].decode(dict)
                assert lease["spec"]["leaseDurationSeconds"] == 40
            else:
                assert hub.got(Op.QUERY, "lease") == []
            patch = json.loads(hub.got(Op.PATCH, "nodepatch")[0].decode(str))
            assert patch["status"]["conditions"][0]["type"] == "Ready"
            task.cancel()

    asyncio.run(story())


def test_a_node_that_exists_is_gone_on_with_and_its_deletion_registers_again(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = exists
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            pushed = await hub.push("update", "null/node/edge-1", 5, uid="n1")
            await hub.until(lambda: pushed in hub.acked)
            task = group.create_task(NodeStatus(edge.meta, Machine(), report_s=300).run())
            # first the label that the existing Node lacks, then the status
            await hub.until(lambda: len(hub.got(Op.PATCH, "nodepatch")) == 2)
            first = json.loads(hub.got(Op.PATCH, "nodepatch")[0].decode(str))
            assert first == {"metadata": {"labels": {"node-role.kubernetes.io/edge": ""}}}
            await hub.push("delete", "null/node/edge-1", 6, uid="n1")
            await hub.until(lambda: len(hub.got(Op.INSERT, "node")) == 2)
            task.cancel()

    asyncio.run(story())


def test_what_the_node_says_of_the_machine_comes_back(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    class Labelled(Machine):
        async def node_object(self) -> bytes:
            return b'{"metadata":{"name":"edge-1","labels":{"kubernetes.io/os":"linux"}},"status":{}}'

    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            status = NodeStatus(edge.meta, Labelled(), report_s=300)
            task = group.create_task(status.run())
            await hub.until(lambda: len(hub.got(Op.PATCH, "nodepatch")) == 1)
            pushed = await hub.push("update", "null/node/edge-1", 5, uid="n1")
            await hub.until(lambda: pushed in hub.acked)
            status.look()
            await hub.until(lambda: len(hub.got(Op.PATCH, "nodepatch")) == 2)
            patch = json.loads(hub.got(Op.PATCH, "nodepatch")[1].decode(str))
            assert patch == {"metadata": {"labels": {"kubernetes.io/os": "linux"}}}
            task.cancel()

    asyncio.run(story())


def test_a_disk_that_cannot_be_read_for_a_moment_does_not_end_the_daemon(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    class Failing(Machine):
        tries = 0

        async def node_object(self) -> bytes:
            self.tries += 1
            if self.tries == 1:
                raise OSError(5, "Input/output error")
            return await super().node_object()

    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            task = group.create_task(NodeStatus(edge.meta, Failing(), report_s=300).run())
            await hub.until(lambda: hub.got(Op.INSERT, "node"))
            task.cancel()

    asyncio.run(story())


def test_what_was_dropped_is_said_on_the_node(tmp_path: Path, authority: Authority, files: Files) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            edge.meta.outbox.dropped["event", "full"] += 2
            task = group.create_task(NodeStatus(edge.meta, Machine(), report_s=300).run())
            wanted = {"metadata": {"annotations": {"skerry.dev/dropped": "event/full=2"}}}

            def said() -> bool:
                return wanted in [json.loads(m.decode(str)) for m in hub.got(Op.PATCH, "nodepatch")]

            await hub.until(said)
            task.cancel()

    asyncio.run(story())


def test_a_node_tells_which_storage_drivers_it_has_when_they_change(
    tmp_path: Path, authority: Authority, files: Files
) -> None:
    async def story() -> None:
        async with pair(tmp_path, authority, files, ours=True) as (hub, edge), asyncio.TaskGroup() as group:
            hub.answers["insert node"] = lambda m: {"Object": m.decode(dict), "Err": None}
            hub.answers["patch nodepatch"] = lambda m: {"Object": {}, "Err": None}
            hub.answers["update csinode"] = lambda m: {"Object": {}, "Err": None}
            machine = Machine()
            status = NodeStatus(edge.meta, machine, report_s=300)
            task = group.create_task(status.run())
            await hub.until(lambda: hub.got(Op.PATCH, "nodepatch"))
            assert hub.got(Op.UPDATE, "csinode") == []
            for number, drivers in enumerate(([{"name": "d", "nodeID": "n"}], [])):
                machine.drivers = drivers
                status.storage_changed()
                await hub.until(lambda n=number: len(hub.got(Op.UPDATE, "csinode")) == n + 1)
                told = hub.got(Op.UPDATE, "csinode")[-1].decode(dict)
                assert told == {"metadata": {"name": "edge-1"}, "spec": {"drivers": drivers}}
                # its labels may be others, too
                await hub.until(lambda n=number: len(hub.got(Op.INSERT, "node")) == n + 2)
            task.cancel()

    asyncio.run(story())
