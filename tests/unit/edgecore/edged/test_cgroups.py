from __future__ import annotations

from pathlib import Path

import pytest

from edgecore.edged import cgroups
from tests.unit.edgecore.edged.builders import c, make


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


def limited(name: str, **resources: str) -> dict[str, object]:
    return c(name, resources={"limits": resources})


def test_values_of_pods() -> None:
    assert cgroups.pod_values(make(c()), pids=100) == cgroups.Values(
        shares=2, quota_us=-1, memory_bytes=-1, pids=100
    )
    both = make(limited("a", cpu="500m", memory="64Mi"), limited("b", cpu="1", memory="64Mi"))
    assert cgroups.pod_values(both, pids=0) == cgroups.Values(
        shares=1536, quota_us=150_000, memory_bytes=128 * 2**20, pids=-1
    )
    # one without a limit leaves the pod without one
    one = make(limited("a", cpu="500m", memory="64Mi"), c("b"))
    assert cgroups.pod_values(one, pids=-1).memory_bytes == -1


def test_values_of_a_pod_that_is_limited_as_a_whole() -> None:
    amounts = {"cpu": "500m", "memory": "64Mi"}
    pod = make(limited("a", memory="1Mi"), c("b"), resources={"limits": amounts, "requests": amounts})
    assert cgroups.pod_values(pod, pids=-1) == cgroups.Values(
        shares=512, quota_us=50_000, memory_bytes=64 * 2**20, pids=-1
    )
    assert cgroups.class_values([pod])["burstable"].shares == 2


def test_files_of_both_versions() -> None:
    found = cgroups.files(cgroups.Values(shares=1024, quota_us=50_000, memory_bytes=1, pids=-1))
    assert found["cpu.shares"] == "1024"
    assert found["cpu.weight"] == "39"
    assert found["cpu.max"] == "50000 100000"
    assert found["memory.max"] == found["memory.limit_in_bytes"] == "1"
    assert found["pids.max"] == "max"
    assert cgroups.files(cgroups.Values()) == {}


def test_classes_share_what_their_pods_ask_for() -> None:
    burst = make(c("a", resources={"requests": {"cpu": "250m"}}))
    found = cgroups.class_values([burst, burst, make(c())])
    assert found == {"burstable": cgroups.Values(shares=512), "besteffort": cgroups.Values(shares=2)}


def test_a_slice_is_inside_those_it_is_named_after() -> None:
    assert cgroups.path_of("a-b-podx.slice", "systemd") == "a.slice/a-b.slice/a-b-podx.slice"
    assert cgroups.path_of("/a/b", "cgroupfs") == "a/b"


def test_values_are_written_where_there_is_a_controller_for_them(tmp_path: Path) -> None:
    pod = tmp_path / "pids" / "kubepods" / "podx"
    pod.mkdir(parents=True)
    (pod / "pids.max").write_text("max")
    (tmp_path / "freezer").mkdir()
    cgroups.apply("/kubepods/podx", "cgroupfs", cgroups.Values(pids=7, shares=5), tmp_path)
    assert (pod / "pids.max").read_text() == "7ax"
    assert not (pod / "cpu.shares").exists()
    assert not (tmp_path / "freezer" / "kubepods").exists()


def test_left_over_pods_are_found(tmp_path: Path) -> None:
    for uid in ("a", "b"):
        (tmp_path / "pids" / "kubepods" / "besteffort" / f"pod{uid}").mkdir(parents=True)
    left = cgroups.left_over("kubepods", ["a"], tmp_path)
    assert [p.name for p in left] == ["podb"]


@pytest.mark.parametrize(
    ("files", "dirs", "limits"),
    [
        ({"cgroup.controllers": "cpuset cpu io memory pids"}, (), True),
        ({"cgroup.controllers": "cpuset cpu io pids"}, (), False),
        ({}, ("cpu,cpuacct", "memory", "pids"), True),
        ({}, ("cpu,cpuacct", "pids"), False),
        ({}, (), True),
    ],
)
def test_a_kernel_without_its_memory_controller_is_known(
    tmp_path: Path, files: dict[str, str], dirs: tuple[str, ...], limits: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name in dirs:
        (tmp_path / name).mkdir()
    assert cgroups.limits_memory(tmp_path) is limits
    assert cgroups.limits_memory(tmp_path / "none")
