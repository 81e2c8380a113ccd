"""What a disk can hold after the power was cut, made from what a process did to it (`disk.c`).

A file's content is durable as of its last fsync, its name as of the last fsync of its folder.  Of what came after, a cut leaves
nothing (`lazy`), or any part: whole sectors of any writes, and the first few of the changes of names, as a file system with a
journal does.  What was written before an fsync that failed may never get to the disk, though the process reads it back."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WRITE, TRUNCATE, SYNC, UNLINK, RENAME, SYNC_FAILED = range(1, 7)
SECTOR = 512
_HEAD = struct.Struct("<IIIIq")
_CONTROL = struct.Struct("<qqqqq")


@dataclass(frozen=True, slots=True)
class Call:
    kind: int
    path: str
    offset: int
    data: bytes


@dataclass(slots=True, eq=False)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)


class Shim:
    """The library, built, and what it is told: which calls fail."""

    def __init__(self, folder: Path, disk: Path | None = None) -> None:
        """disk: the folder that is watched, if it is there already."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("not installed: cc")
        self.library = folder / "disk.so"
        self.disk, self.trace, self.faults = disk or folder / "disk", folder / "trace", folder / "faults"
        source = Path(__file__).with_name("disk.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self.library), str(source)], check=True
        )
        self.disk.mkdir(exist_ok=True)
        self.faults.write_bytes(_CONTROL.pack(0, 0, 0, 0, 0))

    def slow_down(self, sync_s: float) -> None:
        """How long each sync takes from now on."""
        with self.faults.open("r+b") as file:
            file.seek(_CONTROL.size - 8)
            file.write(struct.pack("<q", int(sync_s * 1000)))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_PRELOAD": str(self.library),
            "SKERRY_TEST_DISK": str(self.disk),
            "SKERRY_TEST_TRACE": str(self.trace),
            "SKERRY_TEST_FAULTS": str(self.faults),
        }


class Faults:
    """In the process whose disk it is: count its calls, and let some of them fail."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)

    def begin(self, first: int = 0, last: int = 0, error: int = 0) -> None:
        """Count from one; calls `first` to `last` fail with `error`."""
        self._map[:] = _CONTROL.pack(0, first, last + 1, error, 0)

    def end(self) -> int:
        """No more failures.  The calls that were counted."""
        count: int = _CONTROL.unpack(self._map)[0]
        self._map[8:] = bytes(_CONTROL.size - 8)
        return count


def read(trace: Path) -> list[Call]:
    raw = trace.read_bytes()
    calls, at = [], 0
    while at < len(raw):
        kind, path, data, _, offset = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        calls.append(Call(kind, os.fsdecode(raw[at : at + path]), offset, raw[at + path : at + path + data]))
        at += path + data
    return calls


class Disk:
    """What has reached the disk after each of some calls, and what has not."""

    def __init__(self, before: dict[str, bytes] | None = None) -> None:
        self._durable_names: dict[str, _File] = {
            path: _File(bytearray(content)) for path, content in (before or {}).items()
        }
        self._names = dict(self._durable_names)
        self._changes: list[tuple[str, _File | None]] = []

    def apply(self, call: Call) -> None:
        match call.kind:
            case 1 | 2:
                file = self._names.get(call.path)
                if file is None:
                    file = self._names[call.path] = _File()
                    self._changes.append((call.path, file))
                file.pending.append(call)
            case 3:
                synced = self._names.get(call.path)
                if synced is not None:
                    for one in synced.pending:
                        _change(synced.durable, one)
                    synced.pending.clear()
                else:
                    self._sync_folder(call.path)
            case 4:
                if self._names.pop(call.path, None) is not None:
                    self._changes.append((call.path, None))
            case 5:
                target, moved = os.fsdecode(call.data), self._names.pop(call.path, None)
                if moved is not None:
                    self._names[target] = moved
                    self._changes += [(target, moved), (call.path, None)]
            case 6:
                lost = self._names.get(call.path)
                if lost is not None:
                    lost.pending.clear()

    def _sync_folder(self, folder: str) -> None:
        left = []
        for path, file in self._changes:
            if os.path.dirname(path) == folder:
                self._set(self._durable_names, path, file)
            else:
                left.append((path, file))
        self._changes = left

    @staticmethod
    def _set(names: dict[str, _File], path: str, file: _File | None) -> None:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file

    def after_a_cut(self, rng: random.Random, *, lazy: bool) -> dict[str, bytes]:
        """Path to content."""
        names = dict(self._durable_names)
        if not lazy:
            for path, file in self._changes[: rng.randint(0, len(self._changes))]:
                self._set(names, path, file)
        found = {}
        for path, file in names.items():
            content = bytearray(file.durable)
            if not lazy:
                share = rng.random()
                for call in file.pending:
                    _change_partly(content, call, rng, share)
            found[path] = bytes(content)
        return found


def _change(content: bytearray, call: Call) -> None:
    if call.kind == TRUNCATE:
        del content[call.offset :]
        content.extend(bytes(max(0, call.offset - len(content))))
        return
    content.extend(bytes(max(0, call.offset - len(content))))
    content[call.offset : call.offset + len(call.data)] = call.data


def _change_partly(content: bytearray, call: Call, rng: random.Random, share: float) -> None:
    if call.kind == TRUNCATE:
        if rng.random() < share:
            _change(content, call)
        return
    end = call.offset + len(call.data)
    at = call.offset
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        if rng.random() < share:
            _change(content, Call(WRITE, call.path, at, call.data[at - call.offset : stop - call.offset]))
        at = stop


@contextlib.contextmanager
def laid_out(files: dict[str, bytes], origin: Path, target: Path) -> Iterator[Path]:
    """The files of a disk that was at `origin`, as `target`."""
    target.mkdir()
    try:
        for path, content in files.items():
            to = target / Path(path).relative_to(origin)
            to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            to.write_bytes(content)
            to.chmod(0o600)
        yield target
    finally:
        shutil.rmtree(target)
