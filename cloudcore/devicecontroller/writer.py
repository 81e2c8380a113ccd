"""Writes DeviceStatuses: at most one write a device and interval, newest wins, nothing reported as done before it is.

Reports of one device gather in one slot while a write is under way or not yet due: their number does not matter to the API.
What it refuses for good is said to whoever reported it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from beehive import clock
from beehive.apis.devices import Device, DeviceStatusStatus, decode_status
from beehive.backoff import Backoff
from beehive.errors import Conflict, NotFound, ProtocolError, SkerryError, Unavailable
from cloudcore.cache import Cache
from cloudcore.devicecontroller.placement import DevicePlacement, Key
from cloudcore.devicecontroller.reports import StatusChange, apply, creation, patch
from cloudcore.errors import ApiExists, ApiNotFound, ApiUnavailable
from cloudcore.kube import Kube
from cloudcore.objects import DEVICESTATUS, Object

log = logging.getLogger(__name__)

AT_ONCE = 8
MAX_WAITING = 256
"""Reports of one device that wait to be confirmed; older ones are forgotten, and sent again by their edge."""

Confirm = Callable[[SkerryError | None], None]
"""Told when a report is finished with; the error says why it counts for nothing."""


@dataclass(slots=True)
class _Slot:
    change: StatusChange = field(default_factory=StatusChange)
    confirms: list[Confirm] = field(default_factory=list)
    not_before: float = 0.0
    busy: bool = False
    waiting: bool = False
    written: Object | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=1.0))


class _Gone(NotFound):
    """Nobody will ask for this status any more."""


class _Fault(SkerryError):
    """A fault of ours."""

    reason = "InternalError"


def _finish(confirms: list[Confirm], error: SkerryError | None) -> None:
    for confirm in confirms:
        confirm(error)


class StatusWriter:
    """`run` is a task of the device controller."""

    def __init__(
        self, kube: Kube, devices: Cache, statuses: Cache, placement: DevicePlacement, *, interval_s: float
    ) -> None:
        self._kube = kube
        self._devices = devices
        self._statuses = statuses
        self._placement = placement
        self._interval_s = interval_s
        self._slots: dict[Key, _Slot] = {}
        self._wake = asyncio.Event()
        self._rng = random.Random()

    def submit(self, key: Key, change: StatusChange, confirm: Confirm | None = None) -> None:
        """Bring `change` into the DeviceStatus of the device `key`, then call `confirm`, with an error if that cannot be."""
        slot = self._slots.setdefault(key, _Slot())
        slot.change = slot.change.then(change)
        slot.waiting = True
        if confirm is not None:
            slot.confirms.append(confirm)
            del slot.confirms[:-MAX_WAITING]
        self._wake.set()

    def forget(self, key: Key) -> None:
        """The device is gone."""
        slot = self._slots.get(key)
        if slot is not None and not slot.busy:
            del self._slots[key]
            # Its edge holds the next reports back until these are confirmed, also those of a device made anew.
            _finish(slot.confirms, _Gone("the device is gone"))

    async def run(self) -> None:
        width = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                now = clock.monotonic()
                due: float | None = None
                for key, slot in list(self._slots.items()):
                    if not slot.waiting or slot.busy:
                        continue
                    if slot.not_before <= now:
                        slot.busy = True
                        group.create_task(self._write(key, slot, width), name=f"status {key[0]}/{key[1]}")
                    else:
                        due = slot.not_before if due is None else min(due, slot.not_before)
                self._wake.clear()
                try:
                    async with asyncio.timeout(None if due is None else max(0.0, due - clock.monotonic())):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _write(self, key: Key, slot: _Slot, width: asyncio.Semaphore) -> None:
        change, confirms = slot.change, slot.confirms
        slot.change, slot.confirms, slot.waiting = StatusChange(), [], False
        slot.not_before = clock.monotonic() + self._interval_s
        try:
            async with width:
                if not await self._store(key, slot, change):
                    # nothing was asked of the API, so the next report need not wait
                    slot.not_before = 0.0
        except (Unavailable, Conflict) as error:
            log.info("Cannot write the status of device %s/%s now: %s", *key, error)
            slot.change = change.then(slot.change)
            slot.confirms = [*confirms, *slot.confirms][-MAX_WAITING:]
            slot.waiting = True
            asked_s = error.retry_after_s if isinstance(error, ApiUnavailable) else None
            slot.not_before = clock.monotonic() + max(slot.backoff.next_s(self._rng), asked_s or 0.0)
        except SkerryError as error:
            level = logging.INFO if isinstance(error, _Gone) else logging.WARNING
            log.log(level, "Cannot write the status of device %s/%s: %s", *key, error)
            _finish(confirms, error)
        except Exception:
            # the boundary of one device (P9): sent again the report would meet the same fault, so it is finished with
            log.exception("Cannot write the status of device %s/%s", *key)
            _finish(confirms, _Fault("cloudcore could not write it: see its log"))
        else:
            slot.backoff.reset()
            _finish(confirms, None)
        finally:
            slot.busy = False
            if self._devices.get(*key) is None and not slot.waiting:
                self._slots.pop(key, None)
            self._wake.set()

    async def _store(self, key: Key, slot: _Slot, change: StatusChange) -> bool:
        """Returns whether the API was written to.  Raises SkerryError; _Gone: there is nothing to write to."""
        item = self._devices.get(*key)
        device = self._placement.device(*key)
        if item is None or item.deleting:
            raise _Gone("the device is gone")
        held = self._held(key, slot)
        before = _status(held)
        if device is None:
            # the Device itself cannot be read: only what is wrong with it can be said
            after = apply(before, change, Device(), clock.rfc3339())
            after = msgspec.structs.replace(after, twins=before.twins)
        else:
            after = apply(before, change, device, clock.rfc3339())
        if held is None:
            try:
                slot.written = await self._kube.create(DEVICESTATUS, creation(item, after), item.namespace)
            except ApiExists as error:
                slot.written = await self._kube.get(DEVICESTATUS, item.name, item.namespace)
                raise Unavailable("somebody else made it at the same time") from error
            return True
        body = patch(before, after)
        if body is None:
            return False
        try:
            slot.written = await self._kube.patch(DEVICESTATUS, item.name, body, item.namespace)
        except ApiNotFound as error:
            slot.written = None
            raise Unavailable("it was deleted meanwhile") from error
        return True

    def _held(self, key: Key, slot: _Slot) -> Object | None:
        """The newest known state: the cache's, unless we wrote since."""
        cached = self._statuses.get(*key)
        written = slot.written
        if written is None or (cached is not None and cached.number >= written.number):
            slot.written = None
            return cached
        return written


def _status(held: Object | None) -> DeviceStatusStatus:
    if held is None:
        return DeviceStatusStatus()
    try:
        return decode_status(held.raw).status
    except ProtocolError as error:
        log.warning("The DeviceStatus %s/%s cannot be read and is written anew: %s", *held.key, error)
        return DeviceStatusStatus()
