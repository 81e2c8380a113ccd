"""In-memory ports for DeviceTwin."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from beehive import message as beehive_message
from beehive.errors import Unavailable
from beehive.message import Message


class MemoryStore:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.writes = 0
        self.broken = False

    async def load(self, kind: str) -> list[tuple[str, bytes]]:
        return [(key, value) for (k, key), value in self.rows.items() if k == kind]

    async def save(self, kind: str, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise Unavailable("disk full")
        self.writes += 1
        self.rows[kind, key] = value

    async def drop(self, kind: str, key: str) -> None:
        await asyncio.sleep(0)
        self.rows.pop((kind, key), None)


class MemoryUplink:
    """Keeps every message, and the newest per coalesce key."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.latest: dict[str, Message] = {}

    async def send(self, message: Message, *, coalesce: str) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)
        self.latest[coalesce] = message

    def twin(self, id_: str) -> dict[str, Any]:
        """What the cloud would know of a device: property -> (reported, desired in force)."""
        message = self.latest.get(f"twin/{id_}")
        if message is None:
            return {}
        content = msgspec.json.decode(message.content)
        return {
            name: ((t.get("actual") or {}).get("value"), (t.get("expected") or {}).get("value"))
            for name, t in content["twin"].items()
        }

    def state(self, id_: str) -> str:
        message = self.latest.get(f"devicestate/{id_}")
        return "" if message is None else str(msgspec.json.decode(message.text())["device"]["state"])


class MemoryBus:
    def __init__(self) -> None:
        self.texts: list[tuple[str, Any]] = []

    def dropped(self) -> dict[str, int]:
        return {}

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        await asyncio.sleep(0)
        self.texts.append((topic, msgspec.json.decode(payload)))


class ManualClock:
    """Follows the event loop's time, so that a test with virtual time has both in step."""

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self.start_ms = start_ms
        self.ahead_s = 0.0  # of the loop's time

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s

    def wall_ms(self) -> int:
        return self.start_ms + int(self.monotonic() * 1000)

    def rfc3339(self) -> str:
        return f"2027-01-15T08:00:{int(self.monotonic()) % 60:02d}Z"


def resource_message(kind: str, obj: dict[str, Any], operation: str = "insert") -> Message:
    metadata = obj["metadata"]
    return beehive_message.new(
        source="devicecontroller",
        group="resource",
        operation=operation,
        resource=f"{metadata['namespace']}/{kind}/{metadata['name']}",
        content=obj,
    )


def twin_message(resource: str, content: Any) -> Message:
    return beehive_message.new(
        source="devicecontroller", group="twin", operation="update", resource=resource, content=content
    )


async def until(what: Callable[[], bool], seconds: float = 30.0, *, every: float = 0.01) -> None:
    """Wait for something to become true.  Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(every)
