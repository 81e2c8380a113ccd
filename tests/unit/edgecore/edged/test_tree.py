from __future__ import annotations

import ctypes
import os
import stat
import threading
from pathlib import Path

import pytest

from edgecore.edged import tree
from edgecore.edged.tree import File


def files(**contents: str) -> dict[str, File]:
    return {name.replace("__", "/"): File(data=text.encode(), mode=0o644) for name, text in contents.items()}


def shown(target: Path) -> dict[str, str]:
    return {
        str(p.relative_to(target)): p.read_text()
        for p in sorted(target.rglob("*"))
        if p.is_file() and ".." not in str(p.relative_to(target))
    }


def test_a_payload_is_exchanged_as_a_whole(tmp_path: Path) -> None:
    assert tree.write_payload(tmp_path, files(a="1", b="2"), stamp="s1")
    assert {p.name: p.read_text() for p in tmp_path.iterdir() if not p.name.startswith("..")} == {
        "a": "1",
        "b": "2",
    }
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "..data") == "..s1"
    assert not tree.write_payload(tmp_path, files(a="1", b="2"), stamp="s2"), "nothing changed"
    assert os.readlink(tmp_path / "..data") == "..s1"
    assert tree.write_payload(tmp_path, files(a="9", d__e__f="3"), stamp="s3")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["..data", "..s3", "a", "d"]
    assert (tmp_path / "d" / "e" / "f").read_text() == "3"


def test_a_changed_mode_is_a_change(tmp_path: Path) -> None:
    tree.write_payload(tmp_path, {"a": File(data=b"x", mode=0o400)}, stamp="s1")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400
    assert tree.write_payload(tmp_path, {"a": File(data=b"x", mode=0o644)}, stamp="s2")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_an_agent_killed_half_way_leaves_nothing_for_ever(tmp_path: Path) -> None:
    (tmp_path / "..half").mkdir()
    (tmp_path / "..half" / "a").write_text("old")
    (tmp_path / "..data_tmp").symlink_to("..half")
    tree.write_payload(tmp_path, files(a="1"), stamp="s1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["..data", "..s1", "a"]


def test_planted_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x").write_text("precious")
    target = tmp_path / "t"
    target.mkdir()
    (target / "..data").symlink_to(victim)
    (target / "stale").symlink_to(victim)
    tree.write_payload(target, files(a="1"), stamp="s1")
    assert (victim / "x").read_text() == "precious"
    assert not (target / "stale").exists()
    assert os.readlink(target / "..data") == "..s1"


def test_removal_follows_no_link_and_knows_no_depth(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x").write_text("precious")
    pod = tmp_path / "pods" / "uid"
    deep = pod
    fd = os.open(tmp_path, os.O_RDONLY)
    pod.mkdir(parents=True)
    (pod / "link").symlink_to(victim)
    (pod / "file").write_text("x")
    os.close(fd)
    here = os.open(pod, os.O_RDONLY)
    for _ in range(1500):
        # deeper than any path can be written, and than Python recurses
        os.mkdir("d", dir_fd=here)
        os.symlink(victim, "l", dir_fd=here) if here != deep else None
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    tree.remove_tree(tmp_path / "pods", "uid")
    assert not pod.exists()
    assert (victim / "x").read_text() == "precious"
    tree.remove_tree(tmp_path / "pods", "uid")


def test_a_link_in_place_of_the_folder_is_removed_itself(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x").write_text("precious")
    (tmp_path / "pods").mkdir()
    (tmp_path / "pods" / "uid").symlink_to(victim)
    tree.remove_tree(tmp_path / "pods", "uid")
    assert (victim / "x").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
def test_only_names_are_removed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        tree.remove_tree(tmp_path, name)


def test_folders_are_not_made_through_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="a"):
        tree.make_dirs(tmp_path / "root", "a/b")
    with pytest.raises(ValueError, match="leaves"):
        tree.make_dirs(tmp_path / "root", "../b")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert tree.make_dirs(tmp_path / "root", "x/y").is_dir()


def test_reading_is_bounded_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("0123456789")
    assert tree.read_bounded(tmp_path / "f", 4) == b"0123"
    assert tree.read_bounded(tmp_path / "f", 4, tail=True) == b"6789"
    (tmp_path / "l").symlink_to(tmp_path / "f")
    os.mkfifo(tmp_path / "p")
    for name in ("l", "p", "absent"):
        assert tree.read_bounded(tmp_path / name, 4) == b""


def test_writing_follows_no_link_and_keeps_the_inode(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a long text")
    inode = (tmp_path / "f").stat().st_ino
    tree.write_file(tmp_path, "f", File(data=b"short", mode=0o600))
    assert (tmp_path / "f").read_text() == "short"
    assert (tmp_path / "f").stat().st_ino == inode
    (tmp_path / "l").symlink_to(tmp_path / "f")
    with pytest.raises(OSError, match="l"):
        tree.write_file(tmp_path, "l", File(data=b"x", mode=0o600))


def test_sub_paths_that_lead_out_are_refused(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "out").symlink_to("/")
    for path in ("out/etc", "out", "../x"):
        with pytest.raises(OSError, match="leads out"):
            tree.bind_sub_path(volume, path, tmp_path / "t", create=True)
    assert not (tmp_path / "t").exists()


def test_a_sub_path_that_is_exchanged_meanwhile_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2021-25741: a pod exchanges a folder for a link while it is looked at.  What is mounted is what was found."""
    volume = tmp_path / "v"
    (volume / "real" / "deep").mkdir(parents=True)
    (volume / "link").symlink_to("/")
    place, stop = volume / "place", threading.Event()
    found: list[str] = []

    def mount(argv: list[str], fds: tuple[int, ...] = ()) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fds[0]}"))

    def exchange() -> None:
        while not stop.is_set():
            for name in ("real", "link"):
                os.rename(volume / name, place)
                os.rename(place, volume / name)

    monkeypatch.setattr(tree, "_run", mount)
    thread = threading.Thread(target=exchange)
    thread.start()
    refused = 0
    try:
        for _ in range(150):
            for path in ("place", "place/deep", "place/etc"):
                try:
                    tree.bind_sub_path(volume, path, tmp_path / "t", create=False)
                except OSError:
                    refused += 1
    finally:
        stop.set()
        thread.join()
    assert refused
    assert found
    assert [path for path in found if not path.startswith(f"{volume}/")] == []


def test_mounts_are_found_on_a_way_that_leads_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/")
    assert "/proc" in tree.mounts_below(link / "proc")


def test_nothing_behind_a_mount_is_removed_when_the_root_is_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real" / "pods"
    (real / "uid" / "v").mkdir(parents=True)
    (real / "uid" / "v" / "precious").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    line = f"1 2 8:1 / {real}/uid/v rw - ext4 /dev/sda1 rw\n".encode()
    monkeypatch.setattr(Path, "read_bytes", lambda _: line)
    monkeypatch.setattr(tree, "unmount", lambda _: None)
    with pytest.raises(OSError, match="is mounted"):
        tree.remove_tree(tmp_path / "link" / "pods", "uid")
    assert (real / "uid" / "v" / "precious").exists()


def test_a_folder_that_cannot_be_counted_in_time_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a pod with a million files on a slow card would keep the disk from ever being freed."""
    program = tmp_path / "bin" / "du"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nfor p in \"$@\"; do case $p in -*) ;; *slow*) exec sleep 600;; *) printf '4\\t%s\\n' $p;; esac; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    folders = [str(tmp_path / name) for name in ("first", "slow-1", "second", "slow-2", "third")]
    for folder in folders:
        Path(folder).mkdir()
    found = tree.usage(folders, timeout_s=0.5)
    # a loaded machine may not get to all of those that can be counted
    assert set(found) <= {folders[0], folders[2], folders[4]}
    assert set(found.values()) <= {4096}


def test_all_that_can_be_counted_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(f"4\t{tmp_path}/a\n", False), ("", False), (f"8\t{tmp_path}/d\n", True)]
    monkeypatch.setattr(tree, "_du", lambda what, paths, timeout_s: answers.pop(0))
    for name in "abcd":
        (tmp_path / name).mkdir()
    assert tree.usage([str(tmp_path / n) for n in "abcd"]) == {
        f"{tmp_path}/a": 4096,
        f"{tmp_path}/d": 8192,
    }


def test_files_and_folders_are_counted(tmp_path: Path) -> None:
    (tmp_path / "v" / "deep").mkdir(parents=True)
    (tmp_path / "v" / "deep" / "file").write_text("x")
    assert tree.inodes([str(tmp_path / "v"), str(tmp_path / "none")]) == {str(tmp_path / "v"): 3}


@pytest.mark.root
def test_a_group_is_given_all_that_is_in_a_folder(tmp_path: Path) -> None:
    top = tmp_path / "v"
    (top / "deep").mkdir(parents=True, mode=0o700)
    (top / "deep" / "file").write_text("x")
    (top / "deep" / "file").chmod(0o600)
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o600)
    (top / "link").symlink_to(outside)

    def seen() -> list[tuple[int, int]]:
        found = [p.stat() for p in (top, top / "deep", top / "deep" / "file", outside)]
        return [(info.st_gid, stat.S_IMODE(info.st_mode)) for info in found]

    top.chmod(0o755)
    tree.give_to_group(top, 7, deep=False, always=False)
    assert seen() == [(7, 0o2775), (0, 0o700), (0, 0o600), (0, 0o600)]
    # the folder is the group's already
    tree.give_to_group(top, 7, deep=True, always=False)
    assert seen()[1:] == [(0, 0o700), (0, 0o600), (0, 0o600)]
    tree.give_to_group(top, 7, deep=True, always=True)
    assert seen() == [(7, 0o2775), (7, 0o2770), (7, 0o660), (0, 0o600)]
    tree.give_to_group(top, 8, deep=True, always=False)
    assert seen() == [(8, 0o2775), (8, 0o2770), (8, 0o660), (0, 0o600)]


@pytest.mark.root
def test_no_depth_of_folders_keeps_a_group_from_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "v" / "beside" / "it").mkdir(parents=True)
    here = os.open(tmp_path / "v", os.O_RDONLY)
    for _ in range(1500):
        # deeper than Python recurses, and than there are descriptors
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    before = len(os.listdir("/proc/self/fd"))
    tree.give_to_group(tmp_path / "v", 7, deep=True, always=True)
    assert os.fstat(here).st_gid == (tmp_path / "v" / "beside" / "it").stat().st_gid == 7
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(here)
    tree.remove_tree(tmp_path, "v")


@pytest.mark.root
def test_a_folder_that_is_moved_meanwhile_gives_nothing_outside_to_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v" / "a" / "b").mkdir(parents=True)
    (tmp_path / "v" / "a" / "b" / "last").touch()
    (tmp_path / "outside" / "private").mkdir(parents=True)
    chown = os.chown

    def moving(path: str, uid: int, gid: int) -> None:
        if os.readlink(path).endswith("/last"):
            (tmp_path / "v" / "a" / "b").rename(tmp_path / "outside" / "b")
        chown(path, uid, gid)

    monkeypatch.setattr(os, "chown", moving)
    with pytest.raises(OSError, match="moved meanwhile"):
        tree.give_to_group(tmp_path / "v", 7, deep=True, always=True)
    assert (tmp_path / "outside" / "private").stat().st_gid == (tmp_path / "v").stat().st_gid == 0


@pytest.mark.root
def test_what_is_bound_to_a_file_system_that_nobody_serves_any_more_is_bound_anew(tmp_path: Path) -> None:
    (tmp_path / "volume" / "sub").mkdir(parents=True)
    (tmp_path / "volume" / "sub" / "file").touch()
    target = tmp_path / "target"
    target.mkdir()
    served = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={served},rootmode=40000,user_id=0,group_id=0"
    try:
        mounted = ctypes.CDLL(None).mount(b"x", bytes(target), b"fuse", 0, options.encode())
    finally:
        os.close(served)
    assert mounted == 0
    try:
        with pytest.raises(OSError, match="not connected"):
            target.stat()
        tree.bind_sub_path(tmp_path / "volume", "sub", target, create=False, renew=True)
        assert os.listdir(target) == ["file"]
    finally:
        tree.unmount_below(target)
