"""What the tests of drivers share: a driver without a framework around it, free ports, a serial cable."""

import asyncio
import contextlib
import os
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from mappers.framework.driver import Driver, Property, Settings
from mappers.framework.poller import Poller, Sample

D = TypeVar("D", bound=Driver)


async def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def prop(name: str, type_: str, **settings: Any) -> Property:
    return Property(name=name, type=type_, writable=True, settings=Settings(settings))


@contextlib.asynccontextmanager
async def opened(driver: D, **settings: Any) -> AsyncIterator[D]:
    """An opened driver whose methods are all `async def`."""
    driver.id = "default/d"
    driver.settings = Settings(settings)
    driver.properties = {}
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


class Collected:
    """Reports of a poller."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.states: list[str] = []

    def readings(self, id_: str, samples: list[Sample]) -> None:
        self.values.update({s.name: s.value for s in samples})

    def state(self, id_: str, state: str) -> None:
        self.states.append(state)


@contextlib.asynccontextmanager
async def polled(poller: Poller) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(poller.run())
        try:
            yield
        finally:
            task.cancel()


@contextlib.contextmanager
def serial_cable(*, lost: Callable[[bytes], bool] = lambda data: False) -> Iterator[tuple[str, str]]:
    """Two serial ports, joined: what is written to one comes out of the other, unless it gets lost.  Needs the running loop."""
    loop = asyncio.get_running_loop()
    ends = [os.openpty() for _ in range(2)]
    (a, a_port), (b, b_port) = ends
    for _, port in ends:
        tty.setraw(port)

    def pump(source: int, target: int) -> None:
        with contextlib.suppress(OSError):
            data = os.read(source, 4096)
            if not lost(data):
                os.write(target, data)

    loop.add_reader(a, pump, a, b)
    loop.add_reader(b, pump, b, a)
    try:
        yield os.ttyname(a_port), os.ttyname(b_port)
    finally:
        for master, port in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(port)
