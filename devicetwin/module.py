"""The part of edgecore that keeps devices' twins in step with the cloud, with mappers and with local clients.

It holds what is known of this node's devices (`known`).  Everything that comes in (a message of the cloud, a mapper's report,
an MQTT request) changes that at once, by the pure functions next door, and leaves notes of what is to follow: rows to save and
messages to send (one per device and `COALESCE_S`, newest wins), MQTT texts to publish, devices that a mapper must be told about
again.  Other tasks work the notes off.  So nothing that comes in waits for a disk, the broker or a mapper, except where its
answer means "stored".

Here is what the cloud says and hears; each other way in or out has a module of its own: `dispatch` (mappers), `reports` (what
devices say), `requests` (MQTT clients), `calls` (methods), `saving` (the disk), `presence` (plugged hardware), `undriven`
(what is said of drivers); `silence` and `anomalies` look at the time."""

import asyncio
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from beehive.apis import devices as api
from beehive.apis import twins as wire
from beehive.apis.decode import ObjectError, decode
from beehive.errors import ProtocolError
from beehive.message import Group, Message, Op, Source, new
from devicetwin import documents, membership, twin
from devicetwin.anomalies import Anomalies
from devicetwin.calls import Calls
from devicetwin.changes import Changes
from devicetwin.dispatch import Dispatch
from devicetwin.errors import TwinError
from devicetwin.known import Known, property_at
from devicetwin.membership import MemberChange
from devicetwin.notes import SAVE, STATE, TWIN, Notes
from devicetwin.ports import Clock, Publisher, TwinStore, Uplink
from devicetwin.presence import Presence
from devicetwin.reports import Reports
from devicetwin.requests import Requests
from devicetwin.saving import Saving
from devicetwin.silence import Silence
from devicetwin.texts import Texts
from devicetwin.undriven import Undriven

log = logging.getLogger(__name__)

COALESCE_S = 0.1  # at most one row and one message per device in this time; the first goes at once


class DeviceTwin:
    """Devices of this node.  `run` is a part for supervise; the `on_` methods may be called at any time after construction.

    store, uplink, publisher: see ports.  publisher may be None: then there is no MQTT.  dmi_dir: where `dmi.sock` is made."""

    def __init__(
        self,
        *,
        node_name: str,
        store: TwinStore,
        uplink: Uplink,
        publisher: Publisher | None,
        dmi_dir: Path,
        clock: Clock,
        rng: random.Random | None = None,
        socket_mode: int = 0o660,
    ) -> None:
        self._node = node_name
        self._uplink = uplink
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self.loaded = asyncio.Event()
        self._apart: dict[
            str, Mapping[str, str]
        ] = {}  # what was told of a device's problems without its readings
        self.known = known = Known()
        # A wish that was taken over is saved, and the reading that answers it comes in the next moment.
        self.notes = notes = Notes(self._work_off, clock, pace_s=COALESCE_S, quiet=SAVE)
        self.texts = texts = Texts(publisher)
        self.saving = Saving(known, store, notes)
        self._changes = changes = Changes(
            known,
            notes=notes,
            texts=texts,
            saving=self.saving,
            clock=clock,
            on_wish=lambda id_: self.dispatch.look(id_),
        )
        self._anomalies = Anomalies(notes=notes, texts=texts, clock=clock)
        self._silence = Silence(known, changes, clock)
        self.reports = Reports(known, changes, anomalies=self._anomalies, silence=self._silence, clock=clock)
        self._presence = Presence(known, changes, self.reports, clock)
        self.dispatch = Dispatch(
            known,
            notes=notes,
            changes=changes,
            reports=self.reports,
            saving=self.saving,
            clock=clock,
            dmi_dir=dmi_dir,
            socket_mode=socket_mode,
            rng=rng or random.Random(),
            loaded=self.loaded,
        )
        self.dmi = self.dispatch.dmi
        self._undriven = Undriven(known, notes, self.dispatch.is_served)
        self._calls = Calls(known, self.dmi, self._answer_call)
        self._requests = Requests(
            known,
            node_name=node_name,
            notes=notes,
            texts=texts,
            changes=changes,
            reports=self.reports,
            anomalies=self._anomalies,
            clock=clock,
        )

    # --- life

    async def run(self) -> None:
        """Load what is stored, then serve mappers and work off what is due.  Never returns."""
        await self.load()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self.dmi.run(), name="dmi")
                group.create_task(self.notes.run(), name="twin flush")
                group.create_task(self.saving.run(), name="twin save")
                group.create_task(self._silence.run(), name="twin silence")
                group.create_task(self._anomalies.run(), name="anomalies")
                if self.texts.heard:
                    group.create_task(self.texts.run(), name="twin publish")
        finally:
            await self.saving.last()

    async def load(self) -> None:
        """Take over what an earlier process stored; `run` does it first of all."""
        known = self.known
        for info in await self.saving.load():
            self.dmi.restore(info)
        for id_, record in list(known.records.items()):
            if id_ in known.devices or record.member:
                known.owner[id_] = record.delivered[0]
            else:  # its object went while this process was down
                del known.records[id_]
                self.notes.add(id_, SAVE)
        for id_ in list(known.devices):
            try:
                self._object_stored(id_)
            except Exception:
                # the boundary of one device (P9): what is stored is met at each start again
                log.exception("Cannot use the stored device %s", id_)
                del known.devices[id_]
        self.dispatch.reassign()
        self.loaded.set()

    # --- from the cloud

    async def on_message(self, message: Message) -> None:
        """Take one message of the groups `resource` (after the host stored the object) or `twin`.

        Raises: nothing for bad content; it is logged and the devices stay as they are."""
        await self.loaded.wait()
        resource = message.route.resource
        try:
            if message.route.group == Group.TWIN:
                await self._on_twin_message(resource, message)
            else:
                self._on_object(resource, message)
        except ProtocolError as error:
            log.error("Cannot use message %s about %s: %s", message.id, resource[:256], error)

    def _on_object(self, resource: str, message: Message) -> None:
        parts = resource.split("/")
        if len(parts) != 3 or parts[1] not in ("device", "devicemodel"):
            log.debug("! not about a device: %s", resource[:256])
            return
        id_ = f"{parts[0]}/{parts[2]}"
        deleted = message.route.operation == Op.DELETE
        if parts[1] == "devicemodel":
            gone = None
            if deleted:
                gone = self.known.models.pop(id_, None)
            else:
                self.known.models[id_] = api.decode_model(bytes(message.content))
                self.dispatch.model_changed(id_)
            for device in [d for d in self.known.devices.values() if d.model_id == id_]:
                self._object_stored(device.id)
            self.dispatch.reassign()
            if gone is not None:
                self.dispatch.model_gone(gone)
        elif deleted:
            self._object_deleted(id_)
        else:
            device = api.decode_device(bytes(message.content))
            if device.id != id_:
                raise ObjectError(f"the message is about {id_}, its content about {device.id}")
            before = self.known.devices.get(id_)
            if before is not None and before.metadata.uid != device.metadata.uid:
                self._object_deleted(id_)  # another device of that name: it has nothing of the one before
            self.known.devices[id_] = device
            self._object_stored(id_)
            self.dispatch.reassign()

    async def _on_twin_message(self, resource: str, message: Message) -> None:
        if "membership/detail" in resource:
            detail = decode(message.text(), wire.MembershipDetail)
            await self._apply_members(
                membership.detail(self.known.records, self.known.devices, detail.devices)
            )
        elif resource.endswith("membership"):
            update = decode(message.text(), wire.MembershipUpdate)
            await self._apply_members(
                membership.update(
                    self.known.records,
                    self.known.devices,
                    added=update.added_devices or (),
                    removed=update.removed_devices or (),
                )
            )
        elif resource.endswith("/twin/cloud_updated"):
            id_ = "/".join(resource.split("/")[-4:-2])
            await self._cloud_updated(id_, message.text().encode())
        elif resource.endswith(f"/{wire.CALL}"):
            id_ = "/".join(resource.split("/")[-3:-1])
            call = decode(message.text(), wire.MethodCall)
            assert self._group is not None, "messages are taken after the start"
            self._group.create_task(self._calls.for_cloud(id_, call), name=f"call {call.id}")
        # Confirmations (a response OK to a report) are the outbox's business.

    async def on_connected(self) -> None:
        """The link to the cloud is up: say again how everything is, and ask which devices are ours."""
        await self.loaded.wait()
        for id_, record in self.known.records.items():
            sure = record.twins and id_ not in self.known.unsure
            self.notes.add(id_, (TWIN if sure else 0) | (STATE if record.state else 0))
        query = wire.MembershipQuery(
            event_id=str(uuid4()), group_id=self._node, timestamp=self._clock.wall_ms()
        )
        await self._send(
            "membership/detail", msgspec.json.encode(query), op=Op.GET, coalesce="membership/detail"
        )

    # --- objects and members

    def _object_stored(self, id_: str) -> None:
        """A Device or its model is new or different: find out what of it is good, and what is wished."""
        device = self.known.devices[id_]
        description = device.metadata.labels.get("description", "")
        self._members(membership.object_stored(self.known.records, id_, description))
        if (mapper := self.known.left.pop(id_, None)) is not None:
            # it still runs the one before: KubeEdge's mappers take no new configuration with a registration then
            self.known.records[id_] = replace(self.known.records[id_], delivered=(mapper, ""))
        model = self.known.models.get(device.model_id)
        if model is None:
            problems = api.check_device(device, None)
        else:
            good, problems = api.deliverable(device, model)
            if not any(p.blocking for p in problems):
                self.known.good[id_] = good
                record = self.known.records[id_]
                bad = {property_at(device, p.path) for p in problems if p.path.endswith(".desired.value")}
                change = twin.desire(
                    record.twins, good, self.known.rows(id_), self._clock.wall_ms(), keep=bad
                )
                # The cloud knows its own wish; what it waits for is the reading that follows, which must not stand in line
                # behind a report without it.
                self._changes.adopt(id_, change, tell_cloud=False)
                if change.changed:
                    self._changes.announce(id_, change, event_id=str(uuid4()), result=False)
                self._anomalies.take(id_, good)
        if problems != self.known.blocked.get(id_, []):
            for problem in problems:
                log.warning("Device %s: %s", id_, problem)
        self.known.blocked[id_] = problems
        self._presence.judge(id_)
        self._undriven.judge(id_)
        self.dispatch.look(id_)

    def _object_deleted(self, id_: str) -> None:
        if self.known.devices.pop(id_, None) is None and id_ not in self.known.records:
            return
        if (record := self.known.records.get(id_)) is not None and record.delivered[0]:
            self.known.left[id_] = record.delivered[0]
        self.known.good.pop(id_, None)
        self.known.blocked.pop(id_, None)
        self._members(membership.object_deleted(self.known.records, id_))
        self._anomalies.forget(id_)
        self.dispatch.look(id_)
        self.known.owner.pop(id_, None)
        log.info("Device %s is gone", id_)

    def _members(self, change: MemberChange) -> None:
        self.known.records = change.records
        now = self._clock.wall_ms()
        topic = documents.membership_topic(self._node, "updated")
        for id_, record in change.added.items():
            log.info("Device %s belongs to this node", id_)
            self.notes.add(id_, SAVE)
            self.texts.publish(topic, documents.membership_updated(str(uuid4()), now, added=(id_, record)))
        for id_, record in change.removed.items():
            self.known.forget(id_)
            self._silence.forget(id_)
            self.notes.add(id_, SAVE)
            self.texts.publish(topic, documents.membership_updated(str(uuid4()), now, removed=(id_, record)))

    async def _apply_members(self, change: MemberChange) -> None:
        """A membership message is sent once and never again, so it is stored before this returns."""
        before = self.known.records
        self._members(change)
        touched = {i for i in {*before, *change.records} if before.get(i) != change.records.get(i)}
        for id_ in touched:
            self.notes.add(id_, SAVE)
        async with asyncio.TaskGroup() as group:
            for id_ in touched:
                group.create_task(self.notes.flush(id_))

    async def _cloud_updated(self, id_: str, payload: bytes) -> None:
        record = self.known.records.get(id_)
        if record is None:
            log.warning("The cloud updates the twin of %s, which is not of this node", id_[:256])
            return
        try:
            update = documents.read_update(payload)
        except TwinError as error:
            raise ObjectError(str(error)) from error
        change = twin.cloud_update(
            record.twins, update.twin or {}, self.known.rows(id_), self._clock.wall_ms()
        )
        if change.refused:
            self.known.unsure.discard(id_)
            self.notes.add(id_, TWIN)  # so that the cloud can rebase
        self._changes.adopt(id_, change, tell_cloud=False)
        if change.changed:
            self._changes.announce(id_, change, event_id=update.event_id, result=False)
        await self.notes.flush(id_)

    # --- the disk and the cloud

    async def _work_off(self, id_: str, what: int) -> None:
        """Save one device's row and send what is to be said of it, newest state of both."""
        record = self.known.records.get(id_)
        if record is None or what & SAVE:
            await self.saving.save(id_)
        if record is None:
            self._apart.pop(id_, None)
            return
        now = self._clock.wall_ms()
        if what & TWIN:
            # What is wrong with the spec the cloud sees by itself; what was refused here it cannot.
            problems = self._undriven.problems(id_, self.known.bad.get(id_, {}))
            anomalies = self._anomalies.standing(id_)
            sure = id_ not in self.known.unsure
            if not sure or self._apart.get(id_, problems) != problems:
                # Readings that may be older than what the cloud has, or than what still waits to go up, do not take its
                # place; and what once was told beside them has to follow them.
                self._apart[id_] = problems
                content = documents.edge_updated(str(uuid4()), now, {}, problems, anomalies)
                await self._send(f"device/{id_}/twin/edge_updated", content, coalesce=f"problems/{id_}")
            if sure:
                content = documents.edge_updated(str(uuid4()), now, record.twins, problems, anomalies)
                await self._send(f"device/{id_}/twin/edge_updated", content, coalesce=f"twin/{id_}")
        if what & STATE:
            # KubeEdge's edge sends this one as text that holds JSON.
            text = msgspec.json.encode(documents.state_result(str(uuid4()), now, record).decode())
            await self._send(f"device/{id_}/state/update", text, coalesce=f"devicestate/{id_}")

    async def _send(self, resource: str, content: bytes, *, coalesce: str, op: str = Op.UPDATE) -> None:
        message = new(
            source=Source.TWIN, group=Group.RESOURCE, operation=op, resource=resource, content=content
        )
        await self._uplink.send(message, coalesce=coalesce)

    # --- the other ways in

    async def on_mqtt(self, topic: str, payload: bytes) -> None:
        """Take a request of a local client.  Topics that are not requests about devices are ignored."""
        await self.loaded.wait()
        await self._requests.take(topic, payload)

    async def call(self, id_: str, method: str, values: Mapping[str, str], timeout_s: float) -> str:
        """Do a method of a device by its mapper, once; what it returned.  Raises: SkerryError that says why not."""
        return await self._calls.call(id_, method, values, timeout_s)

    async def _answer_call(self, where: str, content: bytes, coalesce: str) -> None:
        await self._send(where, content, coalesce=coalesce)

    def plugged(self, present: frozenset[str]) -> None:
        """The candidates whose hardware is there.  A device whose is not is offline, whatever its mapper believes; of one
        that is back its mapper speaks, or nobody does."""
        self._presence.plugged(present)

    def undriven(self, faults: Mapping[str, str]) -> None:
        """What whoever starts mappers says of their drivers: protocol -> why nothing serves it."""
        self._undriven.take(faults)

    # --- questions

    def found(self) -> Mapping[str, str]:
        """The devices that were made of found hardware: id -> name of the candidate."""
        return self.known.found()

    def needs(self) -> list[dict[str, Any]]:
        """Which drivers the devices of this node need: protocol, how many devices, and the mappers that serve it now."""
        return self.dispatch.needs()

    def devices(self) -> list[dict[str, Any]]:
        """All devices of the node as plain values, sorted by id."""
        return [
            self.known.snapshot(
                id_,
                delivered=self.dispatch.is_delivered(id_),
                problems=self._undriven.problems(id_, self.known.problems(id_)),
            )
            for id_ in sorted(self.known.records)
        ]

    def history(self, id_: str) -> Mapping[str, list[tuple[int, str]]]:
        """The last readings of each property since this process began: (ms since 1970, value), oldest first."""
        return self.known.history(id_)

    def dropped(self) -> dict[tuple[str, str], int]:
        """What mappers and local clients said, or were to hear, and was not taken: (way, reason) -> how often."""
        mqtt = {**self.texts.drops(), "refused": self._requests.refused}
        counts = {
            ("dmi", "refused"): self.dmi.counts["refused"],
            **{("mqtt", reason): n for reason, n in mqtt.items()},
        }
        return {key: n for key, n in counts.items() if n}
