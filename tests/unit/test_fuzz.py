"""The targets of `make fuzz` hold for their seeds and for a few bytes more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_its_seeds(name: str) -> None:
    assert TARGETS[name].seeds
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@given(where=st.floats(0, 1), more=st.binary(max_size=8), cut=st.integers(0, 8), which=st.integers(0, 10_000))
def test_a_target_bears_what_is_broken(name: str, where: float, more: bytes, cut: int, which: int) -> None:
    seeds = TARGETS[name].seeds
    seed = seeds[which % len(seeds)]
    at = int(where * len(seed))
    TARGETS[name].run(seed[:at] + more + seed[at + cut :])
