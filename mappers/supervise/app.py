"""The process `mapper supervise`: runs the mappers that the node's devices need, and watches for hardware.

It asks edgecore every few seconds: says what is plugged in, and hears which rules and which drivers are wanted.  Each mapper
is a process of its own that ends with this one: it holds the other end of its standard input.  While edgecore is away
everything runs on as it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from beehive import clock, local
from beehive.apis.hardware import MAX_SEEN, MQTT, Rule, Seen, parse_each
from beehive.errors import ConfigError, SkerryError, Unavailable
from beehive.supervise import Part, supervise
from beehive.watchdog import HANGS
from mappers.supervise import plan
from mappers.supervise.drivers import DEFAULT_FOLDER, Drivers
from mappers.supervise.plan import Missing, Need, Slot, Start, Stop

log = logging.getLogger(__name__)

ASK_S = 2.0
MAX_FAULT_BYTES = 1024
STOP_S = 10.0
"""How long a mapper may take to close its devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """edgecore: its socket.   dmi_dir, buffer_dir: given on to the mappers.   drivers: the operator's own."""

    edgecore: Path
    dmi_dir: Path
    buffer_dir: Path
    drivers: Path = DEFAULT_FOLDER
    settle_s: float = 0.5
    grace_s: float = 5.0
    events_from: str = ""
    ask_s: float = ASK_S


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    rules: list[Any] = []
    needs: list[Need] = []


class Plugged:
    """What is plugged in, by the rules of the moment.  `run` never returns."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rules: list[Rule] = []
        self._faults: list[str] = []
        self._changed = asyncio.Event()
        self.seen: list[Seen] | None = None
        """None while it is not known."""
        self.news = asyncio.Event()

    def set_rules(self, documents: Sequence[Any]) -> None:
        """Take the rules as the API has them; one that is wrong does not count."""
        rules, faults = parse_each(documents)
        for fault in faults:
            if fault not in self._faults:
                log.warning("A rule is not used: %s", fault)
        self._faults = faults
        rules = [
            rule for rule in rules if rule.patterns.get("subsystem") != MQTT
        ]  # edgecore hears that itself
        if rules != self._rules:
            self._rules = rules
            self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            if not self._rules:
                self._take([])
                await self._changed.wait()
                continue
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(self._rules), name="hardware")
                changed = group.create_task(self._changed.wait())
                await asyncio.wait({watching, changed}, return_when=asyncio.FIRST_COMPLETED)
                watching.cancel()
                changed.cancel()

    async def _watch(self, rules: list[Rule]) -> None:
        """Returns when hardware cannot be watched here; what was seen stays as it was."""
        try:
            from mappers.udev.watcher import Watcher
        except ImportError:
            log.warning("Hardware is not watched: pyudev is missing, which the extra mappers-udev brings")
            return await self._forever()

        async def tell(_: object) -> None:
            if watcher.settled:
                self._take([candidate.seen for candidate in watcher.tracker.here()])

        options = self._options
        watcher = Watcher(
            rules, tell, settle_s=options.settle_s, grace_s=options.grace_s, events_from=options.events_from
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watcher.run())
                # what is there at the start is told once it has settled; until then nothing is known to be gone
                await watcher.ready.wait()
                await asyncio.sleep(2 * options.settle_s + 0.1)
                watcher.settled = True
                await tell(None)
        except* Unavailable as error:
            log.warning("Hardware is not watched: %s", error.exceptions[0])
        await self._forever()

    async def _forever(self) -> None:
        await asyncio.get_running_loop().create_future()

    def _take(self, seen: list[Seen]) -> None:
        if len(seen) > MAX_SEEN:
            log.warning(
                "%d things match the rules, only %d are told: make the rules narrower", len(seen), MAX_SEEN
            )
        self.seen = seen[:MAX_SEEN]
        self.news.set()


class Supervisor:
    """`run` never returns; when it is cancelled, every mapper is ended."""

    def __init__(self, options: Options, plugged: Plugged) -> None:
        self._options = options
        self._plugged = plugged
        self._drivers = Drivers(options.drivers)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._missing: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        """Protocol -> what was wrong when its mapper was last to run."""
        self._away = False
        self._needs: list[Need] = []
        self.slots: dict[str, Slot] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._ask()
                found = {
                    protocol: await asyncio.to_thread(self._drivers.find, protocol)
                    for protocol in {need.protocol for need in self._needs}
                }
                self.slots, actions = plan.decide(self._needs, self.slots, found.get, clock.monotonic())
                missing: dict[str, str] = {}
                for action in actions:
                    match action:
                        case Start(protocol, driver):
                            group.create_task(self._mapper(protocol, driver.name), name=f"mapper {protocol}")
                        case Stop(protocol, why):
                            log.info("Ending the mapper for %s: %s", protocol, why)
                            if (process := self._processes.get(protocol)) is not None:
                                group.create_task(_end(process), name=f"end of mapper {protocol}")
                        case Missing(protocol, devices):
                            why = missing[protocol] = self._faults[protocol] = self._drivers.explain(protocol)
                            if self._missing.get(protocol) != why:
                                log.warning("%d devices speak %s: %s", devices, protocol, why)
                self._missing = missing
                self._faults = plan.standing(self._faults, self._needs, self._processes)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.ask_s):
                        await self._plugged.news.wait()
                self._plugged.news.clear()

    async def _ask(self) -> None:
        """Exchange what is known with edgecore.  One that is away changes nothing."""
        seen = self._plugged.seen
        present = None if seen is None else msgspec.to_builtins(seen)
        try:
            faults = plan.faults(self._needs, self._faults)
            raw = await asyncio.to_thread(
                local.ask, self._options.edgecore, "hardware", present=present, faults=faults
            )
            answer = msgspec.convert(raw, _Answer)
        except ConfigError:
            raise
        except (SkerryError, msgspec.ValidationError) as error:
            if not self._away:
                log.warning("Edgecore is not asked: %s", error)
            self._away = True
            return
        if self._away:
            log.info("Edgecore is back")
        self._away = False
        self._needs = answer.needs
        self._plugged.set_rules(answer.rules)

    async def _mapper(self, protocol: str, driver: str) -> None:
        """One life of one mapper."""
        name = plan.own_name(protocol)
        options = self._options
        fault, say = os.pipe()
        os.set_blocking(fault, False)
        command = [
            *(sys.executable, "-m", "mappers.cli", "run", driver, "--while-input", "--fault-fd", str(say)),
            *("--name", name, "--protocol", protocol),
            *("--dmi-dir", str(options.dmi_dir), "--buffer-dir", str(options.buffer_dir)),
        ]
        code: int | None = None
        words = ""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, pass_fds=(say,)
            )
        except OSError as error:
            log.error("Cannot start the mapper for %s: %s", protocol, error)
            words = f"its mapper cannot be started: {error.strerror}"
        else:
            log.info("Started mapper %s (pid %d) for %s: %s", name, process.pid, protocol, driver)
            self._processes[protocol] = process
            try:
                code = await process.wait()
                words = _last_words(fault)
            finally:
                del self._processes[protocol]
                if process.returncode is None:
                    await _end(process)
        finally:
            os.close(fault)
            os.close(say)
        slot = self.slots[protocol]
        self.slots[protocol] = plan.ended(slot, clock.monotonic())
        if not slot.stopping:
            self._faults[protocol] = words or _why(code)
            pause = self.slots[protocol].not_before - clock.monotonic()
            log.warning("Mapper %s ended with %s; next try in %.0f s", name, code, max(pause, 0.0))
        self._plugged.news.set()


def _why(code: int | None) -> str:
    if code == HANGS:
        return "its mapper stood still and was ended: its driver blocks in an `async def`, the log says where"
    return f"its mapper ended with {code}"


def _last_words(fault: int) -> str:
    """What a mapper that is gone said of itself."""
    try:
        return os.read(fault, MAX_FAULT_BYTES).decode(errors="replace")
    except BlockingIOError:
        return ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have a mapper close its devices and end; one that does not is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run(options: Options, *, stop: asyncio.Event | None = None) -> None:
    """Until a signal comes or `stop` is set.  Raises: SkerryError."""
    plugged = Plugged(options)
    supervisor = Supervisor(options, plugged)
    await supervise(
        [
            Part(name="hardware", run=plugged.run),
            Part(name="mappers", run=supervisor.run, stop_s=STOP_S + 5),
        ],
        stop=stop,
        signals=stop is None,
    )
