"""MQTT texts that wait for the broker: a bounded line, so that nothing that has something to say waits for it."""

import asyncio
from collections import deque

from devicetwin.ports import Publisher

MAX_PUBLISH = 1000  # texts waiting; the oldest go first


class Texts:
    """publisher: None where there is no MQTT; then nothing is kept.   dropped: how many went for want of room."""

    def __init__(self, publisher: Publisher | None) -> None:
        self._publisher = publisher
        self._wake = asyncio.Event()
        self.waiting: deque[tuple[str, bytes, int]] = deque(maxlen=MAX_PUBLISH)
        self.dropped = 0

    @property
    def heard(self) -> bool:
        """Whether there is anybody to hear: otherwise nothing need be written."""
        return self._publisher is not None

    def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        if self._publisher is None:
            return
        if len(self.waiting) == MAX_PUBLISH:
            self.dropped += 1
        self.waiting.append((topic, payload, qos))
        self._wake.set()

    async def run(self) -> None:
        """Hand on what waits.  Never returns."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.waiting and self._publisher is not None:
                topic, payload, qos = self.waiting.popleft()
                await self._publisher.publish(topic, payload, qos=qos)

    def drops(self) -> dict[str, int]:
        """What was not said or not taken, by reason; the bus's own count with ours."""
        counts = dict(self._publisher.dropped()) if self._publisher is not None else {}
        counts["unsent"] = counts.get("unsent", 0) + self.dropped
        return counts
