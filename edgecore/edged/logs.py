"""Keep container logs inside their quota: which file to rename or remove (pure), and doing it (`Logs`, a thin shell).

As in a kubelet, `0.log` becomes `0.log.<time>` and the runtime opens a new `0.log`; the oldest are removed.  Old files are
not packed: that would cost a board seconds of CPU for space that the quota already grants.

Source: kubelet, logs/container_log_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from edgecore.edged import tree
from edgecore.edged.errors import CriError

log = logging.getLogger(__name__)


class LogFile(msgspec.Struct, frozen=True, kw_only=True):
    """The log of one running container.  current: the file that is written to.

    folder: absolute, or below the root of all logs.
    """

    container_id: str
    folder: str
    current: str


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """remove: names, oldest first.  rename_to: what the current file becomes; empty when it stays."""

    remove: tuple[str, ...] = ()
    rename_to: str = ""


def plan_rotation(
    sizes: Mapping[str, int], current: str, *, max_bytes: int, max_files: int, stamp: str
) -> Rotation:
    """What to do in a folder of logs.

    sizes: bytes of every file in it.  max_files: the current one included, at least 2.  The quota is max_bytes * max_files
    in bytes too, so that files that grew beyond their size between two looks are made up for by fewer of them.
    stamp: YYYYmmdd-HHMMSS; no second rotation takes place within the second.
    """
    new = f"{current}.{stamp}"
    rotate = sizes.get(current, 0) > max_bytes and new not in sizes
    files, left = max_files - 1, max_bytes * (max_files - 1)
    newest_first = sorted((n for n in sizes if n.startswith(f"{current}.")), reverse=True)
    if rotate:
        files, left = files - 1, left - sizes[current]
    elif newest_first:
        # the newest of them is kept whatever its size: it is the last that was written
        newest = newest_first.pop(0)
        files, left = files - 1, left - sizes[newest]
    remove = []
    for name in newest_first:
        files, left = files - 1, left - sizes[name]
        if files < 0 or left < 0:
            remove.append(name)
    return Rotation(remove=tuple(reversed(remove)), rename_to=new if rotate else "")


class Reopen(Protocol):
    """The part of the runtime that this file needs."""

    async def reopen_log(self, container_id: str) -> None: ...


class Logs:
    """Rotates the logs below one root.  One round looks at every running container once."""

    def __init__(self, runtime: Reopen, root: Path, *, max_bytes: int, max_files: int) -> None:
        """max_bytes 0: never rotate."""
        self._runtime = runtime
        self._root = root
        self._max_bytes = max_bytes
        self._max_files = max(2, max_files)
        self._complained: set[str] = set()

    async def round(self, files: Iterable[LogFile], stamp: str) -> bool:
        """Rotate what is over its size; True when something was: then it is worth looking again soon."""
        if self._max_bytes <= 0:
            return False
        due = await asyncio.to_thread(self._over, list(files))
        for file in due:
            try:
                await self._rotate(file, stamp)
                self._complained.discard(file.container_id)
            except (OSError, CriError) as err:
                if file.container_id not in self._complained:
                    log.warning("Cannot rotate %s/%s: %s", file.folder, file.current, str(err)[:256])
                self._complained.add(file.container_id)
        return bool(due)

    def _over(self, files: list[LogFile]) -> list[LogFile]:
        found = []
        for file in files:
            try:
                info = os.stat(self._root / file.folder / file.current, follow_symlinks=False)
            except OSError:
                continue
            if info.st_size > self._max_bytes:
                found.append(file)
        return found

    async def _rotate(self, file: LogFile, stamp: str) -> None:
        renamed = await asyncio.to_thread(self._rename, file, stamp)
        if not renamed:
            return
        try:
            await self._runtime.reopen_log(file.container_id)
        except CriError:
            # it goes on writing to the file under its new name: give it back the name under which it is read
            await asyncio.to_thread(self._rename_back, file, renamed)
            raise

    def _rename(self, file: LogFile, stamp: str) -> str:
        with tree.opened(self._root / file.folder) as fd:
            sizes = {name: os.lstat(name, dir_fd=fd).st_size for name in os.listdir(fd)}
            todo = plan_rotation(
                sizes, file.current, max_bytes=self._max_bytes, max_files=self._max_files, stamp=stamp
            )
            for name in todo.remove:
                os.unlink(name, dir_fd=fd)
            if todo.rename_to:
                os.rename(file.current, todo.rename_to, src_dir_fd=fd, dst_dir_fd=fd)
            return todo.rename_to

    def _rename_back(self, file: LogFile, renamed: str) -> None:
        with tree.opened(self._root / file.folder) as fd:
            if file.current not in os.listdir(fd):
                os.rename(renamed, file.current, src_dir_fd=fd, dst_dir_fd=fd)
