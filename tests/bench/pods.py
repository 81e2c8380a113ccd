"""How fast pods start and what they cost: `python -m tests.bench.pods`.  Prints; asserts nothing.

Needs root, containerd, runc and CNI.  Runs a private containerd; edged runs in this process, on memory instead of a store,
so what is measured is edged and the runtime.  Beside each figure stand the same CRI calls made directly, in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from edgecore.edged.cri import Cri
from edgecore.edged.runtime import ContainerConfig, SandboxConfig
from tests.integration.edged.bench import SERVER, Bench, pod, stage
from tests.integration.edged.machine import IMAGE, Containerd, missing

ONE_AT_A_TIME = 20
AT_ONCE = 20
MANY = 60
STEADY = 30
STEADY_S = 20.0
WARM = 5
ROUNDS = 4
PARALLEL = (4, 8)


async def direct(cri: Cri, log_root: Path, name: str) -> None:
    """A sandbox and a container, with nothing around them."""
    folder = log_root / name
    (folder / "c").mkdir(parents=True, exist_ok=True)
    labels = {"io.kubernetes.pod.uid": name}
    box = SandboxConfig(
        name=name, namespace="bench", uid=name, attempt=0, log_directory=str(folder), labels=labels
    )
    sandbox = await cri.run_sandbox(box)
    container = ContainerConfig(
        name="c", attempt=0, image=IMAGE, command=tuple(SERVER), log_path="c/0.log", labels=labels
    )
    made = await cri.create_container(sandbox, container, box)
    await cri.start_container(made)


async def direct_many(cri: Cri, log_root: Path, prefix: str, count: int, parallel: int) -> float:
    """Seconds until `count` pods run, so many at a time."""
    slots = asyncio.Semaphore(parallel)

    async def one(i: int) -> None:
        async with slots:
            await direct(cri, log_root, f"{prefix}-{i}")

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for i in range(count):
            group.create_task(one(i))
    return time.monotonic() - began


def show(what: str, value: str) -> None:
    print(f"{what:<58}{value:>20}", flush=True)


def quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return (
        f"{statistics.median(ordered):.3f} / {ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.3f} s"
    )


@contextlib.asynccontextmanager
async def fresh(machine: Containerd) -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="skb") as tmp:
        async with stage("containerd", Path(tmp), machine) as b:
            b.config = replace(b.config, relist_s=1.0)
            yield b


async def one_at_a_time(machine: Containerd) -> None:
    async with fresh(machine) as b:
        assert isinstance(b.cri, Cri)
        took = []
        for i in range(ONE_AT_A_TIME):
            began = time.monotonic()
            await direct(b.cri, b.config.log_dir, f"direct-{i}")
            took.append(time.monotonic() - began)
        show("direct CRI, one at a time, p50 / p99", quantiles(took))
    async with fresh(machine) as b, b.edged():
        took = []
        for i in range(ONE_AT_A_TIME):
            began = time.monotonic()
            await b.running(b.want(pod(f"one-{i}")))
            took.append(time.monotonic() - began)
        show("edged, create to Running, one at a time, p50 / p99", quantiles(took))
        victim = pod("one-0")
        began = time.monotonic()
        uid = b.delete(victim)
        await b.until(lambda: uid in b.reports.gone, "gone")
        show("edged, delete of a container that obeys TERM", f"{time.monotonic() - began:.3f} s")


async def at_once(machine: Containerd) -> None:
    """In turns, so that what else this machine does falls on all of them alike."""
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for parallel in PARALLEL:
            async with fresh(machine) as b:
                assert isinstance(b.cri, Cri)
                seconds = await direct_many(b.cri, b.config.log_dir, "direct", AT_ONCE, parallel)
            took.setdefault(f"direct CRI, {AT_ONCE} pods, {parallel} at a time", []).append(seconds)
        took.setdefault(f"edged, {AT_ONCE} pods at once", []).append(await edged_many(machine, AT_ONCE))
    medians = {what: statistics.median(seconds) for what, seconds in took.items()}
    for what, seconds in took.items():
        show(f"{what}, best / median of {ROUNDS}", f"{min(seconds):.2f} / {medians[what]:.2f} s")
    *direct_ones, ours = medians.values()
    show("... median, as a multiple of the best direct one's", f"{ours / min(direct_ones):.2f}x")


async def edged_many(machine: Containerd, count: int) -> float:
    async with fresh(machine) as b, b.edged():
        began = time.monotonic()
        uids = [b.want(pod(f"many-{i}")) for i in range(count)]
        await b.until(lambda: all(b.status(u).get("phase") == "Running" for u in uids), "Running", 120)
        took = time.monotonic() - began
        failed = [e for e in b.reports.events if e["type"] == "Warning"]
        if count == MANY:
            show(f"edged, {count} pods at once", f"{took:.2f} s")
            show("... warnings on the way", str(len(failed)))
        return took


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def pss_kib() -> int:
    """PSS of this process, without what waits to be collected."""
    gc.collect()
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


async def steady(machine: Containerd) -> None:
    async with fresh(machine) as b:
        async with b.edged():
            # what the first pods bring with them is not theirs alone
            warm = [b.want(pod(f"warm-{i}")) for i in range(WARM)]
            await b.until(lambda: all(b.ready(u) for u in warm), "ready", 120)
            await asyncio.sleep(2)
            before = pss_kib()
            uids = [b.want(pod(f"steady-{i}")) for i in range(STEADY)]
            await b.until(lambda: all(b.ready(u) for u in uids), "ready", 120)
            await asyncio.sleep(2)
            show(
                f"PSS of {STEADY} more pods in edged, the bench's own reports included",
                f"{pss_kib() - before} KiB",
            )
            cpu, began = cpu_s(), time.monotonic()
            await asyncio.sleep(STEADY_S)
            share = (cpu_s() - cpu) / (time.monotonic() - began) * 100
            show(f"CPU with {STEADY + WARM} pods, nothing happening", f"{share:.2f} %")
        uids = [*warm, *uids]
        ids = {c.id for u in uids for c in await b.containers(u)}
        began = time.monotonic()
        async with b.edged() as agent:
            while len(agent.workers) < STEADY + WARM or not all(w.runtime.running() for w in agent.workers):
                await asyncio.sleep(0.01)
            show(f"restart of edged: all {STEADY + WARM} adopted after", f"{time.monotonic() - began:.2f} s")
            await asyncio.sleep(1)
            now = {c.id for u in uids for c in await b.containers(u)}
            show("... containers that are others than before", str(len(now - ids)))


async def run(machine: Containerd) -> None:
    # first, while this process has not yet kept memory of other pods
    await steady(machine)
    await one_at_a_time(machine)
    await at_once(machine)
    await edged_many(machine, MANY)


def main() -> int:
    why = missing()
    if why:
        print(f"cannot run: {why}", file=sys.stderr)
        return 1
    home = Path(tempfile.mkdtemp(prefix="skb", dir="/tmp"))
    machine = Containerd(home, 40)
    try:
        machine.start()
        machine.load_images()
        asyncio.run(run(machine))
    finally:
        machine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
