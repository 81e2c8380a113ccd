"""For every test: what a test changes of this process ends with it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """The daemons' commands set a umask, and tests call some of them in this process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
