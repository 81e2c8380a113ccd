"""Carries devices and models to their nodes, and what devices report into their DeviceStatuses."""

from __future__ import annotations

import asyncio
import logging
import uuid

from beehive import clock
from beehive.apis.decode import decode
from beehive.apis.hardware import REPORT
from beehive.apis.twins import MethodResult, StateUpdate, TwinUpdate
from beehive.delivery import Item
from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import OK, Group, Inventory, Message, Op, Source, new
from beehive.resource import parse
from beehive.session import State
from cloudcore.cache import Cache
from cloudcore.cloudhub.dispatch import LATER, Done, Outcome
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.devicecontroller.calls import CallController
from cloudcore.devicecontroller.hardware import HardwareController
from cloudcore.devicecontroller.placement import DETAIL, Action, DevicePlacement, Member, Push, kind_of
from cloudcore.devicecontroller.reports import StatusChange, from_state, from_twins
from cloudcore.devicecontroller.writer import StatusWriter
from cloudcore.edgecontroller.downstream import tombstone
from cloudcore.errors import ApiError, ApiNotFound, Forbidden
from cloudcore.identity import authorizer
from cloudcore.kube import Kube
from cloudcore.notices import event
from cloudcore.objects import DEVICEMODEL, DEVICESTATUS, EVENT, Change, Object
from cloudcore.secondlook import Differed, Looks

log = logging.getLogger(__name__)

SYNC_S = 10.0
MAX_EVENTS = 256


class DeviceCaches:
    """The kinds of devices."""

    def __init__(self, kube: Kube, devices: Cache) -> None:
        self.devices = devices
        self.models = Cache(kube, DEVICEMODEL)
        self.statuses = Cache(kube, DEVICESTATUS)

    @property
    def all(self) -> list[Cache]:
        return [self.models, self.statuses, self.devices]

    @property
    def synced(self) -> bool:
        return all(cache.synced for cache in self.all)

    async def wait_synced(self) -> None:
        for cache in self.all:
            await cache.wait_synced()


class DeviceController:
    """`run` is a supervised part; `handle` is the part `devicecontroller` of the dispatcher."""

    name = "devicecontroller"

    def __init__(
        self,
        kube: Kube,
        caches: DeviceCaches,
        nodes: Nodes,
        view: authorizer.View,
        *,
        interval_s: float = 1.0,
        hardware: HardwareController | None = None,
    ) -> None:
        """hardware: who takes reports of hardware that edges have found."""
        self._hardware = hardware
        self.calls: CallController | None = None
        """Who follows calls of methods."""
        self.caches = caches
        self.placement = DevicePlacement()
        self._kube = kube
        self._nodes = nodes
        self._view = view
        self._writer = StatusWriter(
            kube, caches.devices, caches.statuses, self.placement, interval_s=interval_s
        )
        self._events: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_EVENTS)
        self._told: dict[tuple[str, str], str] = {}
        self._faults: dict[tuple[str, str], frozenset[str]] = {}  # told, by device
        self._anomalies: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}  # told, by device
        self._late: dict[str, tuple[Link, Inventory]] = {}  # by node: its newest connection
        caches.models.subscribe(self._on_model)
        caches.devices.subscribe(self._on_device)
        nodes.on_open.append(self._on_open)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run(), name="device statuses")
            group.create_task(self._write_events(), name="device events")
            await self.caches.wait_synced()
            log.info("Knows %d devices of %d models", len(self.caches.devices), len(self.caches.models))
            for item in self.caches.devices:
                self._judge(item)
            late, self._late = self._late, {}
            looks = Looks(self._nodes)
            for link, inventory in late.values():
                group.create_task(self._late_for(looks, link, inventory), name=f"late devices {link.node}")

    # -- down ------------------------------------------------------------------------------------------------------

    def _on_device(self, change: Change) -> None:
        self._perform(self.placement.device_changed(change))
        if change.new is None:
            self._writer.forget(change.newest.key)
            self._told.pop(change.newest.key, None)
            self._anomalies.pop(change.newest.key, None)
            self._faults.pop(change.newest.key, None)
        elif self.caches.synced:
            self._judge(change.new)

    def _on_model(self, change: Change) -> None:
        self._perform(self.placement.model_changed(change))
        if self.caches.synced:
            for key in self.placement.users(*change.newest.key):
                if (item := self.caches.devices.get(*key)) is not None:
                    self._judge(item)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            link = self._nodes.get(action.node)
            if link is None or not link.devices_ready:
                continue
            if isinstance(action, Member):
                link.reply(action.message(event_id=str(uuid.uuid4()), now_ms=clock.wall_ms()))
            else:
                link.offer(action.delivery())

    def _judge(self, item: Object) -> None:
        """Say what is wrong with a device where its owner looks: a condition, and an event when it is new."""
        problems = self.placement.problems(*item.key)
        self._writer.submit(item.key, StatusChange(problems=problems))
        text = "; ".join(str(problem) for problem in problems)[:1024]
        if text == self._told.get(item.key, ""):
            return
        self._told[item.key] = text
        if problems:
            log.warning("Device %s/%s: %s", *item.key, text[:256])
            if self._events.full():
                return  # the condition says it too
            self._event(item, problems[0].reason, text)

    def _event(self, item: Object, reason: str, text: str) -> None:
        made = event(
            item.kind,
            *item.key,
            uid=item.uid,
            version=item.version,
            reason=reason,
            text=text,
            component=self.name,
        )
        self._events.put_nowait(made)

    def _tell_faults(self, key: tuple[str, str], change: StatusChange) -> None:
        """An event for what is newly wrong with a device as a whole.  A node repeats it with every report."""
        now = frozenset(each.message for each in change.faults or ())
        before = self._faults.pop(key, frozenset())
        if now:
            self._faults[key] = now
        item = self.caches.devices.get(*key)
        for each in change.faults or ():
            if item is not None and each.message not in before and not self._events.full():
                self._event(item, "NotServed", each.message[:1024])

    def _tell_anomalies(self, key: tuple[str, str], change: StatusChange) -> None:
        """An event for each anomaly that begins.  A node repeats them with every report."""
        if change.anomalies is None:
            return
        now = frozenset((each.property, each.reason) for each in change.anomalies)
        before = self._anomalies.get(key, frozenset())
        self._anomalies[key] = now
        item = self.caches.devices.get(*key)
        for each in change.anomalies:
            if item is not None and (each.property, each.reason) not in before and not self._events.full():
                self._event(item, "Anomaly", f"{each.property}: {each.message}")

    def _on_open(self, link: Link) -> None:
        before = link.on_deleted

        def on_deleted(item: Item) -> None:
            if before is not None:
                before(item)
            for wanted in self.placement.wanted(link.node):
                if wanted.uid == item.key:
                    link.offer(Push(link.node, wanted, first=True).delivery())

        link.on_deleted = on_deleted

    async def _late_for(self, looks: Looks, link: Link, inventory: Inventory) -> None:
        await looks.settle(link, await self.differ(link, inventory))

    async def differ(self, link: Link, inventory: Inventory) -> Differed:
        """Bring a node that holds `inventory` up to date.

        While the kinds of devices are not installed, that waits until they are."""
        if not self.caches.synced:
            self._late[link.node] = (link, inventory)
            return Differed(set())
        pushes, known, extra = self.placement.difference(link.node, inventory)
        for item in known:
            link.delivery.know(item.uid, item.number)
        for push in pushes:
            link.delivery.lost(push.item.uid, link.held_version(push.item.uid))
        keys = {push.item.uid for push in pushes if link.offer(push.delivery())}
        link.devices_ready = True
        return Differed(keys, extra, self._take_back)

    async def _take_back(self, link: Link, uid: str, path: str) -> bool:
        found = await self._surplus(link, uid, path)
        if found is None:
            return False
        back = found.uid == uid and bool(found.version)
        return link.offer(Push(link.node, found, deleted=not back, back=back).delivery())

    async def _surplus(self, link: Link, uid: str, path: str) -> Object | None:
        """A tombstone for what is surely not that node's, the older state of what the API went back with, else None."""
        target, kind = parse(path), kind_of(path)
        gone = tombstone(kind, target.namespace, target.name, uid)
        try:
            found = await self._kube.get(kind, target.name, target.namespace)
        except ApiNotFound:
            return gone
        except Unavailable:
            raise
        except (ApiError, ProtocolError) as error:
            # it stays until the next comparison
            log.info("Cannot look again at %s of node %s: %s", path, link.node, error)
            return None
        if found.uid == uid and (
            any(wanted.uid == uid for wanted in self.placement.wanted(link.node))
            or (kind is not DEVICEMODEL and found.node == link.node)
        ):
            return found if found.number < link.held_version(uid) else None
        return gone

    # -- up ------------------------------------------------------------------------------------------------------------

    async def handle(self, link: Link, message: Message) -> Outcome:
        """Raises Forbidden for a device that is not the node's, Unavailable while devices are not known."""
        parts = message.route.resource.split("/")
        if message.route.resource == REPORT and self._hardware is not None:
            return await self._hardware.handle(link, message)
        await self._known()
        if message.route.resource.endswith(DETAIL):
            return self._members(link, message)
        if len(parts) != 5 or parts[0] != "device":
            raise ProtocolError(f"{message.route.resource[:120]!r} is not about a device")
        _, namespace, name, what, verb = parts
        authorizer.check_device(link.node, namespace, name, self._view)
        device = self.placement.device(namespace, name)
        if device is None:
            raise Forbidden(f"device {namespace}/{name} cannot be read")
        # a stock edge sends the second of these as text that holds JSON
        content = message.text().encode()
        match what, verb:
            case "twin", "edge_updated":
                change = from_twins(decode(content, TwinUpdate), device, self.placement.model_of(device))
                self._tell_anomalies((namespace, name), change)
                self._tell_faults((namespace, name), change)
            case "state", "update":
                change = from_state(decode(content, StateUpdate))
            case "call", uid if self.calls is not None:
                self.calls.answered(link, namespace, name, uid, decode(content, MethodResult))
                _confirm(link, message)
                return LATER
            case _:
                raise ProtocolError(f"{message.route.resource[:120]!r} is no report")
        self._writer.submit((namespace, name), change, lambda error: _confirm(link, message, error))
        return LATER

    async def _known(self) -> None:
        try:
            async with asyncio.timeout(SYNC_S):
                await self.caches.wait_synced()
        except TimeoutError as error:
            raise Unavailable("the devices are not known yet") from error

    def _members(self, link: Link, message: Message) -> Outcome:
        detail = self.placement.members(link.node, event_id=str(uuid.uuid4()), now_ms=clock.wall_ms())
        answer = new(
            source=Source.DEVICECONTROLLER,
            group=Group.TWIN,
            operation=Op.RESPONSE,
            resource=DETAIL,
            content=detail,
            parent=message.id,
        )
        return Done((answer,))

    async def _write_events(self) -> None:
        while True:
            namespace, body = await self._events.get()
            try:
                await self._kube.create(EVENT, body, namespace)
            except SkerryError as error:
                log.info("Cannot write an event about a device: %s", error)


def _confirm(link: Link, message: Message, error: SkerryError | None = None) -> None:
    """D4, and the acknowledgement of an edge of ours.   error: why the report counts for nothing; a stock edge does not ask."""
    if link.session.state is State.CLOSED:
        return
    if error is not None and link.ours:
        link.refuse(message, error)
        return
    link.reply(
        new(
            source=Source.DEVICECONTROLLER,
            group=Group.TWIN,
            operation=Op.RESPONSE,
            resource="twin",
            content=OK,
            parent=message.id,
        )
    )
    link.ack(message.id)
