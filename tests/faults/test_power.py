"""A power cut at any moment, and a disk that fails any call: F-S01, F-S02."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecore.metamanager.store import Store
from tests.faults import store_on_disk
from tests.faults.disk import SYNC, WRITE, Call, Disk, Shim, laid_out, read


def run(shim: Shim, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.store_on_disk", *words],
        env=shim.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class Told:
    """What a caller was told is durable, and what may be there as well since it was asked for."""

    def __init__(self) -> None:
        self.acked: dict[int, int] = {}
        self.asked: dict[int, dict[int, bool]] = {}

    def ack(self, line: str) -> None:
        number, version, _ = map(int, line.split())
        self.acked[number] = max(version, self.acked.get(number, 0))

    def ask(self, line: str) -> None:
        number, version, gone = map(int, line.split())
        self.asked.setdefault(number, {})[version] = bool(gone)

    def fits(self, number: int, found: int | None) -> bool:
        """found: the version that the store has, or None."""
        acked, asked = self.acked.get(number, 0), self.asked.get(number, {})
        if found is not None:
            return found >= acked and asked.get(found) is False
        return acked == 0 or any(gone and version >= acked for version, gone in asked.items())


@pytest.mark.parametrize("points", [pytest.param(40, marks=pytest.mark.quick), 500])
def test_f_s01_the_power_is_cut(tmp_path: Path, points: int) -> None:
    shim = Shim(tmp_path)
    run(shim, "cut")
    calls = read(shim.trace)
    acks = str(shim.disk / "acks")
    asked = [line for call in calls if call.path == acks for line in call.data.decode().splitlines()]
    assert len(asked) > 100
    assert sum(call.kind == SYNC for call in calls) > 20
    rng = random.Random(1)
    disk, told, at = Disk(), Told(), 0
    for line in asked:
        told.ask(line)
    for point in sorted(rng.sample(range(1, len(calls) + 1), points)):
        while at < point:
            if calls[at].path == acks:
                told.ack(calls[at].data.decode())
            else:
                disk.apply(calls[at])
            at += 1
        for lazy in (True, False):
            left = disk.after_a_cut(rng, lazy=lazy)
            with laid_out(left, shim.disk, tmp_path / "left") as folder:
                wrong = asyncio.run(_wrong(folder / "edgecore.db", told))
            assert not wrong, f"cut after call {point} of {len(calls)}, {lazy=}: {wrong}"
    assert len(told.acked) > 20


async def _wrong(database: Path, told: Told) -> list[str]:
    store = Store.open(database)
    try:
        if store.set_aside or store.counters.damaged_rows or store.counters.locked:
            return [f"{store.set_aside} set aside, {store.counters}"]
        rows = await store.read(lambda view: view.all_of("pod") + view.all_of("secret"))
        notes = await store.read(lambda view: view.states("token/"))
        waiting = {one.key: one.seq for one in await store.read(lambda view: view.outbox())}
    finally:
        store.close()
    found = {int(row.name[1:]): row.version for row in rows}
    wrong = [
        f"n{number}: {found.get(number)}, acknowledged {told.acked.get(number)}"
        for number in range(store_on_disk.KEYS)
        if not told.fits(number, found.get(number))
    ]
    for number, version in told.acked.items():
        if int(notes.get(f"token/u{number}/x", b"0")) < version:
            wrong.append(f"note {number}: {notes.get(f'token/u{number}/x')!r}, acknowledged {version}")
        if waiting.get(f"pod/{number}", 0) < version:
            wrong.append(f"report {number}: {waiting.get(f'pod/{number}')}, acknowledged {version}")
    return wrong


@pytest.mark.parametrize(
    ("error", "width", "step"),
    [
        pytest.param("EIO", 1, 4, marks=pytest.mark.quick),
        ("EIO", 1, 1),
        ("EIO", 6, 1),
        ("ENOSPC", 1, 1),
        ("ENOSPC", 20, 1),
    ],
)
def test_f_s02_a_call_fails(tmp_path: Path, error: str, width: int, step: int) -> None:
    results: list[dict[str, Any]] = json.loads(run(Shim(tmp_path), "fail", error, str(width), str(step)))
    assert results[0]["failures"] == 0
    assert len(results) > 5
    for one in results:
        assert one["acked"] == one["count"] == store_on_disk.OBJECTS, one
        assert one["wrong"] == [], one
        assert one["left"] == store_on_disk.OBJECTS, f"acknowledged, and lost in a power cut: {one}"
        assert one["damaged"] == 0, one
    # most calls are on the path of an acknowledgement, and their failure was said
    assert sum(one["failures"] > 0 and one["refused"] > 0 for one in results[1:]) > len(results) // 4


def test_f_s01_the_model_of_a_disk_keeps_what_was_synced_and_perhaps_the_rest() -> None:
    disk = Disk()
    for call in (
        Call(WRITE, "/d/a", 0, b"x" * 600),
        Call(SYNC, "/d/a", 0, b""),
        Call(SYNC, "/d", 0, b""),
        Call(WRITE, "/d/a", 0, b"y" * 600),
        Call(WRITE, "/d/b", 0, b"new"),
    ):
        disk.apply(call)
    assert disk.after_a_cut(random.Random(1), lazy=True) == {"/d/a": b"x" * 600}
    seen = [disk.after_a_cut(random.Random(seed), lazy=False) for seed in range(50)]
    sectors = {(one["/d/a"][:1], one["/d/a"][-1:]) for one in seen}
    assert sectors == {(a, b) for a in (b"x", b"y") for b in (b"x", b"y")}
    assert {one.get("/d/b") for one in seen} >= {None, b"new"}
