"""What is held for a reader, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from beehive import inbox
from beehive.inbox import Inbox
from beehive.tunnelpeer import StreamReset


def test_bytes_come_out_in_order_and_the_end_after_them() -> None:
    async def main() -> None:
        box = Inbox()
        for part in (b"one", b"", b"two"):
            assert await box.put(part)
        box.end()
        assert [await box.get() for _ in range(4)] == [b"one", b"two", b"", b""]

    asyncio.run(main())


def test_a_failure_is_told_after_what_came_before_it() -> None:
    async def main() -> None:
        box = Inbox()
        await box.put(b"last words")
        box.fail("lost")
        box.fail("lost again")
        assert box.failed
        assert await box.get() == b"last words"
        with pytest.raises(StreamReset, match=r"^lost$"):
            await box.get()
        # who puts is not held up by a stream that is over
        for _ in range(3):
            assert await box.put(b"x" * inbox.MAX_HELD)

    asyncio.run(main())


def test_a_reader_that_takes_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        box = Inbox()
        monkeypatch.setattr(inbox, "STALL_S", 30.0)
        assert await box.put(b"x" * (inbox.MAX_HELD + 1))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            putting = group.create_task(box.put(b"y"))
            await asyncio.sleep(0)
            assert not putting.done()
            await box.get()
            assert await putting
        await box.put(b"x" * inbox.MAX_HELD)
        monkeypatch.setattr(inbox, "STALL_S", 0.01)
        assert not await box.put(b"z")

    asyncio.run(main())
