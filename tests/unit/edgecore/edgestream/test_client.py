"""The tunnel comes back, soon after a loss and at once when it is told to."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from beehive.errors import Refused, Unavailable
from edgecore.edgestream.client import EdgeStream
from tests.unit.edgecore.edgestream.test_kubelet import Runtime


class Gone:
    """A connection that is lost as soon as `lost` is set."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.closed = False

    async def recv(self) -> bytes:
        await self.lost.wait()
        raise Unavailable("connection lost")

    async def send(self, data: bytes) -> None:
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = True


def test_it_dials_until_it_is_connected_and_again_after_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made: list[Gone] = []
    dials = 0

    async def main() -> None:
        stream: EdgeStream

        async def dial() -> Gone:
            nonlocal dials
            dials += 1
            if dials in (1, 2):
                raise Unavailable("no link")
            if dials == 4:
                raise Refused("a hub without tunnels")
            made.append(Gone())
            return made[-1]

        stream = EdgeStream(dial=dial, runtime=Runtime(), rng=random.Random(1))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(stream.run())
            for wanted in (1, 2):
                while len(made) < wanted:
                    await asyncio.sleep(0.01)
                    stream.retry_now()
                while not stream.connected:
                    await asyncio.sleep(0)
                made[-1].lost.set()
                while stream.connected:
                    await asyncio.sleep(0)
            task.cancel()

    asyncio.run(main())
    assert all(connection.closed for connection in made)
    # the same complaint is told once
    assert caplog.text.count("No tunnel for logs and exec, trying on: no link") == 1
    assert caplog.text.count("Tunnel for logs and exec lost: connection lost") == 2
