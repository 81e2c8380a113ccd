"""One pod, when something around it fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from beehive.errors import Unavailable
from edgecore.edged.config import EdgedConfig
from edgecore.edged.ends import Ends
from edgecore.edged.podworker import Life
from edgecore.edged.ports import NoStorage
from edgecore.edged.runtime import ContainerInfo, ContainerStatus, SandboxInfo
from edgecore.edged.status import Outcome
from edgecore.edged.worker import Worker
from tests.unit.edgecore.edged.builders import EXITED, make, ran, raw


class _Runtime:
    """A runtime with one container, as far as ending it goes."""

    def __init__(self, status: ContainerStatus) -> None:
        self.containers = {status.id: status}

    async def list_sandboxes(self, *, uid: str) -> list[SandboxInfo]:
        del uid
        return []

    async def list_containers(self, *, uid: str) -> list[ContainerInfo]:
        del uid
        return [
            ContainerInfo(
                id=c.id, sandbox_id="", name=c.name, attempt=0, state=c.state, created_at=c.created_at
            )
            for c in self.containers.values()
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self.containers[container_id]

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        del timeout_s
        self.containers[container_id] = replace(self.containers[container_id], state=EXITED)

    async def remove_container(self, container_id: str) -> None:
        del self.containers[container_id]


class _FullDisk:
    """A store that takes nothing."""

    async def load(self, key: str) -> bytes | None:
        del key
        return None

    async def save(self, key: str, value: bytes) -> None:
        del key, value
        raise Unavailable("the disk is full")

    async def event(self, event: bytes) -> None:
        del event
        raise Unavailable("the disk is full")

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        del namespace, name, uid, status
        raise Unavailable("the disk is full")


class _Store(_FullDisk):
    """One that may be full, and keeps rows and statuses while it is not."""

    def __init__(self) -> None:
        self.full = False
        self.rows: dict[str, bytes] = {}
        self.statuses: list[dict[str, Any]] = []

    async def load(self, key: str) -> bytes | None:
        return self.rows.get(key)

    async def save(self, key: str, value: bytes) -> None:
        if self.full:
            await super().save(key, value)
        self.rows[key] = value

    async def event(self, event: bytes) -> None:
        if self.full:
            await super().event(event)

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        if self.full:
            await super().pod_status(namespace, name, uid, status)
        self.statuses.append(json.loads(status))


def _shared(tmp_path: Path, runtime: _Runtime, store: _FullDisk) -> Any:
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    ends = Ends(config.ends_file)
    ends.open()
    return SimpleNamespace(
        config=config,
        node_name="edge-1",
        node=SimpleNamespace(ips=("10.0.0.1",)),
        cri=runtime,
        reports=store,
        state=store,
        ends=ends,
        storage=NoStorage(),
        clock=SimpleNamespace(now=lambda: 1000.0, monotonic=lambda: 1000.0),
        rebooted=lambda: False,
    )


def _never(_: object) -> Outcome | None:
    """Whoever asks whether it may start wants to run it."""
    raise AssertionError("a pod that has ended was about to run again")


async def _one_pass(worker: Worker) -> None:
    async with asyncio.TaskGroup() as group:
        await worker._pass(group)


def test_a_full_disk_does_not_keep_a_pod_from_being_ended_to_free_it(tmp_path: Path) -> None:
    pod = make()
    runtime = _Runtime(ran(pod))
    shared = _shared(tmp_path, runtime, _FullDisk())
    held = shared.config.root_dir / pod.uid / "volumes" / "big"
    held.mkdir(parents=True)

    async def end() -> Worker:
        worker = Worker(shared, pod, raw(), admit=_never)
        worker.evict(Outcome(phase="Failed", reason="Evicted", message="disk"), grace_s=1)
        await _one_pass(worker)
        return worker

    worker = asyncio.run(end())
    assert worker.machine.life is Life.TERMINATED
    assert runtime.containers == {}
    assert not held.exists()


def test_a_pod_that_was_evicted_on_a_full_disk_does_not_run_again(tmp_path: Path) -> None:
    pod = make()
    store = _Store()
    runtime = _Runtime(ran(pod))
    evicted = Outcome(phase="Failed", reason="Evicted", message="The node was low on resource: disk")

    async def story() -> None:
        worker = Worker(_shared(tmp_path, runtime, store), pod, raw(), admit=_never)
        store.full = True
        worker.evict(evicted, grace_s=1)
        await _one_pass(worker)
        assert store.rows == {}
        # the agent is started again while the disk is still full, and once more when it is not
        for full in (True, False):
            store.full = full
            shared = _shared(tmp_path, runtime, store)
            again = Worker(shared, pod, raw(), admit=_never)
            assert await again._reporter.remember()
            await _one_pass(again)
            assert again.machine.life is Life.TERMINATED
            assert again.machine.outcome == evicted
        assert store.statuses[-1]["reason"] == "Evicted"
        # from now on the store knows, and the slot is free
        assert shared.ends.uids() == set()
        last = Worker(_shared(tmp_path, runtime, store), pod, raw(), admit=_never)
        assert await last._reporter.remember()
        assert last.machine.outcome == evicted

    asyncio.run(story())


def test_a_pod_that_is_over_is_remembered_although_the_runtime_forgot_it(tmp_path: Path) -> None:
    pod = make(restartPolicy="OnFailure")
    store = _Store()
    runtime = _Runtime(ran(pod, state=EXITED))

    async def story() -> None:
        shared = _shared(tmp_path, runtime, store)
        worker = Worker(shared, pod, raw(), admit=_never)
        worker.admitted = True
        store.full = True
        for _ in range(3):
            await _one_pass(worker)
        assert worker.machine.life is Life.TERMINATED
        # somebody prunes dead containers
        runtime.containers.clear()
        again = Worker(_shared(tmp_path, runtime, store), pod, raw(), admit=_never)
        assert await again._reporter.remember()
        store.full = False
        await _one_pass(again)
        assert store.statuses[-1]["phase"] == "Succeeded"
        # the one that went on says so as well, and with how its container ended
        await _one_pass(worker)
        ended = store.statuses[-1]["containerStatuses"][0]["state"]["terminated"]
        assert ended["exitCode"] == 0

    asyncio.run(story())


def test_a_clock_that_is_set_by_years_makes_no_pod_late(tmp_path: Path) -> None:
    """A board without a clock of its own starts a pod in 1970 and hears the time a minute later."""
    now = {"wall": 60.0, "mono": 60.0}
    shared = _shared(tmp_path, _Runtime(ran(make())), _Store())
    shared.clock = SimpleNamespace(now=lambda: now["wall"], monotonic=lambda: now["mono"])
    worker = Worker(shared, make(activeDeadlineSeconds=600), raw(), admit=_never)
    asyncio.run(worker._reporter.report())
    now.update(wall=1.8e9, mono=120.0)
    left = worker.machine.deadline_in_s(worker._reporter.now_by_start())
    assert left == 540
    now.update(mono=661.0)
    assert (worker.machine.deadline_in_s(worker._reporter.now_by_start()) or 0) < 0


def test_after_a_boot_an_empty_runtime_is_believed_at_once(tmp_path: Path) -> None:
    """Nothing lives from before it; while the machine runs, a second reading has to agree."""
    pod = make()
    store = _Store()

    async def believed(*, rebooted: bool) -> bool:
        shared = _shared(tmp_path, _Runtime(ran(pod)), store)
        before = Worker(shared, pod, raw(), admit=_never)
        await before._reader.read()
        await before._reporter.report()
        empty = _Runtime(ran(pod))
        empty.containers.clear()
        shared = _shared(tmp_path, empty, store)
        shared.rebooted = lambda: rebooted
        worker = Worker(shared, pod, raw(), admit=_never)
        assert await worker._reporter.remember()
        return await worker._reader.read()

    assert asyncio.run(believed(rebooted=True))
    assert not asyncio.run(believed(rebooted=False))


def test_what_was_never_here_is_not_read_before_its_first_sandbox(tmp_path: Path) -> None:
    class Counted(_Runtime):
        lists = 0

        async def list_sandboxes(self, *, uid: str) -> list[SandboxInfo]:
            self.lists += 1
            return await super().list_sandboxes(uid=uid)

    pod = make()

    def stop(_: object) -> None:
        raise Unavailable("far enough")

    async def lists(*, unseen: bool, row: bool) -> int:
        runtime, store = Counted(ran(pod)), _Store()
        shared = _shared(tmp_path, runtime, store)
        if row:
            store.rows["pod/u"] = b"{}"
        worker = Worker(shared, pod, raw(), admit=stop, unseen=unseen)
        assert await worker._reporter.remember()
        await _one_pass(worker)
        return runtime.lists

    assert asyncio.run(lists(unseen=False, row=False)) == 1
    assert asyncio.run(lists(unseen=True, row=False)) == 0
    # an agent before this one may have made something
    assert asyncio.run(lists(unseen=True, row=True)) == 1


def test_what_was_just_listed_is_not_asked_for_again(tmp_path: Path) -> None:
    class Counted(_Runtime):
        lists = 0

        async def list_sandboxes(self, *, uid: str) -> list[SandboxInfo]:
            self.lists += 1
            return await super().list_sandboxes(uid=uid)

    def stop(_: object) -> None:
        raise Unavailable("far enough")

    async def story() -> None:
        runtime = Counted(ran(make()))
        shared = _shared(tmp_path, runtime, _Store())
        worker = Worker(
            shared, make(), raw(), admit=stop, listed=([], await runtime.list_containers(uid="u"))
        )
        await _one_pass(worker)
        assert runtime.lists == 0
        assert [c.id for c in worker.runtime.containers] == list(runtime.containers)
        # that was then
        await _one_pass(worker)
        assert runtime.lists == 1

    asyncio.run(story())


def test_a_list_that_lacks_what_ran_is_asked_for_again_before_it_is_believed(tmp_path: Path) -> None:
    pod, store = make(), _Store()

    async def story() -> None:
        shared = _shared(tmp_path, _Runtime(ran(pod)), store)
        before = Worker(shared, pod, raw())
        await before._reader.read()
        await before._reporter.report()
        shared.rebooted = lambda: False
        worker = Worker(shared, pod, raw(), listed=([], []))
        assert await worker._reporter.remember()
        await _one_pass(worker)
        assert not worker.runtime.containers, "nothing was concluded"
        assert not worker.admitted
        await _one_pass(worker)
        assert [c.name for c in worker.runtime.containers] == ["c"]

    asyncio.run(story())


def test_a_pod_is_settled_after_its_first_pass_whatever_came_of_it(tmp_path: Path) -> None:
    def stop(_: object) -> None:
        raise Unavailable("far enough")

    async def story() -> None:
        shared = _shared(tmp_path, _Runtime(ran(make())), _Store())
        worker = Worker(shared, make(), raw(), admit=stop)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(10):
            await worker.settled()
        assert not running.done()
        running.cancel()

    asyncio.run(story())
