"""What is wrong with a machine is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import preflight
from deploy.home import Ports


def test_root() -> None:
    assert preflight.check_root(0) is None
    assert "1000" in (preflight.check_root(1000) or "")


def test_programs_are_named_by_their_packages() -> None:
    assert preflight.check_programs(lambda name: f"/usr/bin/{name}") is None
    told = preflight.check_programs(lambda name: None if name in {"ctr", "containerd", "runc"} else "x")
    assert (
        told == "containerd and runc are not installed: run `make up`, or `apt-get install containerd runc`"
    )


def test_cni_plugins_must_all_be_in_one_folder(tmp_path: Path) -> None:
    for name in ("bridge", "host-local", "loopback"):
        (tmp_path / name).touch()
    assert preflight.find_cni_plugins([str(tmp_path)]) is None
    (tmp_path / "portmap").touch()
    assert preflight.find_cni_plugins(["/nonexistent", str(tmp_path)]) == str(tmp_path)
    assert "containernetworking-plugins" in (preflight.check_cni_plugins(None) or "")


V1 = "".join(
    f"cgroup /sys/fs/cgroup/{c} cgroup rw,relatime,{c} 0 0\n" for c in ("cpu", "devices", "memory", "pids")
)


@pytest.mark.parametrize(
    ("filesystems", "mounts", "told"),
    [
        ("nodev cgroup2\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", None),
        ("nodev cgroup\n", V1, None),
        ("nodev cgroup\n", V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n", None),
        ("ext4\n", "", "CONFIG_CGROUPS"),
        ("nodev cgroup2\n", "", "no control groups are mounted"),
        ("nodev cgroup\n", V1.splitlines()[0], "devices, memory and pids"),
    ],
)
def test_control_groups(filesystems: str, mounts: str, told: str | None) -> None:
    answer = preflight.check_cgroups(filesystems, mounts)
    assert answer is None if told is None else told in (answer or "")


def test_a_missing_kernel_feature_is_named() -> None:
    def attempt(command: list[str]) -> str | None:
        assert command[:2] == ["unshare", "--net"]
        return "ip failed: RTNETLINK answers: Not supported" if "bridge" in command else None

    told = preflight.check_networking(attempt) or ""
    assert told.startswith("this kernel cannot make bridges")
    assert "Not supported" in told
    assert preflight.check_networking(lambda command: None) is None


def test_the_snapshotter_falls_back_and_leaves_nothing(tmp_path: Path) -> None:
    assert preflight.choose_snapshotter(tmp_path / "not" / "yet", lambda command: None) == "overlayfs"
    assert preflight.choose_snapshotter(tmp_path, lambda command: "wrong fs type") == "native"
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_says_by_whom() -> None:
    ports = Ports()
    told = preflight.check_ports(
        ports, is_free=lambda port: port != 10000, owner=lambda port: "nginx (pid 7)"
    )
    assert "port 10000" in (told or "")
    assert "nginx (pid 7)" in (told or "")
    assert preflight.check_ports(ports, ["the hub"], is_free=lambda port: port != 10000) is None


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "not a folder" in (preflight.check_folder(tmp_path / "file" / "below") or "")
    assert preflight.check_folder(tmp_path / "new") is None
