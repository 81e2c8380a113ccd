"""What is piped in arrives whole and in order, and whoever writes too fast is held up."""

import asyncio
import os
import time

from edgecore.typedin import TypedIn


def test_all_comes_in_order_and_its_end_is_told() -> None:
    async def story() -> bytes:
        out, into = os.pipe()
        typed = TypedIn(out, most=2, size=3)
        typed.start()
        os.write(into, b"what was typed")
        os.close(into)
        got = b""
        while piece := await typed.get():
            assert len(piece) <= 3
            got += piece
        os.close(out)
        return got

    assert asyncio.run(story()) == b"what was typed"


def test_whoever_writes_faster_than_it_is_taken_is_held_up() -> None:
    async def story() -> None:
        out, into = os.pipe()
        typed = TypedIn(out, most=2, size=1)
        typed.start()
        os.write(into, b"x" * 10)
        until = time.monotonic() + 30
        # two wait, a third has been read and has no room
        while typed._pieces.qsize() < 2 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert typed._pieces.qsize() == 2
        os.close(into)
        assert [await typed.get() for _ in range(11)] == [b"x"] * 10 + [b""]
        os.close(out)

    asyncio.run(story())


def test_what_cannot_be_read_is_an_end() -> None:
    async def story() -> bytes:
        typed = TypedIn(-1, most=1, size=1)
        typed.start()
        return await typed.get()

    assert asyncio.run(story()) == b""
