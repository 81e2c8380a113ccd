"""Which pods run, by what is wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from edgecore.edged import claims, manager
from edgecore.edged.config import EdgedConfig
from edgecore.edged.manager import Edged
from edgecore.edged.runtime import LABEL_POD_UID, SandboxInfo

NOBODY: Any = SimpleNamespace()


class _Running:
    """A worker whose pod runs."""

    def __init__(self) -> None:
        self.machine = SimpleNamespace(absent=False)
        self.ended = False

    def gone(self) -> None:
        self.ended = True
        self.machine.absent = True


def _ended_after_two_readings(tmp_path: Path, *wanted: bytes) -> bool:
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    edged = Edged(config=config, node_name="edge-1", objects=NOBODY, reports=NOBODY, state=NOBODY, cri=NOBODY)
    worker: Any = _Running()
    edged._workers["u-1"] = worker

    async def read_twice() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                await edged._compare(group, [msgspec.Raw(raw) for raw in wanted])

    asyncio.run(read_twice())
    return bool(worker.ended)


def test_a_pod_that_is_missing_twice_ends(tmp_path: Path) -> None:
    assert _ended_after_two_readings(tmp_path)


@pytest.mark.parametrize(
    "wanted",
    [
        b'{"metadata": {"name": "a", "uid": "u-1", "annotations": {"a": 5}}, "spec": {"containers": []}}',
        b'{"metadata": {"name": "a", "uid": "u-1", "deletionGracePeriodSeconds": "3"}}',
        b'{"metadata": {"name": "../a", "uid": "u-1"}}',
        b'{"metadata": {"name": "a", "uid": "u-1"}, "spec": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"metadata": {"name": "a", "uid": 1}}',
        b"{",
    ],
)
def test_a_pod_that_runs_does_not_end_because_what_is_wanted_cannot_be_read(
    wanted: bytes, tmp_path: Path
) -> None:
    assert not _ended_after_two_readings(tmp_path, wanted)


def test_what_can_be_named_protects_only_itself(tmp_path: Path) -> None:
    other = b'{"metadata": {"name": "b", "uid": "u-2", "annotations": {"a": 5}}}'
    assert _ended_after_two_readings(tmp_path, other)


def test_a_pod_whose_worker_meets_a_bug_gets_another_and_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "WORKER_RETRY_S", 0.0)
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    edged = Edged(config=config, node_name="edge-1", objects=NOBODY, reports=NOBODY, state=NOBODY, cri=NOBODY)

    async def fail() -> None:
        raise OverflowError("date value out of range")

    worker: Any = SimpleNamespace(
        pod=SimpleNamespace(uid="u-1", namespace="d", name="a"), run=fail, machine=SimpleNamespace()
    )
    edged._workers["u-1"], edged._raw["u-1"] = worker, b"{}"

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(edged._work(worker))

    asyncio.run(story())
    assert edged.worker("u-1") is None
    assert edged._changed.is_set()
    assert "u-1" not in edged._finished, "it is wanted still"


def test_the_watchdog_sees_looks_that_stand_still_and_none_that_waits(tmp_path: Path) -> None:
    calls = asyncio.Event()

    class Runtime:
        """Answers once, and then no more."""

        answered = 0

        async def list_sandboxes(self) -> list[Any]:
            self.answered += 1
            if self.answered > 1:
                calls.set()
                await asyncio.Event().wait()
            return []

        async def list_containers(self) -> list[Any]:
            return []

    class Objects:
        async def pods(self) -> list[Any]:
            return []

        async def get(self, kind: str, namespace: str, name: str) -> None:
            return None

    runtime: Any = Runtime()
    objects: Any = Objects()
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs", relist_s=0.01)
    edged = Edged(
        config=config, node_name="edge-1", objects=objects, reports=NOBODY, state=NOBODY, cri=runtime
    )
    look, compare = edged.vitals()
    assert (look.pulse(), compare.pulse()) == (None, None)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(edged._relist_for_ever()),
                group.create_task(edged._wanted_for_ever(group)),
            ]
            async with asyncio.timeout(60):
                await calls.wait()
                while compare.pulse() is not None:
                    await asyncio.sleep(0.01)
            # the runtime does not answer; what is wanted waits for news, as it does for most of its life
            assert look.pulse() == 1
            for task in tasks:
                task.cancel()

    asyncio.run(story())


def test_one_look_at_the_runtime_serves_all_pods_where_it_can_be_believed(tmp_path: Path) -> None:
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    edged = Edged(config=config, node_name="edge-1", objects=NOBODY, reports=NOBODY, state=NOBODY, cri=NOBODY)
    box = SandboxInfo(
        id="s",
        name="a",
        namespace="d",
        uid="u-1",
        attempt=0,
        ready=True,
        created_at=0,
        labels={LABEL_POD_UID: "u-1"},
    )
    assert edged._listed_of("u-1") is None, "nobody has looked"
    edged._take_listing([box], [])
    assert edged._listed_of("u-1") == ([box], [])
    # it may have been left out by mistake
    assert edged._listed_of("u-2") is None
    edged._node.rebooted = True
    assert edged._listed_of("u-2") == ([], [])
    edged._runtime_away("it does not answer")
    assert edged._listed_of("u-1") is None


def test_the_start_is_settled_when_each_pod_had_its_turn(tmp_path: Path) -> None:
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    edged = Edged(config=config, node_name="edge-1", objects=NOBODY, reports=NOBODY, state=NOBODY, cri=NOBODY)
    turns = [asyncio.Event(), asyncio.Event()]
    for number, turn in enumerate(turns):
        edged._workers[f"u-{number}"] = cast("Any", SimpleNamespace(settled=turn.wait))

    async def story() -> None:
        settled = asyncio.create_task(edged.settled())
        for step in (edged._compared.set, turns[1].set, turns[0].set):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not settled.done()
            step()
        async with asyncio.timeout(10):
            await settled

    asyncio.run(story())


def test_hardware_may_be_known_later(tmp_path: Path) -> None:
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "logs")
    edged = Edged(
        config=config,
        node_name="edge-1",
        objects=NOBODY,
        reports=NOBODY,
        state=NOBODY,
        cri=NOBODY,
        devices=claims.NotYet(),
    )
    found = claims.HostDevice(path="/dev/ttyUSB0", major=188, minor=0)
    assert edged._find_device("d", "meter") == "it is not known yet whether device d/meter is plugged in"
    later: Any = SimpleNamespace(device=lambda *_: found, plugged_in=dict)
    edged.watch_hardware(later)
    assert edged._find_device("d", "meter") == found
