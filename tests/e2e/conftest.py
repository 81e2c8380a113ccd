"""One trial for all end-to-end tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import footprint
from tests.e2e.skerry import Skerry, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def machine() -> None:
    """What these tests need of the machine."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def first_up(machine: None) -> Iterator[tuple[Skerry, str, dict[str, Any]]]:
    """A trial that came up, what it said, and its status then.  Taking it down leaves the machine as it was."""
    skerry = Skerry()
    before = footprint.look(skerry.home)
    try:
        said = skerry.up().stdout
        yield skerry, said, skerry.status()
    finally:
        skerry.close()
    assert footprint.left_behind(before, skerry.home) == {}


@pytest.fixture
def trial(first_up: tuple[Skerry, str, dict[str, Any]]) -> Skerry:
    """The trial, with everything up again, whatever the test before did to it."""
    skerry = first_up[0]
    if not all(skerry.pids().values()):
        skerry.up()
    return skerry
