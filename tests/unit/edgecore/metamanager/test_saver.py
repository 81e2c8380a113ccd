"""The outbox's copy on the disk."""

from __future__ import annotations

import pytest

from beehive.errors import Unavailable
from edgecore.metamanager.manager import MetaManager
from tests.unit.edgecore.metamanager.scene import Line, Memory, on


def test_a_report_is_on_disk_before_its_sender_goes_on_and_leaves_when_acknowledged() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(store.queue) == 1
        (message,) = meta.take(0.0)
        meta.acked([message.id])
        assert len(meta.outbox) == 0

    on(scene)


def test_a_report_that_the_disk_refuses_is_still_sent() -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        store.broken = True
        with pytest.raises(Unavailable):
            await meta.pod_status("d", "web", "u1", b'{"phase":"Running"}')
        assert len(meta.take(0.0)) == 1

    on(scene)
