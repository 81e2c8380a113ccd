"""The part of edgecore that keeps devices' twins in step with the cloud, with mappers and with local clients.

It holds the Device and DeviceModel objects that the host stores, and one `Record` per device.  Everything that comes in (a
message of the cloud, a mapper's report, an MQTT request) changes these at once, by the pure functions next door, and leaves
notes of what is to follow: rows to save and messages to send (one per device and `COALESCE_S`, newest wins), MQTT texts to
publish, devices that a mapper must be told about again.  Other tasks work the notes off.  So nothing that comes in waits for
a disk, the broker or a mapper, except where its answer means "stored".

What may be lost in a power cut: readings of the last `READINGS_S`, which devices report again.  What may not: desired values
set at the edge, membership."""

import asyncio
import logging
import random
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from beehive._generated import methods_pb2 as methods
from beehive.apis import devices as api
from beehive.apis import twins as wire
from beehive.apis.decode import ObjectError, decode
from beehive.apis.devices import Device, DeviceModel, ModelProperty, Problem
from beehive.apis.hardware import CANDIDATE_ANNOTATION
from beehive.errors import NotFound, ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import Group, Message, Op, Source, new
from devicetwin import anomaly, documents, membership, twin
from devicetwin.anomaly import Watch
from devicetwin.assign import ANNOTATION, Need, assign
from devicetwin.dmi import Dmi, Leave, MapperInfo, Tell
from devicetwin.dmi_convert import digest, to_device, to_model
from devicetwin.documents import Request
from devicetwin.errors import NOT_FOUND, TwinError
from devicetwin.membership import MemberChange, Record
from devicetwin.notes import Notes
from devicetwin.ports import Clock, Publisher, TwinStore, Uplink
from devicetwin.twin import Change, Reading

log = logging.getLogger(__name__)

COALESCE_S = 0.1  # at most one row and one message per device in this time; the first goes at once
READINGS_S = 300.0  # rows of which only readings changed are saved together, this often: a flash card wears out by the row
UNSAVED = 1_000_000  # more readings of one property than come in that time
STOPPED = "stopped"  # the kind and key of the row that says so: all readings were saved
LAST_S = 2.0  # how long a stop may take for what was not saved yet
MAX_PUBLISH = 1000  # MQTT texts waiting; the oldest go first
MAX_CALLS = 64
MAX_CALL_S = 300.0
MAX_RESULT = 64 * 1024  # characters
SILENCE_LOOK_S = 5.0
HISTORY = 32  # readings kept in memory per property
WATCH_S = 1.0  # how often is looked whether readings are missing

# What a note says is to be done for a device.
SAVE, TWIN, STATE = 1, 2, 4


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
        self._store = store
        self._uplink = uplink
        self._publisher = publisher
        self._clock = clock
        self.dmi = Dmi(dmi_dir, self, rng=rng or random.Random(), mode=socket_mode)
        self._devices: dict[str, Device] = {}  # as stored
        self._models: dict[str, DeviceModel] = {}
        self._records: dict[str, Record] = {}
        self._good: dict[str, Device] = {}  # what may be told to mappers: merged, without what is bad
        self._blocked: dict[str, list[Problem]] = {}
        self._bad: dict[str, dict[str, str]] = {}  # refused values now, by device and property
        self._owner: dict[str, str] = {}
        self._left: dict[str, str] = {}  # devices that are gone -> the mapper that was not told yet
        self._history: dict[tuple[str, str], deque[tuple[int, str]]] = {}
        # A wish that was taken over is saved, and the reading that answers it comes in the next moment.
        self._notes = Notes(self._work_off, clock, pace_s=COALESCE_S, quiet=SAVE)
        self._late: set[str] = set()  # devices of which only readings changed since their row was saved
        self._heard: dict[str, float] = {}  # when a device spoke last, be it by its mapper
        self._unsure: set[str] = set()
        """Devices whose stored readings may be older than what the cloud has: power was cut before they were saved."""
        self._present: frozenset[str] | None = None  # candidates whose hardware is there; None: not known
        self._calls = 0  # of methods, under way
        self._watch = Watch()
        self._watching = asyncio.Event()  # there is something to look at
        self._group: asyncio.TaskGroup | None = None
        self._texts: deque[tuple[str, bytes, int]] = deque(maxlen=MAX_PUBLISH)
        self._text = asyncio.Event()
        self._loaded = asyncio.Event()
        self.dropped_texts = 0
        self._refused_requests = 0

    # --- life

    async def run(self) -> None:
        """Load what is stored, then serve mappers and work off what is due.  Never returns."""
        await self._load()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self.dmi.run(), name="dmi")
                group.create_task(self._notes.run(), name="twin flush")
                group.create_task(self._save_late(), name="twin save")
                group.create_task(self._watch_silence(), name="twin silence")
                group.create_task(self._watch_forever(), name="anomalies")
                if self._publisher is not None:
                    group.create_task(self._publish_forever(self._publisher), name="twin publish")
        finally:
            await self._save_last()

    async def _load(self) -> None:
        for kind, decoder, into in (
            ("devicemodel", api.decode_model, self._models),
            ("device", api.decode_device, self._devices),
        ):
            for key, value in await self._store.load(kind):
                try:
                    found: Any = decoder(value)
                except ObjectError as error:
                    log.error("Cannot use the stored %s %s: %s", kind, key, error)
                    continue
                into[found.id] = found
        for key, value in await self._store.load("twin"):
            try:
                record = documents.read_record(value)
                # readings are saved now and then only: what was counted since must not be counted again
                self._records[key] = replace(record, twins=twin.skip(record.twins, UNSAVED))
                self._notes.add(key, SAVE)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                log.error("Cannot use the stored twin %s, starting anew: %s", key, error)
        if await self._store.load(STOPPED):
            await self._store.drop(STOPPED, STOPPED)
        else:
            self._unsure.update(self._records)
        for key, value in await self._store.load("mapper"):
            try:
                self.dmi.restore(msgspec.json.decode(value, type=MapperInfo))
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                log.error("Cannot use the stored mapper %s: %s", key, error)
        for id_, record in list(self._records.items()):
            if id_ in self._devices or record.member:
                self._owner[id_] = record.delivered[0]
            else:  # its object went while this process was down
                del self._records[id_]
                self._notes.add(id_, SAVE)
        for id_ in list(self._devices):
            try:
                self._object_stored(id_)
            except Exception:
                # the boundary of one device (P9): what is stored is met at each start again
                log.exception("Cannot use the stored device %s", id_)
                del self._devices[id_]
        self._reassign()
        self._loaded.set()

    # --- from the cloud

    async def on_message(self, message: Message) -> None:
        """Take one message of the groups `resource` (after the host stored the object) or `twin`.

        Raises: nothing for bad content; it is logged and the devices stay as they are."""
        await self._loaded.wait()
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
            if deleted:
                self._models.pop(id_, None)
            else:
                self._models[id_] = api.decode_model(bytes(message.content))
            for device in [d for d in self._devices.values() if d.model_id == id_]:
                self._object_stored(device.id)
            self._reassign()
        elif deleted:
            self._object_deleted(id_)
        else:
            device = api.decode_device(bytes(message.content))
            if device.id != id_:
                raise ObjectError(f"the message is about {id_}, its content about {device.id}")
            before = self._devices.get(id_)
            if before is not None and before.metadata.uid != device.metadata.uid:
                self._object_deleted(id_)  # another device of that name: it has nothing of the one before
            self._devices[id_] = device
            self._object_stored(id_)
            self._reassign()

    async def _on_twin_message(self, resource: str, message: Message) -> None:
        if "membership/detail" in resource:
            detail = decode(message.text(), wire.MembershipDetail)
            await self._apply_members(membership.detail(self._records, self._devices, detail.devices))
        elif resource.endswith("membership"):
            update = decode(message.text(), wire.MembershipUpdate)
            await self._apply_members(
                membership.update(
                    self._records,
                    self._devices,
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
            self._group.create_task(self._call_for_cloud(id_, call), name=f"call {call.id}")
        # Confirmations (a response OK to a report) are the outbox's business.

    async def on_connected(self) -> None:
        """The link to the cloud is up: say again how everything is, and ask which devices are ours."""
        await self._loaded.wait()
        for id_, record in self._records.items():
            sure = record.twins and id_ not in self._unsure
            self._notes.add(id_, (TWIN if sure else 0) | (STATE if record.state else 0))
        query = wire.MembershipQuery(event_id=_uuid(), group_id=self._node, timestamp=self._clock.wall_ms())
        await self._send(
            "membership/detail", msgspec.json.encode(query), op=Op.GET, coalesce="membership/detail"
        )

    # --- objects and members

    def _rows(self, id_: str) -> dict[str, ModelProperty]:
        """The properties a device can have; from its twins when its model is missing."""
        device = self._devices.get(id_)
        model = self._models.get(device.model_id) if device is not None else None
        if model is not None:
            return {row.name: row for row in model.spec.properties if row.type in api.TWIN_TYPES}
        if device is None:
            return {}
        record = self._records.get(id_, Record())
        return {
            n: ModelProperty(name=n, type=twin.CHECKS.get(t.type, "STRING")) for n, t in record.twins.items()
        }

    def _object_stored(self, id_: str) -> None:
        """A Device or its model is new or different: find out what of it is good, and what is wished."""
        device = self._devices[id_]
        description = device.metadata.labels.get("description", "")
        self._members(membership.object_stored(self._records, id_, description))
        if (mapper := self._left.pop(id_, None)) is not None:
            # it still runs the one before: KubeEdge's mappers take no new configuration with a registration then
            self._records[id_] = replace(self._records[id_], delivered=(mapper, ""))
        model = self._models.get(device.model_id)
        if model is None:
            problems = api.check_device(device, None)
        else:
            good, problems = api.deliverable(device, model)
            if not any(p.blocking for p in problems):
                self._good[id_] = good
                record = self._records[id_]
                bad = {_property_at(device, p.path) for p in problems if p.path.endswith(".desired.value")}
                change = twin.desire(record.twins, good, self._rows(id_), self._clock.wall_ms(), keep=bad)
                # The cloud knows its own wish; what it waits for is the reading that follows, which must not stand in line
                # behind a report without it.
                self._adopt(id_, change, tell_cloud=False)
                if change.changed:
                    self._announce(id_, change, event_id=_uuid(), result=False)
                self._watch_device(id_, good)
        if problems != self._blocked.get(id_, []):
            for problem in problems:
                log.warning("Device %s: %s", id_, problem)
        self._blocked[id_] = problems
        self._judge_presence(id_)
        self._look(id_)

    def _object_deleted(self, id_: str) -> None:
        if self._devices.pop(id_, None) is None and id_ not in self._records:
            return
        if (record := self._records.get(id_)) is not None and record.delivered[0]:
            self._left[id_] = record.delivered[0]
        self._good.pop(id_, None)
        self._blocked.pop(id_, None)
        self._members(membership.object_deleted(self._records, id_))
        self._watch.forget(id_)
        self._look(id_)
        self._owner.pop(id_, None)
        log.info("Device %s is gone", id_)

    async def call(self, id_: str, method: str, values: Mapping[str, str], timeout_s: float) -> str:
        """Do a method of a device by its mapper, once; what it returned.  Raises: SkerryError that says why not."""
        device = self._good.get(id_)
        if device is None:
            raise NotFound(f"there is no device {id_[:256]} here that can be used")
        wrong = api.check_call(device, self._rows(id_), method, values)
        if wrong:
            raise Refused(wrong)
        if self._is_absent(id_):
            raise Unavailable(f"device {id_} is not plugged in")
        link = self.dmi.links.get(self._owner.get(id_, ""))
        if link is None or not link.alive or not link.info.callbacks:
            raise Unavailable(f"no mapper runs device {id_} now")
        if self._calls >= MAX_CALLS:
            raise Unavailable(f"{MAX_CALLS} calls are under way already")
        namespace, _, name = id_.partition("/")
        request = methods.CallMethodRequest(
            deviceName=name,
            deviceNamespace=namespace,
            method=method,
            values=dict(values),
            timeoutMs=int(min(max(timeout_s, 0.001), MAX_CALL_S) * 1000),
        )
        self._calls += 1
        try:
            return await link.call_method(request)
        finally:
            self._calls -= 1

    async def _call_for_cloud(self, id_: str, call: wire.MethodCall) -> None:
        """Do a call and send its end.  It is done once: an answer that gets lost is not made good by a second call."""
        try:
            result, failed = await self.call(id_, call.method, call.values, call.timeout_ms / 1000), ""
        except SkerryError as error:
            result, failed = "", str(error)[:1024] or type(error).__name__
        log.info("Called %s of %s for the cloud: %s", call.method[:64], id_, failed or "done")
        content = wire.MethodResult(result=result[:MAX_RESULT], error=failed)
        where = f"device/{id_}/{wire.CALL}/{call.id}"
        await self._send(where, msgspec.json.encode(content), coalesce=f"call/{call.id}")

    def _members(self, change: MemberChange) -> None:
        self._records = change.records
        now = self._clock.wall_ms()
        topic = documents.membership_topic(self._node, "updated")
        for id_, record in change.added.items():
            log.info("Device %s belongs to this node", id_)
            self._notes.add(id_, SAVE)
            self._publish(topic, documents.membership_updated(_uuid(), now, added=(id_, record)))
        for id_, record in change.removed.items():
            self._bad.pop(id_, None)
            self._heard.pop(id_, None)
            for key in [k for k in self._history if k[0] == id_]:
                del self._history[key]
            self._notes.add(id_, SAVE)
            self._publish(topic, documents.membership_updated(_uuid(), now, removed=(id_, record)))

    async def _apply_members(self, change: MemberChange) -> None:
        """A membership message is sent once and never again, so it is stored before this returns."""
        before = self._records
        self._members(change)
        touched = {i for i in {*before, *change.records} if before.get(i) != change.records.get(i)}
        for id_ in touched:
            self._notes.add(id_, SAVE)
        async with asyncio.TaskGroup() as group:
            for id_ in touched:
                group.create_task(self._notes.flush(id_))

    async def _cloud_updated(self, id_: str, payload: bytes) -> None:
        record = self._records.get(id_)
        if record is None:
            log.warning("The cloud updates the twin of %s, which is not of this node", id_[:256])
            return
        try:
            update = documents.read_update(payload)
        except TwinError as error:
            raise ObjectError(str(error)) from error
        change = twin.cloud_update(record.twins, update.twin or {}, self._rows(id_), self._clock.wall_ms())
        if change.refused:
            self._notes.add(id_, TWIN)  # so that the cloud can rebase
        self._adopt(id_, change, tell_cloud=False)
        if change.changed:
            self._announce(id_, change, event_id=update.event_id, result=False)
        await self._notes.flush(id_)

    # --- what follows from a change

    def _adopt(self, id_: str, change: Change, *, tell_cloud: bool = True) -> None:
        """Take over a change of a device's twins, and note what is to be done about it."""
        self._records[id_] = replace(self._records[id_], twins=change.twins)
        if tell_cloud and id_ in self._unsure:
            # what it says may be what is stored, and yet not what the cloud heard last
            self._unsure.discard(id_)
            self._notes.add(id_, TWIN)
        if not change.changed:
            return
        for name in change.changed:
            self._remember(id_, name, change)
        # wishes are durable at once; what a device said it says again, and a flash card is not worn out by it
        known = all(before is not None for before in change.changed.values())
        if change.desired or not known:
            self._notes.add(id_, SAVE)
        else:
            self._late.add(id_)
        self._notes.add(id_, TWIN if tell_cloud else 0)
        if change.desired:
            self._look(id_)

    def _announce(self, id_: str, change: Change, *, event_id: str, result: bool) -> None:
        """Tell local clients of a change, in KubeEdge's order."""
        if self._publisher is None:
            return
        now = self._clock.wall_ms()
        if result:
            answer = documents.update_result(event_id, now, change)
            self._publish(documents.twin_topic(id_, "update/result"), answer)
        document = documents.update_document(event_id, now, change)
        if document is not None:
            self._publish(documents.twin_topic(id_, "update/document"), document)
        delta = documents.update_delta(_uuid(), now, self._records[id_].twins)
        if delta is not None:
            # A driver takes commands from it: it must not be lost between here and the broker.
            self._publish(documents.twin_topic(id_, "update/delta"), delta, qos=1)

    def _remember(self, id_: str, name: str, change: Change) -> None:
        now = change.twins.get(name)
        before = change.changed[name]
        if now is None:
            # names that come and go, as a client may make them up, must not pile up
            self._history.pop((id_, name), None)
            return
        if now.actual is None:
            return
        if before is not None and before.actual is not None and before.actual.value == now.actual.value:
            return
        line = self._history.setdefault((id_, name), deque(maxlen=HISTORY))
        line.append((now.actual.at, now.actual.value))

    def _set_state(self, id_: str, record: Record, *, tell: bool) -> None:
        old = self._records[id_]
        self._records[id_] = record
        if old.state != record.state:
            log.info("Device %s is %s", id_, record.state)
        if not tell:
            return
        # said again only so that the cloud knows the hour: not worth a write each minute and device on a flash card
        again = (old.state, old.implicit) == (record.state, record.implicit)
        self._notes.add(id_, STATE if again else SAVE | STATE)
        self._publish(
            documents.state_topic(id_), documents.state_result(_uuid(), self._clock.wall_ms(), record)
        )

    # --- readings that are possible and still not right

    def _watch_device(self, id_: str, good: Device) -> None:
        """Take the rules of a device; what was wrong by others is not any more."""
        rules = {}
        for prop in good.spec.properties:
            settings = prop.push_method.anomaly_detection if prop.push_method is not None else None
            rule = anomaly.rule_of(settings) if settings else None
            if rule is not None:
                rules[prop.name] = rule
        if self._watch.set_rules(id_, rules, self._clock.monotonic()):
            self._notes.add(id_, TWIN)
        if self._watch:
            self._watching.set()

    async def _watch_forever(self) -> None:
        while True:
            await self._watching.wait()
            while self._watch:
                self._judged(self._watch.look(self._clock.monotonic()))
                await asyncio.sleep(WATCH_S)
            self._watching.clear()

    def _judged(self, turned: Iterable[anomaly.Turned]) -> None:
        """Tell of what began and what is over: the log, local clients, the cloud."""
        for each in turned:
            verdict = each.verdict
            if each.over:
                log.info("Device %s, %s: as it should be again (%s)", each.id, each.name, verdict.kind)
            else:
                log.warning("Device %s, %s: %s: %s", each.id, each.name, verdict.kind, verdict.text)
            text = documents.anomaly(_uuid(), self._clock.wall_ms(), each)
            self._publish(documents.anomaly_topic(each.id), text, qos=1)
            self._notes.add(each.id, TWIN)

    # --- mappers (the Host of devicetwin.dmi)

    def tell(self, mapper: str, id_: str) -> Tell | Leave | None:
        if self._owner.get(id_) != mapper:
            return None
        device = self._good.get(id_)
        stored = self._devices.get(id_)
        if stored is None:
            return None
        model = self._models.get(stored.model_id)
        if device is None or model is None or any(p.blocking for p in self._blocked.get(id_, ())):
            return Leave()
        record = self._records[id_]
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
        record = self._records.get(id_)
        if record is None or record.delivered[0] != mapper:
            return
        self._records[id_] = replace(record, delivered=(mapper, ""))
        self._notes.add(id_, SAVE)
        await self._notes.flush(id_)

    def told(self, mapper: str, id_: str, digest: str) -> None:
        record = self._records.get(id_)
        if not digest and self._left.get(id_) == mapper:
            del self._left[id_]
        if record is None:
            return
        if digest:
            delivered = (mapper, digest)
            self._refusal(id_, "", None)
        elif record.delivered[0] == mapper:
            delivered = ("", "")
        else:
            return
        if record.delivered != delivered:
            self._records[id_] = replace(record, delivered=delivered)
            self._notes.add(id_, SAVE)

    def refused(self, mapper: str, id_: str, text: str) -> None:
        self._refusal(id_, "", f"mapper {mapper} does not take the device: {text}")

    def _refusal(self, id_: str, name: str, why: str | None) -> None:
        """Remember what is wrong with a value (or with the device, name ""), or that nothing is; tell the cloud when that
        changes."""
        bad = self._bad.get(id_, {})
        if why == bad.get(name):
            return
        rest = {n: text for n, text in bad.items() if n != name}
        if why is not None:
            rest[name] = why
        if rest:
            self._bad[id_] = rest
        else:
            del self._bad[id_]
        if why is not None and (name not in bad or not name):
            log.warning(
                "Device %s, %s: refused, the last good value stays: %s", id_, name or "all of it", why
            )
        self._notes.add(id_, TWIN)

    async def registered(self, info: MapperInfo) -> list[Tell]:
        await self._loaded.wait()
        await self._store.save("mapper", f"mappers/{info.name}", msgspec.json.encode(info))
        self._left = {id_: mapper for id_, mapper in self._left.items() if mapper != info.name}
        self._reassign()
        if not info.callbacks:
            return []
        tells: list[Tell] = []
        for id_, owner in list(self._owner.items()):
            tell = self.tell(info.name, id_) if owner == info.name else None
            if isinstance(tell, Tell):
                self._records[id_] = membership.anew(self._records[id_])
                tells.append(tell)
                self.told(info.name, id_, tell.digest)
        return tells

    def protocol_of(self, id_: str) -> str | None:
        device = self._devices.get(id_)
        return device.spec.protocol.protocol_name if device is not None else None

    def reported(self, id_: str, read: list[Reading]) -> dict[str, str]:
        self._heard[id_] = self._clock.monotonic()
        record = self._records[id_]
        now = self._clock.wall_ms()
        rows = self._rows(id_)
        change = twin.report(record.twins, read, rows, now)
        for reading in read:
            # What a mapper makes up as names is answered and counted, but not kept.
            if reading.name in rows:
                self._refusal(id_, reading.name, change.refused.get(reading.name))
        self._adopt(id_, change)
        if change.changed:
            self._announce(id_, change, event_id="", result=True)
        for reading in read if self._watch else ():
            if reading.reported is not None and reading.name not in change.refused:
                self._judged(
                    self._watch.heard(
                        id_, reading.name, reading.reported, self._clock.monotonic(), reading.anomaly
                    )
                )
        if len(change.refused) < len({reading.name for reading in read}) and not self._is_absent(id_):
            alive, tell = membership.heard(self._records[id_], now, self._clock.rfc3339())
            self._set_state(id_, alive, tell=tell)
        return change.refused

    def state_reported(self, id_: str, state: str) -> bool:
        if self._is_absent(id_) and state.lower() in membership.UP:
            return False  # its mapper has not noticed yet
        self._heard[id_] = self._clock.monotonic()
        record, tell = membership.set_state(
            self._records[id_], state, self._clock.wall_ms(), self._clock.rfc3339()
        )
        self._set_state(id_, record, tell=tell)
        return tell

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_LOOK_S)
            now = self._clock.monotonic()
            for id_, device in self._devices.items():
                record = self._records.get(id_)
                limit_s = membership.silence_s(device, by_mapper=bool(self._owner.get(id_)))
                if record is None or limit_s is None or record.state.lower() not in membership.UP:
                    continue
                if now - self._heard.setdefault(id_, now) > limit_s:
                    log.warning("Device %s is silent, and was to tell its state", id_)
                    lost, tell = membership.lost(record, self._clock.wall_ms())
                    self._set_state(id_, lost, tell=tell)

    def alive_changed(self, mapper: str) -> None:
        lost = not self.dmi.links[mapper].alive
        if lost:
            for id_ in [i for i, owner in self._owner.items() if owner == mapper]:
                if id_ in self._records:
                    record, tell = membership.lost(self._records[id_], self._clock.wall_ms())
                    self._set_state(id_, record, tell=tell)
        self._reassign()

    def _reassign(self) -> None:
        """Decide which mapper runs which device, and have the mappers concerned looked at."""
        needs = {
            id_: Need(
                protocol=device.spec.protocol.protocol_name,
                mapper=device.metadata.annotations.get(ANNOTATION, ""),
            )
            for id_, device in self._devices.items()
        }
        before = self._owner
        self._owner = assign(needs, self.dmi.candidates(), before)
        for id_ in {*before, *self._owner}:
            if before.get(id_) != self._owner.get(id_):
                self.dmi.look_at(before.get(id_, ""), id_)
                self._look(id_)

    def _look(self, id_: str) -> None:
        """Have the device's mapper told, if what it was told last is not how it is."""
        mapper = self._owner.get(id_, "")
        want = self.tell(mapper, id_)
        record = self._records.get(id_)
        if not isinstance(want, Tell) or record is None or record.delivered != (mapper, want.digest):
            self.dmi.look_at(mapper, id_)

    # --- MQTT

    async def on_mqtt(self, topic: str, payload: bytes) -> None:
        """Take a request of a local client.  Topics that are not requests about devices are ignored."""
        await self._loaded.wait()
        asked = documents.parse_topic(topic)
        if asked is None:
            log.debug("! no request: %s", topic[:256])
            return
        match asked.request:
            case Request.TWIN_UPDATE:
                await self._mqtt_update(asked.subject, payload)
            case Request.TWIN_GET:
                self._mqtt_get(asked.subject, payload)
            case Request.STATE_UPDATE:
                self._mqtt_state(asked.subject, payload)
            case Request.MEMBERSHIP_GET:
                self._mqtt_members(payload)
            case Request.TWIN_CLOUD_UPDATED:
                # Every local client can publish there; only the cloud may speak for the cloud.
                self._refused_requests += 1
                log.warning("A local client speaks as the cloud about %s: ignored", asked.subject[:256])

    async def _mqtt_update(self, id_: str, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.twin_topic(id_, "update/result")
        event_id = ""
        try:
            update = documents.read_update(payload)
            event_id = update.event_id
            record = self._records.get(id_)
            if record is None:
                raise TwinError(NOT_FOUND, f"Device {id_} not found while updating twin", reason="NotFound")
            change = twin.request(record.twins, update.twin or {}, self._rows(id_), now)
        except TwinError as error:
            self._refuse(topic, event_id, error)
            return
        self._adopt(id_, change)
        if change.desired:
            await self._notes.flush(id_)  # the answer means that the wish is stored
        if id_ in self._records:  # not deleted meanwhile
            self._announce(id_, change, event_id=event_id, result=True)
            for name, asked in (update.twin or {}).items() if self._watch else ():
                if asked is not None and asked.actual is not None and asked.actual.value is not None:
                    self._judged(self._watch.heard(id_, name, asked.actual.value, self._clock.monotonic()))

    def _mqtt_get(self, id_: str, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.twin_topic(id_, "get/result")
        event_id = ""
        try:
            event_id = documents.read_base(payload).event_id
            record = self._records.get(id_)
            if record is None:
                raise TwinError(NOT_FOUND, f"Device {id_} not found while getting twin", reason="NotFound")
        except TwinError as error:
            self._refuse(topic, event_id, error)
            return
        self._publish(topic, documents.get_result(event_id, now, record.twins))

    def _mqtt_state(self, id_: str, payload: bytes) -> None:
        try:
            state = documents.read_state(payload).state
        except TwinError as error:
            log.debug("! state of %s: %s", id_, error)
            self._refused_requests += 1
            return
        if id_ in self._records and membership.is_state(state):
            if not self.state_reported(id_, state):
                # nothing new for anybody else, but whoever asked waits for the answer
                result = documents.state_result(_uuid(), self._clock.wall_ms(), self._records[id_])
                self._publish(documents.state_topic(id_), result)
        else:
            self._refused_requests += 1  # KubeEdge's edge does not answer either

    def _mqtt_members(self, payload: bytes) -> None:
        now = self._clock.wall_ms()
        topic = documents.membership_topic(self._node, "get/result")
        try:
            event_id = documents.read_base(payload).event_id
        except TwinError as error:
            self._refuse(topic, "", error)
            return
        self._publish(topic, documents.membership_result(event_id, now, self._records))

    def _refuse(self, topic: str, event_id: str, error: TwinError) -> None:
        self._refused_requests += 1
        self._publish(topic, documents.error(event_id, self._clock.wall_ms(), error.code, str(error)))

    def _publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        if self._publisher is None:
            return
        if len(self._texts) == MAX_PUBLISH:
            self.dropped_texts += 1
        self._texts.append((topic, payload, qos))
        self._text.set()

    async def _publish_forever(self, publisher: Publisher) -> None:
        while True:
            await self._text.wait()
            self._text.clear()
            while self._texts:
                topic, payload, qos = self._texts.popleft()
                await publisher.publish(topic, payload, qos=qos)

    # --- the disk and the cloud

    async def _work_off(self, id_: str, what: int) -> None:
        """Save one device's row and send what is to be said of it, newest state of both."""
        record = self._records.get(id_)
        if record is None:
            self._late.discard(id_)
            await self._store.drop("twin", id_)
            return
        if what & SAVE:
            await self._save(id_, record)
        now = self._clock.wall_ms()
        if what & TWIN:
            # What is wrong with the spec the cloud sees by itself; what was refused here it cannot.
            content = documents.edge_updated(
                _uuid(), now, record.twins, self._bad.get(id_, {}), self._watch.standing(id_)
            )
            await self._send(f"device/{id_}/twin/edge_updated", content, coalesce=f"twin/{id_}")
        if what & STATE:
            # KubeEdge's edge sends this one as text that holds JSON.
            text = msgspec.json.encode(documents.state_result(_uuid(), now, record).decode())
            await self._send(f"device/{id_}/state/update", text, coalesce=f"devicestate/{id_}")

    async def _save(self, id_: str, record: Record) -> None:
        late = id_ in self._late
        self._late.discard(id_)
        try:
            await self._store.save("twin", id_, documents.write_record(record))
        except BaseException:
            if late:
                self._late.add(id_)
            raise

    async def _save_late(self) -> None:
        """Save the rows whose readings changed, all together."""
        while True:
            await asyncio.sleep(READINGS_S)
            for id_ in self._late:
                self._notes.add(id_, SAVE)

    async def _save_last(self) -> None:
        try:
            async with asyncio.timeout(LAST_S), asyncio.TaskGroup() as group:
                for id_ in list(self._late):
                    if id_ in self._records:
                        group.create_task(self._save(id_, self._records[id_]))
            if not self._unsure:
                await self._store.save(STOPPED, STOPPED, b"1")
        except* (TimeoutError, SkerryError) as errors:
            log.warning("Stopping without the last readings on the disk: %s", errors.exceptions[0])

    def _problems(self, id_: str) -> dict[str, str]:
        """All that is wrong with a device now, by property ("" for the whole)."""
        device = self._devices.get(id_)
        out = {_property_at(device, p.path): str(p) for p in self._blocked.get(id_, ())}
        return {**out, **self._bad.get(id_, {})}

    async def _send(self, resource: str, content: bytes, *, coalesce: str, op: str = Op.UPDATE) -> None:
        message = new(
            source=Source.TWIN, group=Group.RESOURCE, operation=op, resource=resource, content=content
        )
        await self._uplink.send(message, coalesce=coalesce)

    # --- hardware that is plugged in

    def found(self) -> Mapping[str, str]:
        """The devices that were made of found hardware: id -> name of the candidate."""
        return {
            id_: candidate
            for id_, device in self._devices.items()
            if (candidate := device.metadata.annotations.get(CANDIDATE_ANNOTATION))
        }

    def plugged(self, present: frozenset[str]) -> None:
        """The candidates whose hardware is there.  A device whose is not is offline, whatever its mapper believes; of one
        that is back its mapper speaks, or nobody does."""
        self._present = present
        for id_ in self.found():
            self._judge_presence(id_)

    def _judge_presence(self, id_: str) -> None:
        if self._present is None or id_ not in self._records:
            return
        state = self._records[id_].state.lower()
        if self._is_absent(id_):
            if state != "offline":
                record, tell = membership.unplugged(self._records[id_], self._clock.wall_ms())
                self._set_state(id_, record, tell=tell)
        elif id_ in self.found() and not self._owner.get(id_) and state != "online":
            self.state_reported(id_, "online")

    def _is_absent(self, id_: str) -> bool:
        """Whether a device was made of hardware that is known not to be there."""
        device = self._devices.get(id_)
        candidate = device.metadata.annotations.get(CANDIDATE_ANNOTATION) if device is not None else None
        return bool(candidate) and self._present is not None and candidate not in self._present

    def needs(self) -> list[dict[str, Any]]:
        """Which drivers the devices of this node need: protocol, how many devices, and the mappers that serve it now."""
        counts: dict[str, int] = {}
        for device in self._devices.values():
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

    def dropped(self) -> dict[tuple[str, str], int]:
        """What mappers and local clients said, or were to hear, and was not taken: (way, reason) -> how often."""
        mqtt = dict(self._publisher.dropped()) if self._publisher is not None else {}
        mqtt["refused"] = self._refused_requests
        mqtt["unsent"] = mqtt.get("unsent", 0) + self.dropped_texts
        counts = {("dmi", "refused"): self.dmi.counts["refused"], **{("mqtt", r): n for r, n in mqtt.items()}}
        return {key: n for key, n in counts.items() if n}

    # --- for the local command line

    def devices(self) -> list[dict[str, Any]]:
        """All devices of the node as plain values, sorted by id."""
        return [self._snapshot(id_, record) for id_, record in sorted(self._records.items())]

    def _snapshot(self, id_: str, record: Record) -> dict[str, Any]:
        return {
            "id": id_,
            "state": record.state,
            "lastOnlineTime": record.last_online,
            "protocol": self.protocol_of(id_) or "",
            "mapper": self._owner.get(id_, ""),
            "delivered": self._is_delivered(id_, record),
            "problems": self._problems(id_),
            "twins": {
                name: {
                    "type": t.type,
                    "desired": t.expected.value if t.expected is not None else None,
                    "reported": t.actual.value if t.actual is not None else None,
                    "reportedAt": t.actual.at if t.actual is not None else None,
                }
                for name, t in sorted(record.twins.items())
            },
        }

    def _is_delivered(self, id_: str, record: Record) -> bool:
        """Whether the mapper has confirmed the device as it is now."""
        want = self.tell(self._owner.get(id_, ""), id_)
        return isinstance(want, Tell) and record.delivered[1] == want.digest

    def history(self, id_: str) -> Mapping[str, list[tuple[int, str]]]:
        """The last readings of each property since this process began: (ms since 1970, value), oldest first."""
        return {name: list(line) for (device, name), line in sorted(self._history.items()) if device == id_}


def _property_at(device: Device | None, path: str) -> str:
    """The name of the property that a problem's path is about, or ""."""
    head, _, rest = path.partition("$.spec.properties[")
    index = rest.partition("]")[0]
    if device is None or head or not index.isdigit() or int(index) >= len(device.spec.properties):
        return ""
    return device.spec.properties[int(index)].name


def _uuid() -> str:
    return str(uuid.uuid4())
