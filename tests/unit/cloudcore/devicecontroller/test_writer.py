"""Writing DeviceStatuses, when something about one of them is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beehive.errors import Refused
from cloudcore.devicecontroller.reports import StatusChange
from cloudcore.devicecontroller.writer import StatusWriter


def test_a_fault_in_one_status_is_finished_with_and_the_others_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its edge would send the report again after the restart, and end the hub of the whole fleet each time."""
    written: list[str] = []

    class Devices:
        def get(self, namespace: str, name: str) -> None:
            return None

    async def store(self: StatusWriter, key: tuple[str, str], slot: object, change: object) -> bool:
        if key[1] == "bad":
            raise RuntimeError("a bug")
        if key[1] == "invalid":
            raise Refused("no", reason="Invalid")
        written.append(key[1])
        return True

    monkeypatch.setattr(StatusWriter, "_store", store)

    async def story() -> None:
        nothing: Any = Devices()
        writer = StatusWriter(nothing, nothing, nothing, nothing, interval_s=0.0)
        running = asyncio.create_task(writer.run())
        heard: dict[str, str] = {}
        for name in ("bad", "invalid", "good"):
            writer.submit(
                ("d", name),
                StatusChange(),
                lambda error, name=name: heard.update({name: error.reason if error else ""}),  # type: ignore[misc]
            )
            async with asyncio.timeout(30):
                while name not in heard and not running.done():
                    await asyncio.sleep(0)
        # P7: what counts for nothing is known to whoever sent it
        assert heard == {"bad": "InternalError", "invalid": "Invalid", "good": ""}
        running.cancel()

    asyncio.run(story())
    assert written == ["good"]
