"""Print what Skerry takes on this machine: `make bench`.  Asserts nothing.

It brings a trial up in a folder of its own, measures, and takes it down.  Memory is PSS (shared pages counted once,
divided among those that share them) and private-dirty, from /proc/PID/smaps_rollup."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.skerry import Skerry, eventually, missing

SETTLE_S = 15.0
IDLE_S = 20.0
PODS_ONE_AT_A_TIME = 10
PODS_AT_ONCE = 20


def main() -> int:
    if reason := missing():
        print(f"cannot measure here: {reason}", file=sys.stderr)
        return 1
    print(
        f"# {os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    )
    skerry = Skerry()
    try:
        began = time.monotonic()
        skerry.up()
        show("skerry up, first time", time.monotonic() - began, "s")
        time.sleep(SETTLE_S)
        measure_idle(skerry)
        measure_pods(skerry)
        began = time.monotonic()
        skerry.up()
        show("skerry up, all there", time.monotonic() - began, "s")
        began = time.monotonic()
        skerry.down()
        show("skerry down", time.monotonic() - began, "s")
        began = time.monotonic()
        skerry.up()
        show("skerry up, after down", time.monotonic() - began, "s")
    finally:
        skerry.close()
    return 0


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:<48} {value:10.2f} {unit}", flush=True)


def measure_idle(skerry: Skerry) -> None:
    pids = {part: pid for part, pid in skerry.pids().items() if pid is not None}
    cpu = {part: cpu_s(pid) for part, pid in pids.items()}
    time.sleep(IDLE_S)
    for part in ("edgecore", "cloudcore", "mapper", "containerd"):
        pid = pids[part]
        memory = rollup(pid)
        show(f"{part} idle, PSS", memory["Pss"] / 1024, "MiB")
        show(f"{part} idle, private-dirty", memory["Private_Dirty"] / 1024, "MiB")
        show(f"{part} idle, RSS", memory["Rss"] / 1024, "MiB")
        show(f"{part} idle, CPU", 100 * (cpu_s(pid) - cpu[part]) / IDLE_S, "% of a core")


def measure_pods(skerry: Skerry) -> None:
    took = []
    for number in range(PODS_ONE_AT_A_TIME):
        with pods(skerry, [f"one-{number}"]) as seconds:
            took.append(seconds)
    show(f"pod create -> Running, one at a time, p50 of {len(took)}", statistics.median(took), "s")
    show(f"pod create -> Running, one at a time, max of {len(took)}", max(took), "s")
    with pods(skerry, [f"many-{number}" for number in range(PODS_AT_ONCE)]) as seconds:
        show(f"{PODS_AT_ONCE} pods at once -> all Running", seconds, "s")


@contextmanager
def pods(skerry: Skerry, names: list[str]) -> Iterator[float]:
    """Create pods, give the seconds until the API shows all of them Running, and delete them."""
    manifest = "\n---\n".join(json.dumps(pod(name, skerry.node_name)) for name in names)
    began = time.monotonic()
    skerry.kubectl("create", "-f", "-", stdin=manifest)

    def all_run() -> bool:
        phases = skerry.kubectl(
            "get", "pods", "-l", "bench=yes", "-o", "jsonpath={.items[*].status.phase}"
        ).stdout.split()
        return phases == ["Running"] * len(names)

    eventually(all_run, f"{len(names)} running pods", 120)
    seconds = time.monotonic() - began
    try:
        yield seconds
    finally:
        skerry.kubectl("delete", "pods", "-l", "bench=yes", "--grace-period=0", "--wait=true")


def pod(name: str, node_name: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "skerry.local/busybox:1",
        "imagePullPolicy": "Never",
        "command": ["/bin/sleep", "1000000"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": "yes"}},
        "spec": {"nodeName": node_name, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def rollup(pid: int) -> dict[str, int]:
    """KiB by kind of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {key: int(value.split()[0]) for key, value in (line.split(":", 1) for line in lines)}


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
