"""Which log file and which containers are meant, and what is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from beehive.errors import NotFound, Refused, SkerryError
from edgecore import onsite
from edgecore.edged.runtime import ContainerInfo, ContainerState, ExecResult
from edgecore.edgestream.crilog import Options
from edgecore.onsite import PodRef

LINE = "2026-01-01T00:00:00.{:09d}Z stdout F line {}\n"


def write(root: Path, folder: str, container: str, run: int, lines: int = 1) -> None:
    path = root / folder / container / f"{run}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(LINE.format(n, f"{run}.{n}") for n in range(lines)))


def printed(root: Path, pod: PodRef, container: str = "", *, previous: bool = False, **options: Any) -> str:
    log = onsite.log_file(root, pod, container, previous=previous)
    reader, writer = os.pipe()
    with os.fdopen(reader) as file:
        try:
            asyncio.run(onsite.print_log(log, Options(**options), writer))
        finally:
            os.close(writer)
        return file.read()


def test_the_newest_run_is_printed_and_the_one_before_when_asked(tmp_path: Path) -> None:
    for run in (0, 2, 10):
        write(tmp_path, "d_web_u1", "main", run, lines=3)
    pod = PodRef(namespace="d", name="web", uid="u1")
    assert printed(tmp_path, pod) == "line 10.0\nline 10.1\nline 10.2\n"
    assert printed(tmp_path, pod, previous=True, tail_lines=1) == "line 2.2\n"


def test_a_pod_that_is_not_wanted_any_more_still_has_its_logs(tmp_path: Path) -> None:
    write(tmp_path, "d_web_u1", "main", 0)
    write(tmp_path, "d_web-2_u2", "main", 5)
    assert printed(tmp_path, PodRef(namespace="d", name="web")) == "line 0.0\n"


@pytest.mark.parametrize(
    ("pod", "container", "previous", "words"),
    [
        (PodRef(namespace="d", name="other"), "", False, "no logs here"),
        (PodRef(namespace="d", name="web", uid="u1"), "", False, "choose one with -c: helper, main"),
        (PodRef(namespace="d", name="web", uid="u1"), "x", False, "no container 'x'"),
        (PodRef(namespace="d", name="web", uid="u1"), "main", True, "has not run before"),
        (PodRef(namespace="../d", name="web"), "", False, "no pod"),
        (PodRef(namespace="d", name="../../etc"), "", False, "no pod"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, pod: PodRef, container: str, previous: bool, words: str
) -> None:
    for name in ("main", "helper"):
        write(tmp_path, "d_web_u1", name, 0)
    with pytest.raises(SkerryError, match=words):
        onsite.log_file(tmp_path, pod, container, previous=previous)


def test_links_in_the_folder_of_logs_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(LINE.format(0, "secret"))
    root = tmp_path / "logs"
    (root / "d_web_u1" / "main").mkdir(parents=True)
    (root / "d_web_u1" / "main" / "0.log").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFound):
        onsite.log_file(root, PodRef(namespace="d", name="web", uid="u1"), "", previous=False)


class Runtime:
    def __init__(self) -> None:
        self.stopped: list[tuple[str, int]] = []

    async def list_containers(self, *, uid: str = "") -> list[ContainerInfo]:
        states = {
            "main": ContainerState.RUNNING,
            "helper": ContainerState.RUNNING,
            "ended": ContainerState.EXITED,
        }
        return [
            ContainerInfo(id=f"{uid}-{name}", sandbox_id="s", name=name, attempt=0, state=state, created_at=0)
            for name, state in states.items()
        ]

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        self.stopped.append((container_id, timeout_s))

    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult:
        return ExecResult(exit_code=3, stdout=f"{container_id} {argv} {timeout_s:g}".encode(), stderr=b"")


def pod(**spec: Any) -> dict[str, Any]:
    names = [{"name": name} for name in ("main", "helper", "ended")]
    return {"metadata": {"namespace": "d", "name": "web", "uid": "u1"}, "spec": {"containers": names, **spec}}


def test_restart_stops_what_runs_within_the_pods_grace() -> None:
    runtime = Runtime()
    assert asyncio.run(onsite.restart(runtime, pod(terminationGracePeriodSeconds=7), "")) == [
        "helper",
        "main",
    ]
    assert sorted(runtime.stopped) == [("u1-helper", 7), ("u1-main", 7)]
    runtime = Runtime()
    assert asyncio.run(onsite.restart(runtime, pod(), "main")) == ["main"]
    assert runtime.stopped == [("u1-main", 30)]


def test_restart_is_refused_where_nothing_would_start_again() -> None:
    for policy in ("Never", "OnFailure"):
        with pytest.raises(Refused, match=policy):
            asyncio.run(onsite.restart(Runtime(), pod(restartPolicy=policy), ""))
    with pytest.raises(NotFound, match="no container 'x'"):
        asyncio.run(onsite.restart(Runtime(), pod(), "x"))
    with pytest.raises(NotFound, match="runs"):
        asyncio.run(onsite.restart(Runtime(), pod(), "ended"))


def test_exec_runs_in_the_container_that_is_meant() -> None:
    found = asyncio.run(onsite.execute(Runtime(), pod(), "main", ["ls", "-l"], 5))
    assert (found.exit_code, found.stdout) == (3, b"u1-main ['ls', '-l'] 5")
    with pytest.raises(Refused, match="choose one with -c: helper, main"):
        asyncio.run(onsite.execute(Runtime(), pod(), "", ["ls"], 5))
    with pytest.raises(NotFound, match="no container 'ended' that runs"):
        asyncio.run(onsite.execute(Runtime(), pod(), "ended", ["ls"], 5))
    alone = pod(containers=[{"name": "main"}])
    assert asyncio.run(onsite.execute(Runtime(), alone, "", ["ls"], 5)).stdout.startswith(b"u1-main")


def test_find_takes_the_namespace_into_account_where_there_is_one() -> None:
    items = [{"metadata": {"name": "a", "namespace": "x"}}, {"metadata": {"name": "n"}}]
    assert onsite.find(items, "x", "a") is items[0]
    assert onsite.find(items, "y", "a") is None
    assert onsite.find(items, "default", "n") is items[1]


RUNC = "cannot ExecSync: failed to exec in container: OCI runtime exec failed: exec failed: unable to start container process: "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (RUNC + 'exec: "nosuch": executable file not found in $PATH: unknown', 127),
        (RUNC + 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown', 127),
        (RUNC + 'exec: "/etc": permission denied: unknown', 126),
        (RUNC + "exec /script: exec format error", 126),
        (
            "OCI runtime exec failed: executable file `nosuch` not found in $PATH: No such file or directory",
            127,
        ),
        ("cannot connect to /run/containerd.sock: no such file or directory", 0),
        (RUNC + "out of memory", 0),
    ],
)
def test_a_program_that_could_not_start(text: str, code: int) -> None:
    found, said = onsite.not_started(text, "nosuch")
    assert found == code
    assert said == text if not code else "'nosuch'" in said and "OCI" not in said
