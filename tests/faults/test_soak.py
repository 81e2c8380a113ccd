"""Everything at once, for minutes: what the promises say must hold afterwards.

    SKERRY_SOAK=seconds (600), SKERRY_SOAK_SEED=number (by chance)

The seed and each fault are printed (`-s`, or when it fails); the same seed and time give the same faults at the same times."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

from tests.e2e.skerry import eventually, page
from tests.faults import soak
from tests.faults.skew import Skew
from tests.faults.stage import BACK_S, Stage

SOAK_S = float(os.environ.get("SKERRY_SOAK", "600"))

# What a daemon may weigh after all that; at rest it is a third.
EDGECORE_MIB, CLOUDCORE_MIB = 90.0, 220.0

# A fault of ours, wherever it shows.
BUG = re.compile(r"^Traceback \(most recent call last\)|CRITICAL|was never retrieved|was never awaited", re.M)


def test_soak_gives_the_same_schedule_for_the_same_seed() -> None:
    one = soak.schedule(7, 600)
    assert one == soak.schedule(7, 600)
    assert one != soak.schedule(8, 600)
    assert len(one) > 30
    assert {step.what for step in one} > {"kill", "freeze", "cut"}
    assert all(step.at_s + step.for_s <= 600 for step in one)


def test_soak(stage: Stage, tmp_path: Path) -> None:
    seed = int(os.environ.get("SKERRY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    print(f"SKERRY_SOAK_SEED={seed} SKERRY_SOAK={SOAK_S:g}")
    before = {one[0]: one for one in stage.containers()}
    restarts = stage.restarts()
    sizes = {part: stage.log_size(part) for part in soak.SKEWED}
    skew = Skew(stage, tmp_path)
    try:
        eventually(stage.is_linked, "the link", 60)
        faults, changes, wrong = soak.play(stage, skew, seed, SOAK_S)
        print(f"{changes.done} changes, of which {changes.failed} failed")
        stage.line.good()
        for part in soak.DAEMONS:
            skew.start(part)
        # P3: edge, API and runtime agree
        eventually(stage.api_is_ready, "the API", 60)
        eventually(stage.is_linked, "the link", BACK_S)
        changes.set_page("Hello from the edge.\n")
        changes.set_target(21.5)
        stage.drop_pods("churn")
        eventually(stage.is_agreed, "agreement", 2 * BACK_S)
        eventually(lambda: len(stage.containers()) == len(before), "the churn to be gone", BACK_S)
        check_devices_and_reports(stage, changes)
        check_pods(stage, faults, before, restarts)
        check_nothing_is_left(stage)
        for part, most in (("edgecore", EDGECORE_MIB), ("cloudcore", CLOUDCORE_MIB)):
            weighs = soak.pss_mib(stage.pid(part))
            print(f"{part}: {weighs:.0f} MiB")
            assert weighs <= most, f"{part} weighs {weighs:.0f} MiB"
        # P9: never a crash
        for part, size in sizes.items():
            told = stage.log_since(part, size)
            for match in BUG.finditer(told):
                wrong.append(f"{part}: {told[max(0, match.start() - 500) : match.start() + 2500]}")
        assert not wrong, "\n".join(wrong)
    finally:
        skew.end()
        stage.drop_pods("churn")


def check_devices_and_reports(stage: Stage, changes: soak.Changes) -> None:
    """P7: what a device is told it does, what it says arrives, and what was dropped is counted."""
    eventually(
        lambda: float(stage.skerry.readings()["target"]) == changes.target, "the device's target", 2 * BACK_S
    )
    eventually(lambda: stage.edge_status()["outbox"]["waiting"] == 0, "an empty outbox", BACK_S)
    print("dropped:", stage.edge_status()["outbox"]["dropped"])
    (web,) = [one for one in stage.skerry.containers() if one.name == "web"]
    eventually(lambda: page(stage.skerry.address(web)) == changes.page, "the newest page", 2 * BACK_S)


def check_pods(
    stage: Stage,
    faults: soak.Faults,
    before: dict[str, tuple[str, str, int]],
    restarts: dict[str, int],
) -> None:
    """P4, P5, P8: what nobody ended ran on, and there is one of each."""
    now = {one[0]: one for one in stage.containers()}
    assert len(now) == len(stage.containers()), "two containers of one pod"
    assert now.keys() == before.keys()
    counts = stage.restarts()
    for uid, one in before.items():
        if uid in faults.gone:
            continue
        assert now[uid] == one, f"pod {uid} was started again"
        assert counts[uid] == restarts[uid], f"pod {uid} is said to have been started again"


def check_nothing_is_left(stage: Stage) -> None:
    """Of pods that are no more: no sandbox, process, mount, folder or address."""
    wanted = {pod["metadata"]["uid"] for pod in stage.all_pods()}
    folder = stage.edge / "pods"

    def left() -> list[str]:
        # what died is kept for its logs, until the next that dies
        listed = stage.skerry.ctr("containers", "ls").splitlines()[1:]
        sandboxes = [line for line in listed if "pause" in line]
        found = [f"{len(sandboxes)} sandboxes of {len(wanted)}"] if len(sandboxes) > 2 * len(wanted) else []
        running = soak.shims(stage.skerry.socket)
        found += [f"{len(running)} shims of {len(wanted)}"] if len(running) != len(wanted) else []
        found += [str(path) for path in soak.mounts_below(folder) if not wanted & set(path.parts)]
        found += [path.name for path in folder.iterdir() if path.name not in wanted]
        leases = list((stage.skerry.home / "containerd" / "addresses").rglob("*.*.*.*"))
        found += [f"{len(leases)} addresses of {len(wanted)}"] if len(leases) > len(wanted) else []
        return found

    began = time.monotonic()
    while told := left():
        assert time.monotonic() - began < 180, f"left behind: {told}"
        time.sleep(1)
