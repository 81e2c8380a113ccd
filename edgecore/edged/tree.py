"""Files below a pod's folder, touched through directory descriptors so that no link a pod planted is followed.

Blocking; call from a thread.  Every path component is opened with O_NOFOLLOW relative to its parent.
Lessons: CVE-2017-1002102 (removal through a link), CVE-2021-25741 (a link exchanged between check and use).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How mountinfo writes blanks, tabs, line ends and backslashes.
_ESCAPE = re.compile(rb"\\([0-7]{3})")
DATA = "..data"
DATA_NEW = "..data_tmp"


class File(msgspec.Struct, frozen=True, kw_only=True):
    data: bytes
    mode: int
    gid: int | None = None
    uid: int | None = None


@contextlib.contextmanager
def opened(path: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory that is no link."""
    fd = os.open(path, DIR_FLAGS, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def give_to_group(folder: Path, gid: int, *, deep: bool, always: bool) -> None:
    """Let a group read and write a folder, deep: and all that is in it.  Links in it are not followed.

    always: also where the folder itself is the group's already; it becomes so last, so that what was cut off is done again.
    Source: kubelet, volume/volume_linux.go (SetVolumeOwnership)."""
    with opened(folder) as top:
        info = os.fstat(top)
        if not always and info.st_gid == gid and info.st_mode & 0o2070 == 0o2070:
            return
        if deep:
            _give_below(top, gid)
        os.fchown(top, -1, gid)
        os.fchmod(top, stat.S_IMODE(info.st_mode) | 0o2770)


def _give_below(top: int, gid: int) -> None:
    """All that is in a folder.  It goes back up by `..`, so that no depth exhausts descriptors or the stack; who finds another
    folder there than it came from was moved by another pod, and does not go on outside."""
    here = os.dup(top)
    try:
        # of each folder on the way down: what it is, and which folders in it are still to be seen
        way = [(os.fstat(here), _give_each(here, gid))]
        while True:
            left = way[-1][1]
            if left:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    deeper = os.open(left.pop(), DIR_FLAGS, dir_fd=here)
                    os.close(here)
                    here = deeper
                    way.append((os.fstat(here), _give_each(here, gid)))
                continue
            way.pop()
            if not way:
                return
            above = os.open("..", DIR_FLAGS, dir_fd=here)
            os.close(here)
            here = above
            if not os.path.samestat(os.fstat(here), way[-1][0]):
                raise OSError("cannot give it to its group: a folder in it was moved meanwhile")
    finally:
        os.close(here)


def _give_each(folder: int, gid: int) -> list[str]:
    """What is in one folder; the names of the folders in it."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            _give(entry.name, gid, folder)
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return found


def _give(name: str, gid: int, folder: int) -> None:
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        # another pod that has the volume removed it meanwhile
        return
    try:
        # by what was found: another pod could exchange the name for a link to a file of the machine
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return
        os.chown(f"/proc/self/fd/{fd}", -1, gid)
        more = 0o2770 if stat.S_ISDIR(mode) else 0o660
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode) | more)
    finally:
        os.close(fd)


def make_dirs(root: Path, relative: str, mode: int = 0o750) -> Path:
    """Make the directories of `relative` below `root` (which is made too, and is trusted); none may be a link."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root, DIR_FLAGS & ~os.O_NOFOLLOW)
    try:
        for part in relative.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                raise ValueError(f"cannot make {relative!r}: it leaves its folder")
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, mode, dir_fd=fd)
            deeper = os.open(part, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = deeper
    finally:
        os.close(fd)
    return root / relative


def write_file(folder: Path, name: str, file: File) -> None:
    """Write one file in a folder in place of what is there, which may be a mount source: the inode stays."""
    with opened(folder) as fd:
        _write(fd, name, file, os.O_TRUNC)


def _write(dir_fd: int, name: str, file: File, extra: int) -> None:
    out = os.open(
        name,
        os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | extra,
        0o600,
        dir_fd=dir_fd,
    )
    try:
        view = memoryview(file.data)
        while view:
            view = view[os.write(out, view) :]
        if file.gid is not None or file.uid is not None:
            os.fchown(out, file.uid if file.uid is not None else -1, file.gid if file.gid is not None else -1)
        os.fchmod(out, file.mode)
    finally:
        os.close(out)


def read_bounded(path: Path, limit: int, *, tail: bool = False) -> bytes:
    """At most `limit` bytes of a regular file that is no link; empty when there is none.  tail: its last bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return b""
        start = max(0, info.st_size - limit) if tail else 0
        return os.pread(fd, limit, start)
    finally:
        os.close(fd)


def write_payload(target: Path, files: Mapping[str, File], *, stamp: str) -> bool:
    """Make `target` show exactly `files` (relative path -> file), all of them at once or none; True if it changed.

    As in a kubelet, the files are in a folder of their own, `..data` links to it and is exchanged by a rename, and what a
    container sees are links through `..data`.  stamp: makes the folder's name unique.
    """
    with opened(target) as fd:
        current = _current(fd)
        if current is not None and _same(fd, current, files):
            _links(fd, files)
            return False
        new = f"..{stamp}"
        os.mkdir(new, 0o755, dir_fd=fd)
        with opened(new, dir_fd=fd) as new_fd:
            os.fchmod(new_fd, 0o755)
            for path, file in files.items():
                _write_deep(new_fd, path, file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(DATA_NEW, dir_fd=fd)
        os.symlink(new, DATA_NEW, dir_fd=fd)
        os.rename(DATA_NEW, DATA, src_dir_fd=fd, dst_dir_fd=fd)
        _links(fd, files)
        # older folders, and one that an agent killed half-way left
        for name in os.listdir(fd):
            if name.startswith("..") and name not in (DATA, new):
                _remove_entry(fd, name)
        return True


def _write_deep(dir_fd: int, path: str, file: File) -> None:
    *folders, name = path.split("/")
    fd = os.dup(dir_fd)
    try:
        for part in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fd)
            deeper = os.open(part, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = deeper
            os.fchmod(fd, 0o755)
        _write(fd, name, file, os.O_EXCL)
    finally:
        os.close(fd)


def _current(fd: int) -> str | None:
    try:
        name = os.readlink(DATA, dir_fd=fd)
    except OSError:
        return None
    return name if "/" not in name and name.startswith("..") else None


def _same(fd: int, current: str, files: Mapping[str, File]) -> bool:
    seen: dict[str, bytes] = {}
    try:
        with opened(current, dir_fd=fd) as data_fd:
            for where, _, names, walk_fd in os.fwalk(".", dir_fd=data_fd, follow_symlinks=False):
                for name in names:
                    relative = os.path.normpath(os.path.join(where, name))
                    if relative not in files or len(seen) > len(files):
                        return False
                    file = files[relative]
                    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=walk_fd)
                    try:
                        info = os.fstat(handle)
                        if info.st_size != len(file.data) or stat.S_IMODE(info.st_mode) != file.mode:
                            return False
                        seen[relative] = os.pread(handle, len(file.data) + 1, 0)
                    finally:
                        os.close(handle)
    except OSError:
        return False
    return seen == {path: file.data for path, file in files.items()}


def _links(fd: int, files: Mapping[str, File]) -> None:
    wanted = {path.split("/")[0] for path in files}
    present = {name for name in os.listdir(fd) if not name.startswith("..")}
    for name in wanted - present:
        os.symlink(f"{DATA}/{name}", name, dir_fd=fd)
    for name in present - wanted:
        _remove_entry(fd, name)


def _remove_entry(dir_fd: int, name: str) -> None:
    """Remove a file, or a folder with everything in it, following no link and opening no more than two levels at a time."""
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    with opened(name, dir_fd=dir_fd) as fd:
        # deeper folders are moved up before they are emptied, so that no depth can exhaust descriptors or the stack
        # (under names that the pod cannot have guessed)
        moved, token = 0, os.urandom(8).hex()
        while True:
            folders = []
            for entry in os.listdir(fd):
                try:
                    os.unlink(entry, dir_fd=fd)
                except (IsADirectoryError, PermissionError):
                    folders.append(entry)
            if not folders:
                break
            for folder in folders:
                with opened(folder, dir_fd=fd) as inner:
                    for entry in os.listdir(inner):
                        try:
                            os.unlink(entry, dir_fd=inner)
                        except (IsADirectoryError, PermissionError):
                            os.rename(entry, f"..{token}-{moved}", src_dir_fd=inner, dst_dir_fd=fd)
                            moved += 1
                os.rmdir(folder, dir_fd=fd)
    os.rmdir(name, dir_fd=dir_fd)


def mounts_below(path: Path) -> list[str]:
    """Mount points at or below `path`, deepest first.

    The kernel names them without links, so the way to `path` is read without links as well; `path` itself is not followed.
    """
    prefix = os.path.join(os.path.realpath(path.parent), path.name)
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = os.fsdecode(_ESCAPE.sub(lambda m: bytes([int(m[1], 8)]), line.split(b" ")[4]))
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return sorted(found, reverse=True)


def _is_mounted(target: Path) -> bool:
    return os.path.join(os.path.realpath(target.parent), target.name) in mounts_below(target)


def remove_tree(root: Path, name: str) -> None:
    """Remove `root/name`, whatever it is, after unmounting what is mounted in it.

    Raises OSError while something cannot be unmounted: removing through a mount would remove what is behind it.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"cannot remove {name!r}: not a name")
    unmount_below(root / name)
    left = mounts_below(root / name)
    if left:
        raise OSError(f"cannot remove {root / name}: {left[0]} is mounted")
    try:
        with opened(root.resolve()) as fd:
            _remove_entry(fd, name)
    except FileNotFoundError:
        return


def usage(paths: list[str], timeout_s: float = 60.0) -> dict[str, int]:
    """Bytes that files and folders take on disk, by path; what is not there, or cannot be counted in time, is left out.

    `du` walks by descriptors, follows no link, leaves out other file systems, and no depth of folders stops it.
    Raises OSError (it cannot be run).
    """
    return {path: size * 1024 for path, size in _counted(["-k"], paths, timeout_s).items()}


def inodes(paths: list[str], timeout_s: float = 60.0) -> dict[str, int]:
    """How many files and folders there are, each path itself included; otherwise as `usage`."""
    return _counted(["--inodes"], paths, timeout_s)


def _counted(what: list[str], paths: list[str], timeout_s: float) -> dict[str, int]:
    found: dict[str, int] = {}
    left = [p for p in paths if os.path.lexists(p)]
    while left:
        text, finished = _du(what, left, timeout_s)
        for line in text.splitlines():
            size, _, path = line.partition("\t")
            if size.isdigit():
                found[path] = int(size)
        if finished:
            break
        # it counts one after the other: the first without a size is what it was at, and must not hide the rest
        at = next((i for i, path in enumerate(left) if path not in found), len(left))
        log.warning("Cannot count in %.0f s what is in %s", timeout_s, left[at] if at < len(left) else "it")
        left = left[at + 1 :]
    return found


def _du(what: list[str], paths: list[str], timeout_s: float) -> tuple[str, bool]:
    """What it says, and whether it came to its end."""
    try:
        # it complains about what a pod removes while it looks: that is no error
        done = subprocess.run(
            ["du", "-sx", *what, "--", *paths], check=False, capture_output=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), False
    return done.stdout.decode(errors="replace"), True


def mount_tmpfs(target: Path, size_bytes: int | None) -> None:
    """Mount a tmpfs unless one is mounted there."""
    if _is_mounted(target):
        return
    options = f"mode=0777,size={size_bytes}" if size_bytes else "mode=0777"
    _run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)])


def bind_sub_path(volume: Path, relative: str, target: Path, *, create: bool, renew: bool = False) -> None:
    """Bind-mount `relative` inside `volume` at `target`, refusing whatever leads out of the volume.

    create: make the folder when it is missing, for whom the volume is for as well.
    renew: what is bound there goes when it is not what the path leads to any more; else it stays.  Raises OSError.
    """
    mounted = _is_mounted(target)
    if mounted and not renew:
        return
    base = os.path.realpath(volume)
    resolved = os.path.realpath(os.path.join(base, relative))
    if resolved != base and not resolved.startswith(base + "/"):
        raise OSError(f"cannot mount subPath {relative[:64]!r}: it leads out of the volume")
    # the resolved path is walked without following links: exchanging a component now makes the walk fail
    fd = os.open(base, DIR_FLAGS)
    open_to = stat.S_IMODE(os.fstat(fd).st_mode)
    try:
        parts = [p for p in resolved[len(base) :].split("/") if p]
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            try:
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(part, 0o750, dir_fd=fd)
                with opened(part, dir_fd=fd) as made:
                    os.fchmod(made, open_to)
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            mode = os.fstat(deeper).st_mode
            if stat.S_ISLNK(mode) or (not last and not stat.S_ISDIR(mode)):
                os.close(deeper)
                raise OSError(f"cannot mount subPath {relative[:64]!r}: {part[:64]!r} changed on the way")
            os.close(fd)
            fd = deeper
        info = os.fstat(fd)
        if mounted:
            if _leads_to(target, info):
                return
            unmount_below(target)
        _place(target, folder=stat.S_ISDIR(info.st_mode))
        _run(["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{fd}", str(target)], fds=(fd,))
    finally:
        os.close(fd)


def bind_path(path: str, target: Path, *, make: str = "") -> int:
    """Bind-mount what `path`, which has no links, is to `target`, with what is mounted below it; its mode (stat).

    The path is walked without following links, and what was found is what is mounted, whatever is exchanged meanwhile.
    What is bound already stays, unless the path leads to something else by now.
    make: "folder" or "file", what is made when nothing is there.  Raises OSError.
    """
    fd = os.open("/", DIR_FLAGS)
    try:
        parts = [p for p in path.split("/") if p]
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            # as for a kubelet: the folders around a file must be there
            deeper = _step(fd, part, make if last or make == "folder" else "")
            os.close(fd)
            fd = deeper
        info = os.fstat(fd)
        if stat.S_ISLNK(info.st_mode):
            raise OSError(f"cannot mount {path}: it changed on the way")
        if _is_mounted(target):
            if _leads_to(target, info):
                return info.st_mode
            unmount_below(target)
        _place(target, folder=stat.S_ISDIR(info.st_mode))
        _run(["mount", "--no-canonicalize", "--rbind", f"/proc/self/fd/{fd}", str(target)], fds=(fd,))
        return info.st_mode
    finally:
        os.close(fd)


def _leads_to(target: Path, info: os.stat_result) -> bool:
    try:
        has = target.stat()
    except OSError:
        # whoever served the file system that is mounted there is gone: it is bound anew to what is there now
        return False
    return (has.st_dev, has.st_ino) == (info.st_dev, info.st_ino)


def _place(target: Path, *, folder: bool) -> None:
    """What a folder or a file can be bound to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        if target.is_file():
            target.unlink()
        target.mkdir(exist_ok=True)
    else:
        if target.is_dir():
            target.rmdir()
        target.touch(exist_ok=True)


def _step(fd: int, part: str, make: str) -> int:
    """A descriptor (O_PATH) of what is called `part` in a folder; a link itself where it is one."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(part, flags, dir_fd=fd)
    except FileNotFoundError:
        if make == "folder":
            os.mkdir(part, 0o755, dir_fd=fd)
        elif make == "file":
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=fd))
        else:
            raise
    return os.open(part, flags, dir_fd=fd)


def unmount_below(path: Path) -> None:
    """Unmount what is mounted at `path` and below it, and nowhere else.

    A bind shares what is mounted below it with where it came from: unless that is undone first, taking it away here takes
    it from the machine as well.
    """
    points = mounts_below(path)
    for point in points:
        if any(other.startswith(point + "/") for other in points):
            _run(["mount", "--make-private", point])
    for point in points:
        unmount(point)


def unmount(point: str) -> None:
    """Unmount one mount point; lazily when it is busy, since its pod is gone."""
    try:
        _run(["umount", point])
    except OSError:
        _run(["umount", "-l", point])


def _run(argv: list[str], fds: tuple[int, ...] = ()) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, pass_fds=fds)
    if done.returncode:
        raise OSError(f"cannot {argv[0]} {argv[-1]}: {done.stderr.strip()[:256]}")
