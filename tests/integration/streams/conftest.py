"""The private containerd of the edged tests, for these too."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.edged.conftest import containerd

__all__ = ["containerd"]


@pytest.fixture(autouse=True)
def _kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
