"""One private containerd for the whole folder, and a bench that runs an Edged on it or on the fake."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.edged.machine import Containerd, missing

# another run on the same machine has another bridge and subnet
_numbers = itertools.count(os.getpid() % 150)


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """Started once; its pods are removed after every test by `bench`."""
    why = missing()
    if why:
        pytest.skip(f"containerd tests cannot run: {why}")
    home = Path(tempfile.mkdtemp(prefix="skt", dir="/tmp"))
    machine = Containerd(home, next(_numbers))
    try:
        machine.start()
        machine.load_images()
        yield machine
    finally:
        machine.close()
