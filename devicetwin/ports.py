"""What the device half needs from the daemon that hosts it.  Its host hands in objects of these shapes."""

from collections.abc import Mapping
from typing import Protocol

from beehive.message import Message


class TwinStore(Protocol):
    """Rows that survive a power cut; a call returns when its change is durable.

    kind: `device` and `devicemodel` are the API objects as the host stored them, read here and never written; `twin` is one row
    per device and `mapper` one per mapper, both written here.  key: `<namespace>/<name>`."""

    async def load(self, kind: str) -> list[tuple[str, bytes]]: ...

    async def save(self, kind: str, key: str, value: bytes) -> None: ...

    async def drop(self, kind: str, key: str) -> None: ...


class Uplink(Protocol):
    """The durable outbox to the cloud.  A message replaces an unsent one of the same coalesce key."""

    async def send(self, message: Message, *, coalesce: str) -> None: ...


class Publisher(Protocol):
    """The node's MQTT bus.  Publishing while the broker is away drops the message; it must not wait for it."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None: ...

    def dropped(self) -> Mapping[str, int]:
        """How many messages were not taken or not published since the start, by reason."""


class Clock(Protocol):
    """`beehive.clock`, or a fake."""

    def monotonic(self) -> float: ...

    def wall_ms(self) -> int: ...

    def rfc3339(self) -> str: ...
