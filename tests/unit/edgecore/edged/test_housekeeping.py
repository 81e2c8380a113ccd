"""Readings put together for the rules."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecore.edged import disk, evict, tree
from edgecore.edged.config import EdgedConfig
from edgecore.edged.housekeeping import Housekeeper, signals
from edgecore.edged.imagegc import Disk
from edgecore.edged.node import Facts
from edgecore.edged.ports import SystemClock
from tests.unit.edgecore.edged.builders import c, make

CONFIG = EdgedConfig(root_dir=Path("/r"), log_dir=Path("/l"))


def test_signals_take_images_only_when_their_disk_is_known() -> None:
    facts = Facts(memory_bytes=9, memory_available_bytes=8, pid_max=7, pids=9)
    assert signals(facts, None) == evict.Signals(memory_bytes=9, memory_free=8, pids=7, pids_free=0)
    assert signals(facts, Disk(bytes_total=5, bytes_free=4)).image_disk_free == 4


def test_a_machine_without_memory_for_a_child_still_counts_what_pods_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Measuring the disk comes before memory is looked at: what fails there must not keep the hog alive."""

    def no_memory(paths: list[str]) -> dict[str, int]:
        raise OSError(12, "Cannot allocate memory")

    async def list_usage() -> list[Any]:
        return [SimpleNamespace(uid="u", name="c", memory_bytes=7, disk_bytes=5)]

    monkeypatch.setattr(tree, "usage", no_memory)
    keeper: Any = object.__new__(Housekeeper)
    keeper._cri = SimpleNamespace(list_usage=list_usage)
    worker: Any = SimpleNamespace(config=CONFIG, pod=make(c()))
    keeper._house = SimpleNamespace(workers=[worker])
    keeper._disks = disk.Disks(SystemClock())
    found = asyncio.run(keeper._usage([worker], lambda _: 0))
    assert (found["u"].memory_bytes, found["u"].disk_bytes) == (7, 5)
