"""Which mapper has which device, and what each should know of its devices: the `Host` of the DMI.

Whoever changes something about a device calls `look`, and its mapper is told if what it confirmed last is not how it is."""

import asyncio
import logging
import random
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from beehive._generated import dmi_pb2 as pb
from beehive.apis.devices import DeviceModel
from devicetwin import membership
from devicetwin.assign import ANNOTATION, Need, assign
from devicetwin.changes import Changes
from devicetwin.dmi import Dmi
from devicetwin.dmi_convert import digest, to_device, to_model
from devicetwin.known import Known
from devicetwin.mapperlink import Leave, MapperInfo, Tell
from devicetwin.notes import SAVE, TWIN, Notes
from devicetwin.ports import Clock
from devicetwin.reports import Reports
from devicetwin.saving import Saving
from devicetwin.twin import Reading

log = logging.getLogger(__name__)


class Dispatch:
    """dmi_dir: where `dmi.sock` is made, with `socket_mode`."""

    def __init__(
        self,
        known: Known,
        *,
        notes: Notes,
        changes: Changes,
        reports: Reports,
        saving: Saving,
        clock: Clock,
        dmi_dir: Path,
        socket_mode: int,
        rng: random.Random,
        loaded: asyncio.Event,
    ) -> None:
        self._known = known
        self._notes = notes
        self._changes = changes
        self._reports = reports
        self._saving = saving
        self._clock = clock
        self._loaded = loaded
        self.dmi = Dmi(dmi_dir, self, rng=rng, mode=socket_mode)

    # --- who runs what

    def reassign(self) -> None:
        """Decide which mapper runs which device, and have the mappers concerned looked at."""
        needs = {
            id_: Need(
                protocol=device.spec.protocol.protocol_name,
                mapper=device.metadata.annotations.get(ANNOTATION, ""),
            )
            for id_, device in self._known.devices.items()
        }
        before = self._known.owner
        after = self._known.owner = assign(needs, self.dmi.candidates(), before)
        for id_ in {*before, *after}:
            if before.get(id_) != after.get(id_):
                self.dmi.look_at(before.get(id_, ""), id_)
                self.look(id_)

    def look(self, id_: str) -> None:
        """Have the device's mapper told, if what it was told last is not how it is."""
        mapper = self._known.owner.get(id_, "")
        want = self.tell(mapper, id_)
        record = self._known.records.get(id_)
        if not isinstance(want, Tell) or record is None or record.delivered != (mapper, want.digest):
            self.dmi.look_at(mapper, id_)

    def model_changed(self, id_: str) -> None:
        """Have the mappers told that were given this model; its devices are looked at by whoever calls this."""
        self.dmi.model_changed(id_)

    def model_gone(self, model: DeviceModel) -> None:
        """Have the mappers told that may have this model.  Devices that need it go on as they are."""
        self.dmi.model_gone(model.id, model.spec.protocol)

    def is_served(self, id_: str) -> bool:
        """Whether a mapper that answers has the device."""
        link = self.dmi.links.get(self._known.owner.get(id_, ""))
        return link is not None and link.alive

    def is_delivered(self, id_: str) -> bool:
        """Whether the mapper has confirmed the device as it is now."""
        want = self.tell(self._known.owner.get(id_, ""), id_)
        return isinstance(want, Tell) and self._known.records[id_].delivered[1] == want.digest

    def needs(self) -> list[dict[str, Any]]:
        """Which drivers the devices of this node need: protocol, how many devices, and the mappers that serve it now."""
        counts: dict[str, int] = {}
        for device in self._known.devices.values():
            if device.metadata.annotations.get(ANNOTATION):
                continue  # bound to a mapper that somebody else runs
            protocol = device.spec.protocol.protocol_name
            counts[protocol] = counts.get(protocol, 0) + 1
        return [
            {
                "protocol": protocol,
                "devices": count,
                "mappers": [
                    c.name
                    for c in self.dmi.candidates()
                    if c.protocol == protocol and c.alive and c.callbacks
                ],
            }
            for protocol, count in sorted(counts.items())
            if protocol
        ]

    # --- the Host of devicetwin.dmi

    def tell(self, mapper: str, id_: str) -> Tell | Leave | None:
        known = self._known
        if known.owner.get(id_) != mapper:
            return None
        device = known.good.get(id_)
        stored = known.devices.get(id_)
        if stored is None:
            return None
        model = known.models.get(stored.model_id)
        if device is None or model is None or any(p.blocking for p in known.blocked.get(id_, ())):
            return Leave()
        record = known.records[id_]
        wishes = {n: t.expected.value for n, t in record.twins.items() if t.expected is not None}
        as_device, as_model = to_device(device, wishes), to_model(model)
        return Tell(
            device=as_device,
            model=as_model,
            digest=digest(as_device, as_model),
            known=record.delivered[0] == mapper,
        )

    async def telling(self, mapper: str, id_: str) -> None:
        # A call whose answer is lost may have been heard.  Were the former state still noted as delivered, a wish that goes
        # back to it would not be told after a restart.
        record = self._known.records.get(id_)
        if record is None or record.delivered[0] != mapper:
            return
        self._known.records[id_] = replace(record, delivered=(mapper, ""))
        self._notes.add(id_, SAVE)
        await self._notes.flush(id_)

    def told(self, mapper: str, id_: str, digest: str) -> None:
        record = self._known.records.get(id_)
        if not digest and self._known.left.get(id_) == mapper:
            del self._known.left[id_]
        if record is None:
            return
        if digest:
            delivered = (mapper, digest)
            self._changes.refusal(id_, "", None)
        elif record.delivered[0] == mapper:
            delivered = ("", "")
        else:
            return
        if record.delivered != delivered:
            self._known.records[id_] = replace(record, delivered=delivered)
            self._notes.add(id_, SAVE)

    def model(self, id_: str) -> pb.DeviceModel | None:
        model = self._known.models.get(id_)
        return to_model(model) if model is not None else None

    def refused(self, mapper: str, id_: str, text: str) -> None:
        self._changes.refusal(id_, "", f"mapper {mapper} does not take the device: {text}")

    async def registered(self, info: MapperInfo) -> list[Tell]:
        await self._loaded.wait()
        await self._saving.mapper(info)
        self._known.left = {id_: mapper for id_, mapper in self._known.left.items() if mapper != info.name}
        self.reassign()
        if not info.callbacks:
            return []
        tells: list[Tell] = []
        for id_, owner in list(self._known.owner.items()):
            tell = self.tell(info.name, id_) if owner == info.name else None
            if isinstance(tell, Tell):
                self._known.records[id_] = membership.anew(self._known.records[id_])
                self._notes.add(id_, TWIN)  # without what was wrong while nothing served it
                tells.append(tell)
                self.told(info.name, id_, tell.digest)
        return tells

    def protocol_of(self, id_: str) -> str | None:
        return self._known.protocol_of(id_)

    def reported(self, id_: str, read: list[Reading]) -> dict[str, str]:
        return self._reports.reported(id_, read)

    def state_reported(self, id_: str, state: str) -> bool:
        return self._reports.state_reported(id_, state)

    def alive_changed(self, mapper: str) -> None:
        known = self._known
        alive = self.dmi.links[mapper].alive
        for id_ in [i for i, owner in known.owner.items() if owner == mapper]:
            if id_ in known.records:
                self._notes.add(id_, TWIN)  # with what is wrong, or is no more
                if not alive:
                    record, tell = membership.lost(known.records[id_], self._clock.wall_ms())
                    self._changes.set_state(id_, record, tell=tell)
        self.reassign()
