from __future__ import annotations

from pathlib import Path

from edgecore.edged import cgroups


def tree(root: Path, *paths: str) -> None:
    for p in paths:
        (root / p).mkdir(parents=True)


def test_empty_ones_are_removed_in_every_hierarchy(tmp_path: Path) -> None:
    tree(tmp_path, "cpu/k/burstable/poda", "memory/k/burstable/poda/c1", "pids")
    cgroups.remove("/k/burstable/poda", "cgroupfs", tmp_path)
    assert not (tmp_path / "cpu/k/burstable/poda").exists()
    assert (tmp_path / "memory/k/burstable/poda/c1").exists()
    cgroups.remove_root("k", tmp_path)
    assert not (tmp_path / "cpu/k").exists()
    assert (tmp_path / "memory/k").exists()


def test_version_two_has_one_hierarchy(tmp_path: Path) -> None:
    tree(tmp_path, "k/poda")
    (tmp_path / "cgroup.controllers").touch()
    assert cgroups.hierarchies(tmp_path) == [tmp_path]
    cgroups.remove("/k/poda", "cgroupfs", tmp_path)
    assert not (tmp_path / "k/poda").exists()


def test_nothing_is_touched_without_a_parent_or_under_systemd(tmp_path: Path) -> None:
    tree(tmp_path, "cpu/x")
    cgroups.remove("", "cgroupfs", tmp_path)
    cgroups.remove("x", "systemd", tmp_path)
    assert (tmp_path / "cpu/x").exists()
    assert cgroups.hierarchies(tmp_path / "absent") == []
