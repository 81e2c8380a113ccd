"""How seldom the disk is counted, and what counts as whose."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgecore.edged import disk, tree
from edgecore.edged.config import EdgedConfig
from edgecore.edged.disk import Counted, Disks, due, usage_of
from tests.unit.edgecore.edged.builders import c, make

CONFIG = EdgedConfig(root_dir=Path("/r"), log_dir=Path("/l"))
GI = 1 << 30


class Clock:
    """Set by hand."""

    at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize(
    ("counted", "now", "free", "left", "wanted"),
    [
        pytest.param(None, 0.0, GI, None, True, id="never counted"),
        pytest.param(Counted(at=0.0, free=GI), 59.0, 0, None, False, id="no limit, and a minute is not over"),
        pytest.param(Counted(at=0.0, free=GI), 60.0, GI, None, True, id="once a minute"),
        pytest.param(Counted(at=0.0, free=GI), 10.0, GI, 100, False, id="nothing was written"),
        pytest.param(Counted(at=0.0, free=GI), 10.0, GI - 50, 100, False, id="too little for its limit"),
        pytest.param(Counted(at=0.0, free=GI), 10.0, GI - 51, 100, True, id="enough for its limit"),
        pytest.param(Counted(at=0.0, free=GI), 4.0, 0, 100, False, id="only just counted"),
        pytest.param(Counted(at=0.0, free=GI), 10.0, GI, -1, False, id="over it, and nothing is new"),
        pytest.param(Counted(at=0.0, free=GI), 10.0, GI - 1, -1, True, id="over it, and something is"),
        pytest.param(Counted(at=0.0, free=GI, took_s=6.0), 119.0, 0, 0, False, id="a slow disk is spared"),
        pytest.param(Counted(at=0.0, free=GI, took_s=6.0), 120.0, 0, 0, True, id="for so long"),
    ],
)
def test_when_a_pod_is_counted(
    counted: Counted | None,
    now: float,
    free: int,
    left: int | None,
    wanted: bool,
) -> None:
    assert due(counted, now=now, free=free, left=left) is wanted


def test_usage_counts_each_thing_where_it_belongs() -> None:
    pod = make(
        c(),
        volumes=[
            {"name": "v", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "h", "hostPath": {"path": "/h"}},
        ],
    )
    sizes = {
        "/r/u/volumes/kubernetes.io~empty-dir/v": 1,
        "/r/u/volumes/kubernetes.io~empty-dir/m": 100,
        "/h": 100,
        "/l/ns_p_u/c": 2,
        "/r/u/etc-hosts": 4,
        "/r/u/containers": 8,
    }
    found = usage_of(
        CONFIG,
        pod,
        sizes,
        {("u", "c"): 16, ("x", "c"): 100},
        {("u", "c"): 32, ("x", "c"): 100},
        {"/r/u/volumes/kubernetes.io~empty-dir/v": 5},
    )
    assert (found.volumes, found.volume_inodes) == ({"v": 1}, {"v": 5})
    assert (found.logs, found.layers) == ({"c": 2}, {"c": 32})
    assert found.node_files == 12
    assert found.memory_bytes == 16
    assert found.disk_bytes == 47


def test_counting_is_repeated_when_it_is_due_and_forgotten_with_the_pod(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walks: list[list[str]] = []

    def usage(paths: list[str]) -> dict[str, int]:
        walks.append(paths)
        return dict.fromkeys(paths, len(walks))

    monkeypatch.setattr(tree, "usage", usage)
    monkeypatch.setattr(tree, "inodes", lambda paths: dict.fromkeys(paths, 1))
    monkeypatch.setattr(disk, "_free", lambda folders: GI)
    clock = Clock()
    disks, pods = Disks(clock), [(CONFIG, make(c()))]

    async def count() -> int:
        await disks.count(pods)
        return disks.sizes("u")["/l/ns_p_u/c"]

    async def story() -> None:
        assert await count() == 1
        assert await count() == 1
        clock.at += 60.0
        assert await count() == 2
        disks.forget_all_but(["other"])
        assert disks.sizes("u") == {}

    asyncio.run(story())
    assert len(walks) == 2


def test_free_counts_a_file_system_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096))
    assert disk._free([tmp_path]) == disk._free([tmp_path, tmp_path / "not" / "there"]) == 40960
