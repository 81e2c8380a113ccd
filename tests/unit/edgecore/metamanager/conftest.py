"""A store's path with a fresh store, and one that is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecore.metamanager.store import Store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fresh file's bytes: making one takes a child process."""
    path = tmp_path_factory.mktemp("empty") / "edgecore.db"
    Store.open(path).close()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, empty: bytes) -> Path:
    path = tmp_path / "edgecore.db"
    path.write_bytes(empty)
    path.chmod(0o600)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    found = Store.open(path)
    yield found
    found.close()
