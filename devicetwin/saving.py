"""The rows of devices and mappers on the disk: read at the start, written at once or in company, and written last at the stop.

What may be lost in a power cut: readings of the last `READINGS_S`, which devices report again.  What may not: desired values
set at the edge, membership.  A row that says so tells the next start that all readings were saved."""

import asyncio
import logging
from typing import Any

import msgspec
from msgspec.structs import replace

from beehive.apis import devices as api
from beehive.apis.decode import ObjectError
from beehive.errors import SkerryError
from devicetwin import documents, twin
from devicetwin.known import Known
from devicetwin.mapperlink import MapperInfo
from devicetwin.notes import SAVE, Notes
from devicetwin.ports import TwinStore

log = logging.getLogger(__name__)

READINGS_S = 300.0  # rows of which only readings changed are saved together, this often: a flash card wears out by the row
UNSAVED = 1_000_000  # more readings of one property than come in that time
STOPPED = "stopped"  # the kind and key of the row that says so: all readings were saved
LAST_S = 2.0  # how long a stop may take for what was not saved yet


class Saving:
    def __init__(self, known: Known, store: TwinStore, notes: Notes) -> None:
        self._known = known
        self._store = store
        self._notes = notes
        self._late: set[str] = set()  # devices of which only readings changed since their row was saved

    async def load(self) -> list[MapperInfo]:
        """Fill the devices, models and records with what is stored; the mappers that were registered.

        What cannot be read is logged and left out.  Raises: SkerryError (the disk)."""
        await self._load_objects()
        await self._load_records()
        return await self._load_mappers()

    async def _load_objects(self) -> None:
        for kind, decoder, into in (
            ("devicemodel", api.decode_model, self._known.models),
            ("device", api.decode_device, self._known.devices),
        ):
            for key, value in await self._store.load(kind):
                try:
                    found: Any = decoder(value)
                except ObjectError as error:
                    log.error("Cannot use the stored %s %s: %s", kind, key, error)
                    continue
                into[found.id] = found

    async def _load_records(self) -> None:
        records = self._known.records
        for key, value in await self._store.load("twin"):
            try:
                record = documents.read_record(value)
                # readings are saved now and then only: what was counted since must not be counted again
                records[key] = replace(record, twins=twin.skip(record.twins, UNSAVED))
                self._notes.add(key, SAVE)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                log.error("Cannot use the stored twin %s, starting anew: %s", key, error)
        if await self._store.load(STOPPED):
            await self._store.drop(STOPPED, STOPPED)
        else:
            self._known.unsure.update(records)

    async def _load_mappers(self) -> list[MapperInfo]:
        found = []
        for key, value in await self._store.load("mapper"):
            try:
                found.append(msgspec.json.decode(value, type=MapperInfo))
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                log.error("Cannot use the stored mapper %s: %s", key, error)
        return found

    async def mapper(self, info: MapperInfo) -> None:
        """Returns when it is stored.  Raises: SkerryError."""
        await self._store.save("mapper", f"mappers/{info.name}", msgspec.json.encode(info))

    def later(self, id_: str) -> None:
        """Only readings of the device changed: its row is saved with those of others."""
        self._late.add(id_)

    async def save(self, id_: str) -> None:
        """Make a device's row what its record is now; a device without a record has none.  Raises: SkerryError."""
        record = self._known.records.get(id_)
        late = id_ in self._late
        self._late.discard(id_)
        if record is None:
            await self._store.drop("twin", id_)
            return
        try:
            await self._store.save("twin", id_, documents.write_record(record))
        except BaseException:
            if late:
                self._late.add(id_)
            raise

    async def run(self) -> None:
        """Save the rows whose readings changed, all together.  Never returns."""
        while True:
            await asyncio.sleep(READINGS_S)
            for id_ in self._late:
                self._notes.add(id_, SAVE)

    async def last(self) -> None:
        """Save what was not yet, in the time that a stop has."""
        try:
            async with asyncio.timeout(LAST_S), asyncio.TaskGroup() as group:
                for id_ in list(self._late):
                    if id_ in self._known.records:
                        group.create_task(self.save(id_))
            if not self._known.unsure:
                await self._store.save(STOPPED, STOPPED, b"1")
        except* (TimeoutError, SkerryError) as errors:
            log.warning("Stopping without the last readings on the disk: %s", errors.exceptions[0])
