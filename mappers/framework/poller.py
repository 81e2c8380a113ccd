"""Runs one device: opens it, writes what is wanted, reads it in its cycles, and says when it goes and comes back.

One task per device.  What is wanted is written first, and again after the device was away.  A change of a desired value
interrupts the wait for the next reading and is followed by one, so it shows at once; nothing else about the device is
disturbed.  A device that fails is closed and tried again with growing pauses: one log line when it goes, one when it is back.
Missed readings are not made up."""

import asyncio
import inspect
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from beehive.apis.devices import check_value
from beehive.backoff import Backoff
from beehive.errors import SkerryError
from mappers.framework.caller import Caller
from mappers.framework.convert import Value, from_text, to_text
from mappers.framework.driver import Driver, Property
from mappers.framework.errors import DeviceError, DriverError, NothingYet, ValueRefused
from mappers.framework.spec import DeviceSpec

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0  # of one read or write; a device on a slow line answers in a few seconds or not at all
LOST_AFTER = 3
RETRY_BASE_S, RETRY_CAP_S = 0.5, 30.0
MAX_ANOMALY = 256
MAX_HANGING = 4  # calls of one device that did not return; each keeps a thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading as text, with the wish it was taken under.  anomaly: what the driver finds wrong with it."""

    name: str
    type: str
    value: str
    desired: str
    anomaly: str = ""


class Reports(Protocol):
    """Where readings go.  Neither may block."""

    def readings(self, id_: str, samples: list[Sample]) -> None: ...

    def state(self, id_: str, state: str) -> None: ...


Push = Callable[[Property, Sample], None]  # must not block


def first_due(properties: Iterable[Property], now: float) -> dict[str, float]:
    """When each property is to be read first: now."""
    return {p.name: now for p in properties}


def take_due(
    due: dict[str, float],
    properties: Mapping[str, Property],
    now: float,
    rng: random.Random,
    *,
    first: bool = False,
) -> list[Property]:
    """The properties to be read now, moved on to their next time.

    Up to a twentieth of a cycle is added or taken at random, so that many devices do not fall into step; properties of one
    cycle stay together, to be read and reported as one.  first: of a device that was just opened, as others of the mapper
    were: its second reading comes anywhere within a cycle, so that they are not read all at once ever after."""
    ready = [properties[name] for name, at in due.items() if at <= now and name in properties]
    stretch = rng.random() if first else 0.95 + rng.random() * 0.1
    for prop in ready:
        due[prop.name] = now + prop.cycle_s * stretch
    return ready


class Poller:
    """One device in a task of its own.  `run` never returns; `update` and `stop` may be called from the event loop."""

    def __init__(
        self,
        make: Callable[[], Driver],
        spec: DeviceSpec,
        reports: Reports,
        *,
        rng: random.Random,
        call_timeout_s: float = CALL_TIMEOUT_S,
        push: Push | None = None,
    ) -> None:
        self.spec = spec
        self.state = ""  # last told
        self._make = make
        self._reports = reports
        self._push = push
        self._push_due: dict[str, float] = {}
        self._rng = rng
        self._timeout_s = call_timeout_s
        self._wake = asyncio.Event()
        self._reopen = False
        self._read_now = False
        self._state_now = False
        self._written: dict[str, str] = {}
        self._refused: dict[str, str] = {}  # said once per property
        self._failing: set[str] = set()  # properties whose last read failed
        self._unanswered = 0  # reads in a row
        self._hook_failures = 0  # in a row
        self._lost = False
        self._lock = asyncio.Lock()  # held while the driver is called
        self._driver: Driver | None = None
        self._caller: Caller | None = None
        self._hanging: list[Caller] = []

    def update(self, spec: DeviceSpec) -> None:
        """Take a new spec.  Only if more than wishes or cycles changed is the device reopened."""
        if not self.spec.same_but_desired(spec):
            self._reopen = True
        elif self._driver is not None:
            self._driver.properties = spec.properties
        self.spec = spec
        self._wake.set()

    async def run(self) -> None:
        """Never returns; cancel it to stop.  The driver is closed then."""
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        try:
            while True:
                try:
                    await self._session(backoff)
                except Exception as error:  # whatever a driver raises stays with its device
                    self._gone(error)
                    await self._pause(backoff.next_s(self._rng))
        finally:
            if self._caller is not None:
                self._caller.leave()

    async def _session(self, backoff: Backoff) -> None:
        """Open the device and serve it until it fails (raises) or is to be reopened (returns)."""
        self._reopen = False
        driver = self._make()
        driver.id = self.spec.id
        driver.settings = self.spec.settings
        driver.properties = self.spec.properties
        driver._push = self._pushed
        driver._ask_state = self._look_at_state
        await self._do(driver.open)
        self._driver = driver
        self._written.clear()
        self._failing.clear()
        self._unanswered = 0
        self._hook_failures = 0
        try:
            due = first_due(self.spec.properties.values(), self._now())
            next_state = self._now()
            first = True
            while not self._reopen:
                if await self._write_wishes(driver) or self._read_now:
                    self._read_now = False
                    due.update(first_due(self.spec.properties.values(), self._now()))
                for name in self.spec.properties:
                    due.setdefault(name, self._now())
                ready = take_due(due, self.spec.properties, self._now(), self._rng, first=first)
                first = False
                await self._read(driver, ready)
                if self._lost:
                    self._lost = False
                    log.info("Device %s is back", self.spec.id)
                    if not self.spec.state_cycle_s:  # else its own state is told below
                        self._tell("online")
                backoff.reset()
                next_state = await self._report_state(driver, next_state)
                await self._sleep_until(min([*due.values(), next_state]))
        finally:
            self._driver = None
            await self._close(driver)

    async def _close(self, driver: Driver) -> None:
        try:
            await self._do(driver.close)
        except Exception as error:  # it is being given up anyway
            log.debug("! closing %s: %s", self.spec.id, error)

    # --- what is done with the driver

    async def _write_wishes(self, driver: Driver) -> bool:
        """Write each desired value that is not written yet.  Says whether something was."""
        wrote = False
        for prop in list(self.spec.properties.values()):
            if not prop.writable or prop.desired == "" or self._written.get(prop.name) == prop.desired:
                continue
            try:
                value = from_text(prop.desired, prop.type)
                await self._do(driver.write, prop, value)
            except (ValueRefused, DriverError) as error:  # the other properties are read all the same
                self._refuse(prop.name, error, "set to what is wanted: ")
            else:
                wrote = True
                log.debug("> %s %s", self.spec.id, prop.name)
            self._written[prop.name] = prop.desired
        return wrote

    async def _read(self, driver: Driver, ready: list[Property]) -> None:
        """Read properties and pass them on together.

        Raises: what the driver raised last, if the device seems gone: no property could be read when last tried, or
        `LOST_AFTER` reads in a row failed for want of an answer."""
        samples: list[Sample] = []
        failure: Exception | None = None
        for prop in ready:
            try:
                value = await self._do(driver.read, prop)
                sample = self._sample(prop, value)
            except NothingYet:
                self._failing.discard(prop.name)
                continue
            except ValueRefused as error:
                self._refuse(prop.name, error)
                continue
            except Exception as error:  # one register that cannot be read does not take the others with it
                self._failing.add(prop.name)
                self._refuse(prop.name, error)
                self._unanswered += isinstance(error, OSError | DeviceError)
                if self._unanswered >= LOST_AFTER or self._failing >= set(self.spec.properties):
                    failure = error
                    break
                continue
            self._failing.discard(prop.name)
            self._unanswered = 0
            self._refused.pop(prop.name, None)
            if prop.anomaly and self._judges(driver):
                sample = replace(sample, anomaly=await self._judged(driver, prop, value))
            samples.append(sample)
            self._push_on(prop, sample)
        # a property may have gone, by a changed model, while it was read
        now = self.spec.properties
        reported = [s for s in samples if s.name in now and now[s.name].report]
        if reported:
            self._reports.readings(self.spec.id, reported)
        if failure is not None:
            raise failure

    def _sample(self, prop: Property, value: Value) -> Sample:
        # The wish may have changed while the device was read; this one is what the reading was taken under.
        text = to_text(value, prop.type)
        return Sample(name=prop.name, type=prop.type, value=text, desired=self._written.get(prop.name, ""))

    def _judges(self, driver: Driver) -> bool:
        return type(driver).anomaly is not Driver.anomaly and self._hook_failures < LOST_AFTER

    async def _judged(self, driver: Driver, prop: Property, value: Value) -> str:
        """What the driver finds wrong with a reading.  A hook that fails again and again is not asked any more."""
        try:
            said = await self._do(driver.anomaly, prop, value)
        except Exception as error:  # its author's to fix; the reading counts
            self._hook_failures += 1
            gives_up = "; it is not asked again" if self._hook_failures >= LOST_AFTER else ""
            said_before = self._refused.get(f"{prop.name} ")
            text = f"`anomaly` fails: {type(error).__name__}: {error}{gives_up}"
            if text != said_before:
                self._refused[f"{prop.name} "] = text
                log.warning("Device %s, property %s: %s", self.spec.id, prop.name, text)
            return ""
        self._hook_failures = 0
        return str(said)[:MAX_ANOMALY] if said else ""

    def _pushed(self, name: str, value: Value) -> None:
        prop = self.spec.properties.get(name)
        if prop is None:
            return
        try:
            sample = self._sample(prop, value)
        except ValueRefused as error:
            self._refuse(name, error)
            return
        self._push_on(prop, sample)
        if prop.report:
            self._reports.readings(self.spec.id, [sample])

    def _push_on(self, prop: Property, sample: Sample) -> None:
        """Send a reading to where else it goes, when it is time again.  Readings come a little early or late: by a tenth."""
        if self._push is None or not prop.pushes or self._now() < self._push_due.get(prop.name, 0.0):
            return
        self._push_due[prop.name] = self._now() + prop.push_cycle_s * 0.9
        self._push(prop, sample)

    def _look_at_state(self) -> None:
        self._state_now = True
        self._wake.set()

    async def _report_state(self, driver: Driver, due: float) -> float:
        """Tell the state when it is time or it is another.  Returns when it is time again."""
        if not self.spec.state_cycle_s:
            return float("inf")
        if self._now() < due and self.state in ("online", "ok") and not self._state_now:
            return due
        self._state_now = False
        state = str(await self._do(driver.state))
        self._tell(state)
        return self._now() + self.spec.state_cycle_s

    async def call(self, method: str, texts: Mapping[str, str]) -> str:
        """Do a method of the device.  texts: values by property.  Returns what it returned, as text, empty for nothing.

        Raises: SkerryError; whatever the driver raises comes as one.  The device is not given up for it."""
        named = self.spec.methods.get(method)
        if named is None:
            known = ", ".join(sorted(self.spec.methods)) or "none"
            raise SkerryError(f"device {self.spec.id} has no method {method[:64]!r}; it has {known}")
        values: dict[str, Value] = {}
        for name, text in texts.items():
            prop = self.spec.properties.get(name)
            if prop is None or name not in named:
                raise SkerryError(f"method {method} of device {self.spec.id} takes no {name[:64]!r}")
            wrong = check_value(text, prop.type, minimum=prop.minimum, maximum=prop.maximum)
            if wrong:
                raise ValueRefused(f"the value of {name} {wrong}")
            values[name] = from_text(text, prop.type)
        driver = self._driver
        if driver is None:
            raise DeviceError(f"device {self.spec.id} does not answer")
        try:
            if type(driver).call is Driver.call:
                result: Value = None
                for name, value in values.items():
                    await self._do(driver.write, self.spec.properties[name], value)
            else:
                result = await self._do(driver.call, method, values)
            return (
                "" if result is None else to_text(result, "BYTES" if isinstance(result, bytes) else "STRING")
            )
        except SkerryError:
            raise
        except Exception as error:  # whatever a driver raises is the answer
            raise DeviceError(f"{method} failed: {type(error).__name__}: {error}") from error
        finally:
            self._read_now = True  # what it changed is to be seen
            self._wake.set()

    async def _do(self, method: Callable[..., Any], *args: Any) -> Any:
        """Call the driver, one call at a time, within the timeout.  Plain functions run in the device's own thread."""
        async with self._lock:
            limit = asyncio.timeout(self._timeout_s)
            try:
                async with limit:
                    if inspect.iscoroutinefunction(method):
                        return await method(*args)
                    return await asyncio.wrap_future(self._thread().call(method, *args))
            except TimeoutError:
                if not limit.expired():  # it returned: its own timeout, of a socket say
                    raise
            if self._caller is not None:
                # The thread may hang for ever; leave it and take a new one next time.
                self._caller.leave()
                self._hanging.append(self._caller)
                self._caller = None
            name = getattr(method, "__name__", "call")
            raise DeviceError(f"{name} did not return within {self._timeout_s:g} s") from None

    def _thread(self) -> Caller:
        """Raises: DeviceError while so many calls hang that one more would only cost another thread."""
        if self._caller is None:
            self._hanging = [caller for caller in self._hanging if caller.is_alive]
            if len(self._hanging) >= MAX_HANGING:
                raise DeviceError(
                    f"{len(self._hanging)} calls of the driver have not returned; it needs a timeout of its own"
                )
            self._caller = Caller(self.spec.id)
        return self._caller

    # --- waiting and telling

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _sleep_until(self, when: float) -> None:
        try:
            async with asyncio.timeout_at(when if when != float("inf") else None):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try.  A new spec ends it: it may be the cure."""
        self._wake.clear()
        await self._sleep_until(self._now() + seconds)

    def _tell(self, state: str) -> None:
        self.state = state
        self._reports.state(self.spec.id, state)

    def _gone(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            expected = isinstance(error, SkerryError | OSError)
            log.warning(
                "Device %s does not answer: %s",
                self.spec.id,
                str(error) or type(error).__name__,
                exc_info=None if expected else error,
            )
        if self.state != "offline":
            self._tell("offline")

    def _refuse(self, name: str, error: Exception, doing: str = "") -> None:
        """Say it once.  doing: what was tried; a property that can neither be read nor set has two lines, not ever new ones."""
        text = str(error) or type(error).__name__
        if self._refused.get(doing + name) != text:
            self._refused[doing + name] = text
            log.warning("Device %s, property %s: %s%s", self.spec.id, name, doing, text)
