"""Rates are of two readings, and nobody waits twice."""

import asyncio

import looptime

from edgecore.podmeasures import FIRST_S, FRESH_S, PodMeasures


def test_the_first_to_ask_waits_for_a_second_reading() -> None:
    readings: list[float] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()

        async def read() -> bytes:
            readings.append(loop.time())
            return b"x"

        measures = PodMeasures(read, monotonic=loop.time)
        body, window = await measures.read()
        assert (body, window) == (b"x", FIRST_S)
        assert len(readings) == 2
        await asyncio.sleep(20)
        assert (await measures.read())[1] == 20
        assert len(readings) == 3
        await asyncio.sleep(FRESH_S + 1)
        assert (await measures.read())[1] == FIRST_S
        assert len(readings) == 5

    loop = looptime.patch_event_loop(asyncio.new_event_loop())
    try:
        loop.run_until_complete(scene())
    finally:
        loop.close()
