"""Paths of the machine that its owner allows: nothing else gets into a pod, whatever is exchanged meanwhile."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged import tree
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.edged.test_faults import on_containerd

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares what is mounted in it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk", str(folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(folder)], check=True)
    yield folder
    for point in tree.mounts_below(tmp_path):
        subprocess.run(["umount", "-l", point], check=True)


def test_what_is_bound_is_what_was_judged(tmp_path: Path, disk: Path) -> None:
    (disk / "data").mkdir()
    (disk / "data" / "file").write_text("ours")
    judged, target = os.path.realpath(disk / "data"), tmp_path / "target"
    # between the judging and the mount
    (disk / "data").rename(disk / "moved")
    (disk / "data").symlink_to("/etc")
    with pytest.raises(OSError):
        tree.bind_path(judged, target)
    with pytest.raises(OSError):
        tree.bind_path(f"{judged}/ssl", target)
    (disk / "data").unlink()
    (disk / "moved").rename(disk / "data")
    assert stat.S_ISDIR(tree.bind_path(judged, target))
    # afterwards
    (disk / "data").rename(disk / "moved")
    (disk / "data").symlink_to("/etc")
    assert (target / "file").read_text() == "ours"
    tree.remove_tree(tmp_path, "target")
    assert (disk / "moved" / "file").read_text() == "ours"


def test_a_path_is_bound_once_and_anew_when_it_is_another(tmp_path: Path, disk: Path) -> None:
    where, target = str(disk / "port"), tmp_path / "target"
    assert stat.S_ISREG(tree.bind_path(where, target, make="file"))
    (disk / "port").write_text("one")
    tree.bind_path(where, target)
    assert len(tree.mounts_below(target)) == 1
    (disk / "port").unlink()
    (disk / "port").write_text("two")
    tree.bind_path(where, target)
    assert target.read_text() == "two"
    assert len(tree.mounts_below(target)) == 1
    (disk / "port").unlink()
    (disk / "port").mkdir()
    assert stat.S_ISDIR(tree.bind_path(where, target))
    with pytest.raises(FileNotFoundError):
        tree.bind_path(str(disk / "no" / "file"), tmp_path / "other", make="file")
    tree.remove_tree(tmp_path, "target")


def test_what_is_mounted_on_the_machine_stays_when_a_pods_bind_of_it_goes(tmp_path: Path, disk: Path) -> None:
    for name in ("before", "after"):
        (disk / name).mkdir()

    def plug(name: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", name, str(disk / name)], check=True)
        (disk / name / "file").write_text(name)

    plug("before")
    tree.bind_path(str(disk), tree.make_dirs(tmp_path, "pod/volume"))
    plug("after")
    # a pod sees both
    assert [(tmp_path / "pod/volume" / n / "file").read_text() for n in ("before", "after")] == [
        "before",
        "after",
    ]
    tree.remove_tree(tmp_path, "pod")
    assert [(disk / n / "file").read_text() for n in ("before", "after")] == ["before", "after"]


def test_a_container_that_starts_again_is_judged_again(tmp_path: Path, containerd: Containerd) -> None:
    data, rules = tmp_path / "data", tmp_path / "policy.json"
    (data / "a").mkdir(parents=True)
    (data / "a" / "file").write_text("a")
    (data / "link").symlink_to(data / "a")
    rules.write_text(json.dumps({"allowHostPaths": [str(data)]}))

    async def story(b: Bench) -> None:
        b.config = replace(b.config, policy_file=rules)
        mounts = [
            {"name": "v", "mountPath": "/v"},
            {"name": "v", "mountPath": "/sub", "subPath": "file"},
            {"name": "new", "mountPath": "/new"},
        ]
        volumes = [
            {"name": "v", "hostPath": {"path": str(data / "link"), "type": "Directory"}},
            {"name": "new", "hostPath": {"path": str(data / "deep" / "er"), "type": "DirectoryOrCreate"}},
        ]
        async with b.edged():
            p = pod("reader", container(volumeMounts=mounts), volumes=volumes)
            uid = b.want(p)
            await b.running(uid)
            assert (await b.exec(uid, "cat", "/v/file", "/sub"))[1] == "aa"
            assert (await b.exec(uid, "touch", "/new/file"))[0] == 0
            assert (data / "deep" / "er" / "file").exists()
            (data / "link").unlink()
            (data / "link").symlink_to("/etc")
            # what it has is what it was given
            assert (await b.exec(uid, "cat", "/v/file"))[1] == "a"
            await b.exec(uid, "kill", "1")
            await b.until(
                lambda: (
                    b.container(uid)["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"
                ),
                "refused",
            )
            assert "policy forbids path /etc" in b.container(uid)["state"]["waiting"]["message"]
            (data / "link").unlink()
            (data / "b").mkdir()
            (data / "b" / "file").write_text("b")
            (data / "link").symlink_to(data / "b")
            b.poke(uid)
            await b.until(lambda: b.ready(uid), "runs again")
            assert (await b.exec(uid, "cat", "/v/file"))[1] == "b"
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert (data / "a" / "file").read_text() == "a"
            assert tree.mounts_below(tmp_path) == []

    on_containerd(tmp_path, containerd, story)
