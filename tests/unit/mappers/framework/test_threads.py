import asyncio
import threading

import pytest

from mappers.framework import threads
from mappers.framework.errors import DriverError
from mappers.framework.threads import MANY, OF_A_DEVICE, TOO_MANY, judge


def test_what_is_said() -> None:
    assert judge(["MainThread"] * 10, 0) == ("", False)
    assert judge([f"device {n}" for n in range(OF_A_DEVICE * 50)], 50) == ("", False)
    text, end = judge([f"Thread-{n} (work)" for n in range(MANY)], 0)
    assert not end
    assert text.startswith(f"the driver has {MANY} threads, {MANY} called Thread-N (work)")
    assert judge(["x"] * TOO_MANY, 0)[1]


def test_a_process_full_of_threads_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "LOOK_S", 0.01)
    monkeypatch.setattr(threads, "MANY", 5)
    monkeypatch.setattr(threads, "TOO_MANY", 20)
    done = threading.Event()
    started: list[threading.Thread] = []

    async def leak() -> None:
        while True:
            thread = threading.Thread(target=done.wait, name=f"leak-{len(started)}", daemon=True)
            started.append(thread)
            thread.start()
            await asyncio.sleep(0.002)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leak())
            group.create_task(threads.watch({}))

    try:
        with pytest.raises(ExceptionGroup) as failed:
            asyncio.run(main())
        assert failed.group_contains(DriverError, match="called leak-N")
        assert "it should end those that it starts" in caplog.text
    finally:
        done.set()
        for thread in started:
            thread.join()
