"""Runs the devices of one mapper: a poller task per device, fed by edgecore or by a file."""

import asyncio
import importlib
import importlib.util
import logging
import random
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from beehive.supervise import Part, supervise
from mappers.framework import threads
from mappers.framework.builtin import builtin, drivers
from mappers.framework.config import MapperConfig
from mappers.framework.dmi import EdgeLink, Identity
from mappers.framework.driver import Driver, find_driver
from mappers.framework.errors import DriverError
from mappers.framework.poller import Poller, Push, Reports
from mappers.framework.pusher import Pusher
from mappers.framework.spec import DeviceSpec

log = logging.getLogger(__name__)

DEAF_S = 10.0
"""How long an `async` driver may block the loop once the mapper is told to end: no longer than a supervisor waits."""


def load_driver(name: str) -> type[Driver]:
    """The driver class of a file (`path/to/driver.py`), a module (`mappers.virtual.thermostat`) or a protocol that Skerry has
    a driver for (`modbus`).

    Raises: DriverError that says what is wrong with the file."""
    try:
        module = _import(name)
    except DriverError:
        raise
    except Exception as error:  # the file is somebody else's code: whatever it raises, say where it is from
        where = _line_in(name, error)
        raise DriverError(f"cannot import {name}: {where}{type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise DriverError(f"cannot import {name}: it ends the process") from error
    return find_driver(vars(module), module.__name__)


def _line_in(name: str, error: Exception) -> str:
    """Where in a driver's own file it went wrong; a syntax error says so itself."""
    if isinstance(error, SyntaxError):
        return ""
    own = (name, str(Path(name).resolve()))
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename in own
    ]
    return f"line {lines[-1]}: " if lines else ""


def _import(name: str) -> ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        own = builtin(name)
        if own is not None:
            return importlib.import_module(f"mappers.{own}.driver")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise DriverError(
                f"there is no driver {name}: give a file (my_driver.py), a module that can be imported, or one of "
                f"{', '.join(drivers())}"
            ) from None
    if not path.is_file():
        raise DriverError(f"there is no file {name}")
    module_name = "driver_" + path.stem
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise DriverError(f"cannot import {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


class Runner:
    """The devices of one driver class.  A device that fails stays on its own."""

    def __init__(self, make: Callable[[], Driver], *, rng: random.Random, push: Push | None = None) -> None:
        self._make = make
        self._push = push
        self._rng = rng
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self.pollers: dict[str, Poller] = {}
        self.reports: Reports | None = None

    async def run(self) -> None:
        """Hold the devices' tasks.  Never returns; when cancelled, every device is closed."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for id_ in self.pollers:
                self._start(id_)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def put(self, spec: DeviceSpec) -> None:
        """Add a device, or take its new spec."""
        known = self.pollers.get(spec.id)
        if known is not None:
            known.update(spec)
            return
        assert self.reports is not None
        self.pollers[spec.id] = Poller(self._make, spec, self.reports, rng=self._rng, push=self._push)
        self._start(spec.id)
        log.info("Device %s added", spec.id)

    def remove(self, id_: str) -> bool:
        """Close a device and forget it.  Says whether it was there."""
        if self.pollers.pop(id_, None) is None:
            return False
        task = self._tasks.pop(id_, None)
        if task is not None:
            task.cancel()
            self._closing[id_] = task
        log.info("Device %s removed", id_)
        return True

    async def call(self, id_: str, method: str, texts: Mapping[str, str]) -> str:
        """Do a method of a device.  Raises: SkerryError."""
        poller = self.pollers.get(id_)
        if poller is None:
            raise DriverError(f"there is no device {id_}")
        return await poller.call(method, texts)

    def ids(self) -> frozenset[str]:
        return frozenset(self.pollers)

    def _start(self, id_: str) -> None:
        if self._group is not None and id_ not in self._tasks:
            before = self._closing.pop(id_, None)
            self._tasks[id_] = self._group.create_task(
                self._run_one(self.pollers[id_], before), name=f"device {id_}"
            )

    async def _run_one(self, poller: Poller, before: asyncio.Task[None] | None) -> None:
        if before is not None:  # the same device, removed and added again: two drivers must not hold one port
            await asyncio.wait([before])
        await poller.run()


async def run_mapper(
    driver: type[Driver], config: MapperConfig, *, stop: asyncio.Event | None = None, signals: bool = True
) -> None:
    """Run a driver against an edgecore until a signal comes.  Raises: SkerryError."""
    rng = random.Random()
    protocol = config.protocol or driver.protocol
    name = config.name or protocol
    pusher = Pusher(config.buffer_dir / name / "push", rng=rng)
    runner = Runner(driver, rng=rng, push=pusher.push)
    address = config.socket_path or config.edgecore_sock.with_name(f"{name}.sock")
    identity = Identity(name=name, protocol=protocol, version=config.version, address=address.absolute())
    link = EdgeLink(identity, config.edgecore_sock, runner, rng=rng)
    runner.reports = link
    await supervise(
        [
            Part(name="push", run=pusher.run),
            Part(name="devices", run=runner.run),
            Part(name="threads", run=lambda: threads.watch(runner.pollers)),
            Part(name="edgecore", run=link.run),
        ],
        stop=stop,
        signals=signals,
        deaf_s=DEAF_S,
    )
