"""A disk that refuses."""

from __future__ import annotations

import pytest

from edgecore.metamanager.manager import MetaManager
from tests.unit.edgecore.metamanager.scene import Line, Memory, on, push, settle


def test_a_disk_that_refuses_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        for _ in range(2):
            store.broken = True
            for number in range(5):
                await meta.forwarded("metamanager", push(version=str(number + 1)))
                await settle()
            store.broken = False
            await meta.forwarded("metamanager", push(version="9"))
            await settle()

    caplog.set_level("INFO")
    on(scene)
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    refused = "Nothing of the cloud's is acknowledged, and reports are kept in memory only"
    assert told == [refused, "The store takes writes again"] * 2
