"""`make conformance`: every case on a trial of its own, and a table of what passed by area."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.conformance import images
from tests.conformance.case import Case, Result, play_all
from tests.conformance.table import CASES
from tests.conformance.world import connected
from tests.e2e.skerry import Skerry, missing


def table(results: Sequence[Result]) -> str:
    """Passed and failed by area, then why each failed."""
    lines = [f"{'area':28}{'passed':>8}{'failed':>8}{'not here':>10}"]
    areas = list(dict.fromkeys(result.case.area for result in results))
    for area in [*areas, "all"]:
        count = Counter(result.verdict for result in results if area in ("all", result.case.area))
        lines.append(f"{area:28}{count['passed']:>8}{count['failed']:>8}{count['not here']:>10}")
    for result in results:
        if result.verdict != "passed":
            lines.append(f"\n{result.verdict}: {result.case.area}: {result.case.asks} [{result.case.source}]")
            lines.append(f"  {result.why[:1500]}")
    return "\n".join(lines)


async def run(home: Path, cases: Sequence[Case], at_once: int, verbose: bool) -> list[Result]:
    def said(result: Result) -> None:
        if verbose:
            print(
                f"{result.verdict:9}{result.took_s:6.1f} s  {result.case.area}: {result.case.asks}",
                flush=True,
            )

    async with connected(home) as world:
        return await play_all(world, cases, at_once, said)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "-k", action="append", metavar="TEXT", help="only cases with this in their area or what they ask"
    )
    parser.add_argument("--quick", action="store_true", help="only those that `make test` runs, too")
    parser.add_argument("--home", type=Path, help="a trial that is up already (its SKERRY_HOME)")
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="print the cases, run none")
    parser.add_argument("-v", action="store_true", help="say each case as it ends")
    chosen = parser.parse_args()
    cases = [
        one
        for one in CASES
        if any(text.lower() in f"{one.area}: {one.asks}".lower() for text in chosen.k or [""])
        and (one.quick or not chosen.quick)
    ]
    if chosen.list:
        for one in cases:
            print(f"{one.area}: {one.asks} [{one.source}]")
        print(f"{len(cases)} cases")
        return 0
    if reason := missing():
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 1
    trial = None
    if chosen.home is None:
        trial = Skerry()
        trial.up()
    home = chosen.home or trial.home  # type: ignore[union-attr]
    began = time.monotonic()
    try:
        images.load(home / "containerd" / "containerd.sock")
        results = asyncio.run(run(home, cases, chosen.at_once, chosen.v))
    finally:
        if trial is not None:
            trial.close()
    print(f"\n{table(results)}\n\n{len(results)} cases in {time.monotonic() - began:.0f} s")
    return 1 if any(result.verdict == "failed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
