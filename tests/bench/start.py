"""What a start without a link takes, step by step: `python -m tests.bench.start [ROUNDS]`.  Prints; asserts nothing.

Needs root and containerd.  A trial with ten pods loses its cloud, its edgecore (SIGKILL) and everything that ran, and the
store is told that the machine was off, as after a power cut.  Then edgecore is started, and in turn with that the same ten pods
by the same calls to the runtime, made directly from a process that runs already; what else this machine does falls on both
alike.  When the runtime was called is read from its own log, so that nobody asks it meanwhile."""

from __future__ import annotations

import asyncio
import compileall
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import yaml

from deploy.cri import remove_everything
from deploy.home import Home
from deploy.trial import Trial
from edgecore.edged.cri import Cri
from edgecore.edged.nodeside import BOOT_ID
from edgecore.edged.runtime import ContainerConfig, SandboxConfig
from edgecore.metamanager.store import Store
from tests.bench.__main__ import cpu_s, pod, show
from tests.e2e.skerry import Skerry, eventually, missing

PODS = 10
AT_ONCE = 4
"""As edged does on two cores."""
ROUNDS = 7
LIMIT_S = 120.0

Steps = dict[str, float]
"""Seconds since exec by what had come then."""

PYTHON = "the interpreter runs"
IMPORTED = "what pods need is imported"
MADE = "the store is open, the parts are made"
ASKED = "first RunPodSandbox"
FIRST = "first container runs"
ALL = f"{PODS} pods run"
CPU = "CPU of edgecore until then"

_LINE = re.compile(r'time="(?P<time>[^"]+)Z" level=info msg="(?P<said>.*)"')
_CALLED = re.compile(r"RunPodSandbox for .*", re.IGNORECASE)
_STARTED = re.compile(r"StartContainer for .* returns successfully")
_UP = re.compile(r"^(\S+ \S+),(\d{3}) .*edgecore runs as node", re.MULTILINE)


def imports() -> Steps:
    """Alone, without a runtime: medians of processes that do no more than that."""
    return {
        PYTHON: alone("pass"),
        IMPORTED: alone("import gc; gc.disable(); import edgecore.cli, edgecore.main"),
        "all of edgecore is imported": alone(
            "import gc; gc.disable(); import edgecore.cli, edgecore.surroundings"
        ),
    }


def alone(code: str) -> float:
    """CPU-seconds of a Python that does this: a median."""
    took = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(took)


class Starts:
    """Of a trial whose node has PODS pods."""

    def __init__(self, skerry: Skerry) -> None:
        self._skerry = skerry
        self._parts = Trial(Home.at(skerry.home))
        self._runtime = skerry.home / "logs" / "containerd.log"
        self._log = skerry.home / "logs" / "edgecore.log"

    def __enter__(self) -> Starts:
        self._parts.stop_part("cloudcore", kill=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._clear()

    def _clear(self) -> None:
        self._parts.stop_part("edgecore", kill=True)
        remove_everything(self._skerry.socket)

    def edgecore(self) -> Steps:
        self._clear()
        asyncio.run(machine_was_off(self._skerry.home / "edge" / "edgecore.db"))
        said, logged = self._runtime.stat().st_size, self._log.stat().st_size
        began = time.time()
        self._parts.start_part("edgecore")
        seen: list[float] = []
        while len(seen) < PODS:
            assert time.time() - began < LIMIT_S, f"{len(seen)} of {PODS} pods run"
            time.sleep(0.02)
            seen = times(since(self._runtime, said), _STARTED)
        pid = self._parts.daemons["edgecore"].pid()
        cpu = cpu_s(pid) if pid is not None else 0.0
        up = _UP.search(since(self._log, logged))
        assert up is not None, "edgecore did not say that it runs"
        # the log says it in local time
        made = datetime.fromisoformat(f"{up[1]}.{up[2]}").astimezone().timestamp()
        called = times(since(self._runtime, said), _CALLED)
        steps = {MADE: made, ASKED: min(called), FIRST: min(seen), ALL: sorted(seen)[PODS - 1]}
        return {**{what: at - began for what, at in steps.items()}, CPU: cpu}

    def direct(self) -> float:
        self._clear()
        with tempfile.TemporaryDirectory(prefix="skb") as folder:
            return asyncio.run(directly(self._skerry.socket, Path(folder)))


async def machine_was_off(database: Path) -> None:
    store = Store.open(database)
    try:
        await store.write(lambda tx: tx.set_state(f"edged/{BOOT_ID}", b"the boot before"))
    finally:
        store.close()


async def directly(socket: Path, folder: Path) -> float:
    """Seconds for the same pods by three calls each, AT_ONCE at a time."""
    cri, slots = Cri(str(socket)), asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        labels = {"io.kubernetes.pod.uid": name}
        box = SandboxConfig(
            name=name, namespace="bench", uid=name, attempt=0, log_directory=str(folder), labels=labels
        )
        container = ContainerConfig(
            name="c",
            attempt=0,
            image="skerry.local/busybox:1",
            command=("/bin/sleep", "100000"),
            log_path="c.log",
            labels=labels,
        )
        async with slots:
            sandbox = await cri.run_sandbox(box)
            await cri.start_container(await cri.create_container(sandbox, container, box))

    try:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(PODS):
                group.create_task(one(f"bench-{number}"))
        return time.monotonic() - began
    finally:
        cri.close()


def since(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def times(text: str, said: re.Pattern[str]) -> list[float]:
    """When the runtime logged that, in Unix seconds."""
    return [
        datetime.fromisoformat(f"{found['time'][:26]}+00:00").timestamp()
        for line in text.splitlines()
        if (found := _LINE.match(line)) and said.match(found["said"])
    ]


def measure(skerry: Skerry, rounds: int = ROUNDS) -> None:
    """Leaves the trial without cloudcore, edgecore and pods."""
    # as an installed package has it, whatever PYTHONDONTWRITEBYTECODE says here
    for package in ("beehive", "devicetwin", "edgecore"):
        compileall.compile_dir(package, quiet=1)
    for what, seconds in imports().items():
        show(f"CPU until {what}", seconds, "s")
    with Starts(skerry) as starts:
        ours: list[Steps] = []
        plain: list[float] = []
        for _ in range(rounds):
            ours.append(starts.edgecore())
            plain.append(starts.direct())

    def typical(of: Callable[[list[float]], float], what: str) -> float:
        return of([steps[what] for steps in ours])

    for what in (MADE, ASKED, FIRST, ALL):
        show(f"offline start until {what}", typical(statistics.median, what), "s")
    show(f"... {CPU}", typical(statistics.median, CPU), "s")
    show(f"{PODS} pods made directly, {AT_ONCE} at a time", statistics.median(plain), "s")
    pairs = [steps[ALL] / seconds for steps, seconds in zip(ours, plain, strict=True)]
    show(f"offline start as a multiple, median of {rounds}", statistics.median(pairs), "x")
    show("... best of each", typical(min, ALL) / min(plain), "x")


def prepare(skerry: Skerry) -> None:
    """Ten pods that say nothing, known to edge and cloud alike."""
    skerry.kubectl("scale", "deployment/hello", "--replicas=0")
    items = [pod(f"start-{number}", skerry.node_name) for number in range(PODS)]
    skerry.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(items))

    def all_run() -> bool:
        listed = skerry.pods("bench=yes")
        return len(listed) == PODS and all(one["status"].get("phase") == "Running" for one in listed)

    eventually(all_run, f"{PODS} pods", 120)
    eventually(lambda: not skerry.pods(), "the sample's pod to go", 60)


def main(arguments: list[str]) -> int:
    if reason := missing():
        print(f"cannot measure here: {reason}", file=sys.stderr)
        return 1
    skerry = Skerry()
    try:
        skerry.up()
        prepare(skerry)
        measure(skerry, int(arguments[0]) if arguments else ROUNDS)
    finally:
        skerry.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
