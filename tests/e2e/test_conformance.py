"""What kubelets are asked to do, asked of a whole trial: the quick cases of tests/conformance (`make conformance` has all)."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance import images
from tests.conformance.case import Result, play_all
from tests.conformance.table import CASES
from tests.conformance.world import connected
from tests.e2e.skerry import Skerry

QUICK = [one for one in CASES if one.quick]


@pytest.fixture(scope="module")
def results(first_up: tuple[Skerry, object, object]) -> dict[str, Result]:
    """All quick cases, many at once."""
    trial = first_up[0]
    if not all(trial.pids().values()):
        trial.up()
    images.load(trial.socket)

    async def run() -> list[Result]:
        async with connected(trial.home) as world:
            return await play_all(world, QUICK, 8)

    return {f"{one.case.area}: {one.case.asks}": one for one in asyncio.run(run())}


@pytest.mark.parametrize("asked", [f"{one.area}: {one.asks}" for one in QUICK])
def test_asked_of_a_kubelet(results: dict[str, Result], asked: str) -> None:
    result = results[asked]
    if result.verdict == "not here":
        pytest.skip(result.why)
    assert result.verdict == "passed", result.why
