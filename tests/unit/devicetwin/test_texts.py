"""Texts that wait for the broker."""

import asyncio

from devicetwin.texts import MAX_PUBLISH, Texts
from tests.unit.devicetwin.fakes import MemoryBus, until


def test_without_mqtt_nothing_is_kept() -> None:
    texts = Texts(None)
    texts.publish("t", b"1")
    assert not texts.heard
    assert not texts.waiting
    assert texts.drops() == {"unsent": 0}


def test_a_line_that_is_full_loses_its_oldest_and_counts_them() -> None:
    bus = MemoryBus()

    async def main() -> None:
        texts = Texts(bus)
        for n in range(MAX_PUBLISH + 3):
            texts.publish("t", b"%d" % n)
        assert texts.drops() == {"unsent": 3}
        task = asyncio.create_task(texts.run())
        await until(lambda: not texts.waiting)
        texts.publish("t", b"-1")
        await until(lambda: bus.texts[-1] == ("t", -1))
        task.cancel()

    asyncio.run(main())
    assert [payload for _, payload in bus.texts] == [*range(3, MAX_PUBLISH + 3), -1]
