"""What whoever stands in front of the machine may do to a pod by hand: read its logs, restart it, run a program in it.

None of it needs the cloud.  Logs are read from their files and programs are run by the runtime, so they need no daemon either;
a restart is the runtime's stop of a container, after which the daemon starts it again by the pod's own policy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from beehive import resource
from beehive.errors import NotFound, Refused
from edgecore.edged.runtime import ContainerInfo, ContainerState, ExecResult
from edgecore.edgestream.crilog import Options
from edgecore.edgestream.logs import LogFile, read_log

DEFAULT_GRACE_S = 30
"""Kubernetes' terminationGracePeriodSeconds."""


class Runtime(Protocol):
    """The container runtime, as far as this needs it."""

    async def list_containers(self, *, uid: str = "") -> list[ContainerInfo]: ...

    async def stop_container(self, container_id: str, timeout_s: int) -> None: ...

    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRef:
    """One pod.  uid: of the one that is wanted here; empty when it is not in the store any more."""

    namespace: str
    name: str
    uid: str = ""


def find(items: Sequence[Mapping[str, Any]], namespace: str, name: str) -> Mapping[str, Any] | None:
    """The object of that name among those that are held.  namespace: ignored for kinds that have none."""
    for item in items:
        metadata = item.get("metadata") or {}
        if metadata.get("name") == name and metadata.get("namespace", namespace) == namespace:
            return item
    return None


def pick_container(names: Sequence[str], wanted: str, pod: str) -> str:
    """The container that is meant.  Raises: NotFound, Refused (more than one)."""
    if wanted and wanted not in names:
        raise NotFound(f"pod {pod} has no container {wanted[:64]!r}, only {', '.join(sorted(names))}")
    if not wanted and len(names) > 1:
        raise Refused(f"pod {pod} has several containers: choose one with -c: {', '.join(sorted(names))}")
    if not names:
        raise NotFound(f"pod {pod} has no logs here")
    return wanted or names[0]


# logs


def log_file(root: Path, pod: PodRef, container: str, *, previous: bool) -> LogFile:
    """The file of a container's newest run, or of the one before.  Raises: NotFound, Refused."""
    if not (resource.is_name(pod.namespace) and resource.is_name(pod.name)):
        raise NotFound(f"there is no pod {pod.namespace[:64]}/{pod.name[:64]} here")
    folder = _pod_folder(root, pod)
    where = f"{pod.namespace}/{pod.name}"
    name = pick_container(_names(folder, Path.is_dir), container, where)
    runs = sorted(
        int(found.removesuffix(".log"))
        for found in _names(folder / name, Path.is_file)
        if found.removesuffix(".log").isdecimal()
    )
    if len(runs) < 1 + previous:
        what = "has not run before" if previous and runs else "has no logs"
        raise NotFound(f"container {name} of pod {where} {what}")
    return LogFile(str(root), str(folder / name / f"{runs[-1 - previous]}.log"))


def _pod_folder(root: Path, pod: PodRef) -> Path:
    """The folder of this UID, or of the newest pod of this name."""
    prefix = f"{pod.namespace}_{pod.name}_"
    if pod.uid and (root / f"{prefix}{pod.uid}").is_dir():
        return root / f"{prefix}{pod.uid}"
    found = [root / name for name in _names(root, Path.is_dir) if name.startswith(prefix)]
    if not found:
        raise NotFound(f"pod {pod.namespace}/{pod.name} has no logs here")
    return max(found, key=lambda path: path.stat().st_mtime)


def _names(folder: Path, kind: Callable[[Path], bool]) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if not entry.is_symlink() and kind(entry)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refused(f"cannot read {folder}: {error.strerror}") from error


async def print_log(log: LogFile, options: Options, out: int) -> None:
    """Write a log to a file descriptor; with `follow`, until interrupted.  Raises: NotFound, Unavailable."""

    async def for_ever() -> bool:
        return True

    async for text in read_log(log, log.open(), options, for_ever):
        view = memoryview(text)
        while view:
            view = view[await asyncio.to_thread(os.write, out, view) :]


# restart


async def restart(runtime: Runtime, pod: Mapping[str, Any], container: str) -> list[str]:
    """Stop the running containers of a pod, or one of them, within the pod's grace period; their names.

    Raises: Refused (its policy would not start them again), NotFound, CriError."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    where = f"{metadata.get('namespace')}/{metadata.get('name')}"
    policy = spec.get("restartPolicy") or "Always"
    if policy != "Always":
        raise Refused(f"pod {where} has restartPolicy {policy}: what is stopped would not start again")
    grace = spec.get("terminationGracePeriodSeconds")
    grace_s = grace if isinstance(grace, int) and grace >= 0 else DEFAULT_GRACE_S
    wanted = [one.get("name") for one in spec.get("containers") or []]
    if container and container not in wanted:
        raise NotFound(f"pod {where} has no container {container[:64]!r}, only {', '.join(map(str, wanted))}")
    running = [
        one
        for one in await runtime.list_containers(uid=str(metadata.get("uid")))
        if one.state is ContainerState.RUNNING and one.name in wanted and container in ("", one.name)
    ]
    if not running:
        raise NotFound(f"no container of pod {where} runs")
    async with asyncio.TaskGroup() as group:
        for one in running:
            group.create_task(runtime.stop_container(one.id, grace_s), name=f"stop {one.name}")
    return sorted(one.name for one in running)


# exec


async def execute(
    runtime: Runtime, pod: Mapping[str, Any], container: str, argv: Sequence[str], timeout_s: float
) -> ExecResult:
    """Run a program in a running container and wait for it; without a terminal and without input.

    Raises: NotFound, Refused (which container?), CriError (also after `timeout_s`)."""
    return await runtime.exec_sync(await running_container(runtime, pod, container), list(argv), timeout_s)


async def running_container(runtime: Runtime, pod: Mapping[str, Any], container: str) -> str:
    """The id of the container that is meant.  Raises: NotFound, Refused (which container?), CriError."""
    metadata = pod.get("metadata") or {}
    where = f"{metadata.get('namespace')}/{metadata.get('name')}"
    running = {
        one.name: one.id
        for one in await runtime.list_containers(uid=str(metadata.get("uid")))
        if one.state is ContainerState.RUNNING
    }
    if not running:
        raise NotFound(f"no container of pod {where} runs")
    if container and container not in running:
        raise NotFound(
            f"pod {where} has no container {container[:64]!r} that runs, only {', '.join(sorted(running))}"
        )
    declared = [one.get("name") for one in (pod.get("spec") or {}).get("containers") or []]
    if not container and len(declared) > 1:
        raise Refused(f"pod {where} has several containers: choose one with -c: {', '.join(sorted(running))}")
    return running[container or next((one for one in declared if one in running), next(iter(running)))]


_MISSING = ("executable file", "no such file or directory")
_FORBIDDEN = ("permission denied", "exec format error")


def not_started(text: str, program: str) -> tuple[int, str]:
    """The exit code of a program that a runtime could not start, as a shell has it, and what to say; 0: it is another error.

    Source: what runc and crun say; POSIX, 2.8.2 Exit Status for Commands."""
    lower = text.lower()
    if "exec failed" not in lower and "executable file" not in lower:
        return 0, text
    if any(word in lower for word in _FORBIDDEN):
        return 126, f"{program[:256]!r} is there in the container, but cannot be run as a program"
    if any(word in lower for word in _MISSING):
        return 127, f"there is no program {program[:256]!r} in the container"
    return 0, text
