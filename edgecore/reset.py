"""Make this machine no node any more: its pods end, and what the daemon keeps goes, its rules of the firewall, too.  The
configuration and the images stay.

Removed is what the configuration names as the daemon's own: below the data folder, and pods' folders and logs where they are
elsewhere (`rootDirectory`, `podLogsDir`).  Of the runtime only pods that have a folder there: others may use it, too.
The Node object stays in the cloud until somebody deletes it: this machine may not reach it, and has no right to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from beehive.errors import SkerryError
from edgecore.config import EdgeConfig
from edgecore.edged import loglinks, tree
from edgecore.edged.runtime import SandboxInfo
from edgecore.errors import StoreError
from edgecore.metamanager import keyfile, sqlitefile


class Runtime(Protocol):
    """The container runtime, as far as ending pods goes."""

    async def list_sandboxes(self, *, uid: str = "") -> list[SandboxInfo]: ...

    async def stop_sandbox(self, sandbox_id: str) -> None: ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    pods: int
    removed: tuple[Path, ...]


def reset(
    config: EdgeConfig,
    runtime: Callable[[], Runtime] | None,
    *,
    open_firewall: Callable[[], None] = lambda: None,
) -> Done:
    """Pods first, then rules and files, so that a pod that cannot be ended leaves everything as it is.

    runtime: None where no pods run.  open_firewall: takes back what was made for pods.

    Raises: AlreadyRunning (the daemon), CriError, StoreError."""
    lock = sqlitefile.hold(config.database)
    try:
        uids = _uids(config)
        ended = asyncio.run(_end_pods(runtime, uids)) if runtime is not None and uids else 0
        if runtime is not None:
            open_firewall()
        removed = []
        for path in _kept_things(config):
            if path.is_symlink() or path.exists():
                try:
                    tree.remove_tree(path.parent, path.name)
                except OSError as error:
                    raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error
                removed.append(path)
        if config.edged is not None and config.edged.log_links is not None:
            loglinks.sweep(config.edged.log_links, config.edged.log_dir)
    finally:
        os.close(lock)
    return Done(pods=ended, removed=tuple(removed))


def _uids(config: EdgeConfig) -> set[str]:
    """Of the pods that have a folder here."""
    if config.edged is None or not config.edged.root_dir.is_dir():
        return set()
    return {path.name for path in config.edged.root_dir.iterdir() if path.is_dir()}


async def _end_pods(connect: Callable[[], Runtime], uids: set[str]) -> int:
    runtime = connect()
    try:
        return await _end(runtime, uids)
    finally:
        runtime.close()


async def _end(runtime: Runtime, uids: set[str]) -> int:
    ours = [sandbox for sandbox in await runtime.list_sandboxes() if sandbox.uid in uids]
    slots = asyncio.Semaphore(8)

    async def end(sandbox: SandboxInfo) -> None:
        async with slots:
            await runtime.stop_sandbox(sandbox.id)
            await runtime.remove_sandbox(sandbox.id)

    fault: BaseExceptionGroup[SkerryError] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for sandbox in ours:
                group.create_task(end(sandbox), name=f"end {sandbox.name}")
    except* SkerryError as faults:
        fault = faults
    if fault is not None:
        raise StoreError(f"cannot end the pods: {fault.exceptions[0]}") from fault
    return len({sandbox.uid for sandbox in ours})


def _kept_things(config: EdgeConfig) -> Sequence[Path]:
    """What a daemon with this configuration keeps.  Its lock stays: it is held."""
    database = config.database
    found = [
        path
        for path in sorted(database.parent.glob(f"{database.name}*"))
        if path.name != f"{database.name}.lock"
    ]
    found.append(keyfile.default_path(database).parent)
    found += [config.pki, config.socket, config.data_dir / "metaserver.sock"]
    if config.edged is not None:
        found += [config.edged.root_dir, config.edged.log_dir, config.edged.ends_file]
    return found
