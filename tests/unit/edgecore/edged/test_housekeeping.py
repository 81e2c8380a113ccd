"""Readings put together for the rules."""

from __future__ import annotations

from pathlib import Path

from edgecore.edged import evict
from edgecore.edged.config import EdgedConfig
from edgecore.edged.housekeeping import signals, usage_of
from edgecore.edged.imagegc import Disk
from edgecore.edged.node import Facts
from tests.unit.edgecore.edged.builders import c, make

CONFIG = EdgedConfig(root_dir=Path("/r"), log_dir=Path("/l"))


def test_signals_take_images_only_when_their_disk_is_known() -> None:
    facts = Facts(memory_bytes=9, memory_available_bytes=8, pid_max=7, pids=9)
    assert signals(facts, None) == evict.Signals(memory_bytes=9, memory_free=8, pids=7, pids_free=0)
    assert signals(facts, Disk(bytes_total=5, bytes_free=4)).image_disk_free == 4


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
    found = usage_of(CONFIG, pod, sizes, {"u": 16, "x": 100}, {("u", "c"): 32, ("x", "c"): 100})
    assert found.volumes == {"v": 1}
    assert found.containers == {"c": 34}
    assert found.node_files == 12
    assert found.memory_bytes == 16
    assert found.disk_bytes == 47
