"""Reading without a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecore.errors import StoreError
from edgecore.metamanager import offline
from tests.unit.edgecore.metamanager.stores import (
    filled,
)


def test_the_command_line_reads_without_the_daemon(path: Path) -> None:
    filled(path, 3)
    assert len(offline.objects(path, "pod")) == 3
    with pytest.raises(StoreError, match="no store"):
        offline.objects(path.with_name("none"), "pod")
