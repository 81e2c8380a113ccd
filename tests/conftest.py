"""For every test: what a test changes of this process ends with it.

Properties are tried with the same examples in every run, so that a change is judged by what it changed; `make fuzz`
looks for new ones, and what it finds becomes an example beside the property."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, database=None, **_ANY_SPEED)
settings.register_profile("search", max_examples=2000, database=None, print_blob=True, **_ANY_SPEED)
settings.load_profile(os.environ.get("SKERRY_PROPERTIES", "same"))


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """The daemons' commands set a umask, and tests call some of them in this process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
