"""The twin part on fakes, for the tests of its modules."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from devicetwin.module import DeviceTwin
from tests.unit.devicetwin.fakes import (
    ManualClock,
    MemoryBus,
    MemoryStore,
    MemoryUplink,
    resource_message,
    until,
)
from tests.vectors_kubeedge import frames

ID = "vectors/thermo-1"


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.uplink, self.bus = MemoryStore(), MemoryUplink(), MemoryBus()
        self.clock = ManualClock()
        self.twin: DeviceTwin

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[DeviceTwin]:
        self.twin = DeviceTwin(
            node_name="vec-edge",
            store=self.store,
            uplink=self.uplink,
            publisher=self.bus,
            dmi_dir=self.folder,
            clock=self.clock,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.twin.run())
            try:
                await self.twin.loaded.wait()
                yield self.twin
            finally:
                task.cancel()

    async def put(self, kind: str, obj: dict[str, Any], operation: str = "insert") -> None:
        key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        self.store.rows[kind, key] = msgspec.json.encode(obj)
        await self.twin.on_message(resource_message(kind, obj, operation))

    async def settle(self) -> None:
        """Until nothing is left to do but what waits for its time."""
        await until(lambda: not self.twin.notes and not self.twin.texts.waiting)
        await asyncio.sleep(0.01)


def run(folder: Path, scenario: Callable[[World, DeviceTwin], Awaitable[None]]) -> World:
    world = World(folder)

    async def main() -> None:
        async with world.running() as twin:
            await scenario(world, twin)

    asyncio.run(main())
    return world


def recorded_object(kind: str) -> dict[str, Any]:
    """The object that a real cloud sent in the recording."""
    for message in frames("down"):
        if message["route"]["resource"].split("/")[1:2] == [kind]:
            found: dict[str, Any] = message["content"]
            return found
    raise AssertionError(kind)


def plain(value: Any) -> Any:
    """A recorded or sent document without what differs from run to run."""
    if isinstance(value, dict):
        return {
            k: "T" if k in ("timestamp", "lastOnlineTime", "last_online") else plain(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [plain(v) for v in value]
    return (
        "uuid"
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)
        else value
    )
