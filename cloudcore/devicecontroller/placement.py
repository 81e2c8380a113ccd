"""Which devices and models belong to which node, and what a node is to be told when one of them changes.  Pure.

A model goes to a node before the first device that names it, and is taken back after the last.  A device whose problems
block it (no model, no protocol) is not sent anew; what an edge has already it keeps, since a missing model is no reason to
stop a device.  That models' own changes reach the edges is ours.

Source: KubeEdge, devicecontroller/controller/downstream.go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from beehive.apis.devices import (
    Device,
    DeviceModel,
    Problem,
    check_device,
    check_model,
    decode_device,
    decode_model,
)
from beehive.apis.twins import MemberDevice, MembershipDetail, MembershipUpdate
from beehive.delivery import Item, Priority
from beehive.errors import ProtocolError
from beehive.message import Group, Inventory, Message, Op, Source, new
from beehive.resource import parse
from cloudcore.objects import DEVICE, DEVICEMODEL, Change, Kind, Object, number, same_substance

log = logging.getLogger(__name__)

Key = tuple[str, str]
T = TypeVar("T")
MEMBERSHIP = "membership"
DETAIL = "membership/detail"


@dataclass(frozen=True, slots=True)
class Push:
    """Tell `node` about a device or model."""

    node: str
    item: Object
    deleted: bool = False
    first: bool = False
    back: bool = False

    def delivery(self) -> Item:
        operation = Op.DELETE if self.deleted else Op.INSERT if self.first else Op.UPDATE
        message = new(
            source=Source.DEVICECONTROLLER,
            group=Group.RESOURCE,
            operation=operation,
            resource=self.item.path,
            content=self.item.raw,
            version=self.item.version,
        )
        return Item(
            key=self.item.uid,
            version=self.item.number,
            message=message,
            priority=Priority.BULK,
            delete=self.deleted,
            force=self.item.deleting,
            back=self.back,
        )


@dataclass(frozen=True, slots=True)
class Member:
    """Tell `node` that a device is one of its own, or no longer."""

    node: str
    device: MemberDevice
    removed: bool = False

    def message(self, *, event_id: str, now_ms: int) -> Message:
        update = MembershipUpdate(
            event_id=event_id,
            timestamp=now_ms,
            added_devices=None if self.removed else [self.device],
            removed_devices=[self.device] if self.removed else None,
        )
        return new(
            source=Source.DEVICECONTROLLER,
            group=Group.TWIN,
            operation=Op.UPDATE,
            resource=MEMBERSHIP,
            content=update,
        )


Action = Push | Member


@dataclass(frozen=True, slots=True)
class _Placed:
    item: Object
    device: Device | None
    """None when the object cannot be read at all."""
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        return self.device is not None and not any(problem.blocking for problem in self.problems)

    @property
    def model_key(self) -> Key | None:
        if self.device is None or self.device.spec.device_model_ref is None:
            return None
        return (self.item.namespace, self.device.spec.device_model_ref.name)


class DevicePlacement:
    """Not safe for threads."""

    def __init__(self) -> None:
        self._devices: dict[Key, _Placed] = {}
        self._models: dict[Key, tuple[Object, DeviceModel | None, tuple[Problem, ...]]] = {}
        self._of_node: dict[str, set[Key]] = {}
        self._users: dict[Key, set[Key]] = {}  # model → devices

    # -- answers ---------------------------------------------------------------------------------------------------

    def device(self, namespace: str, name: str) -> Device | None:
        placed = self._devices.get((namespace, name))
        return placed.device if placed else None

    def model_of(self, device: Device) -> DeviceModel | None:
        ref = device.spec.device_model_ref
        found = self._models.get((device.metadata.namespace, ref.name)) if ref is not None else None
        return found[1] if found else None

    def problems(self, namespace: str, name: str) -> tuple[Problem, ...]:
        """What is wrong with a device, its model's problems included."""
        placed = self._devices.get((namespace, name))
        if placed is None:
            return ()
        model = self._models.get(placed.model_key) if placed.model_key else None
        return (*placed.problems, *(model[2] if model else ()))

    def users(self, namespace: str, name: str) -> list[Key]:
        """The devices that name a model."""
        return sorted(self._users.get((namespace, name), ()))

    def wanted(self, node: str) -> Iterator[Object]:
        """What `node` should hold, models first."""
        placed = [self._devices[key] for key in sorted(self._of_node.get(node, ()))]
        models = {p.model_key for p in placed if p.usable and p.model_key is not None}
        for key in sorted(models):
            yield self._models[key][0]
        for p in placed:
            if p.usable:
                yield p.item

    def members(self, node: str, *, event_id: str, now_ms: int) -> MembershipDetail:
        """Every device of `node`: an edge removes those that are not listed."""
        placed = [self._devices[key] for key in sorted(self._of_node.get(node, ()))]
        return MembershipDetail(
            event_id=event_id, timestamp=now_ms, devices=[_member(p.item) for p in placed]
        )

    def claims(self, node: str) -> set[str]:
        """The uids of what `node` may hold, be it of use or not."""
        placed = [self._devices[key] for key in self._of_node.get(node, ())]
        models = (self._models.get(item.model_key) for item in placed if item.model_key is not None)
        return {item.item.uid for item in placed} | {model[0].uid for model in models if model is not None}

    def difference(self, node: str, inventory: Inventory) -> tuple[list[Push], list[Object], dict[str, str]]:
        """What to push to a node that holds `inventory`, what it holds as it is here, and what needs a second look: what it
        holds in excess, or in a newer version than is known here."""
        pushes: list[Push] = []
        known: list[Object] = []
        extra: dict[str, str] = {}
        for uid, entry in inventory.objects.items():
            if entry.resource.split("/", 2)[1:2] not in ([DEVICE.wire], [DEVICEMODEL.wire]):
                continue
            try:
                parse(entry.resource)
            except ProtocolError:
                continue
            extra[uid] = entry.resource
        for item in self.wanted(node):
            entry_ = inventory.objects.get(item.uid)
            if entry_ is not None and number(entry_.version) > item.number:
                extra[item.uid] = item.path
                continue
            extra.pop(item.uid, None)
            if entry_ is not None and number(entry_.version) >= item.number and not item.deleting:
                known.append(item)
            else:
                pushes.append(Push(node, item, first=entry_ is None))
        # a device that is this node's but cannot be used stays as the edge has it, and so does its model
        missing: set[str] = set()
        for key in self._of_node.get(node, ()):
            placed = self._devices[key]
            if not placed.usable:
                extra.pop(placed.item.uid, None)
            if placed.model_key is not None and placed.model_key not in self._models:
                missing.add(f"{placed.model_key[0]}/{DEVICEMODEL.wire}/{placed.model_key[1]}")
        return pushes, known, {uid: path for uid, path in extra.items() if path not in missing}

    # -- changes ---------------------------------------------------------------------------------------------------

    def device_changed(self, change: Change) -> list[Action]:
        held = self._devices.get(change.newest.key)
        if change.new is None:
            return self._remove(held) if held is not None else []
        new_ = change.new
        placed = self._place(new_)
        if held is None:
            self._hold(placed)
            return self._add(placed)
        if held.item.node != new_.node or held.item.uid != new_.uid:
            actions = self._remove(held)
            self._hold(placed)
            return [*actions, *self._add(placed)]
        old_model = held.model_key
        changed = not same_substance(held.item, new_) or held.usable != placed.usable or change.back
        self._release(held)
        self._hold(placed)
        if not changed or not new_.node or not placed.usable:
            return []
        actions = []
        if placed.model_key is not None and (old_model != placed.model_key or not held.usable):
            actions += self._give_model(new_.node, placed.model_key)
        actions.append(Push(new_.node, new_, first=not held.usable, back=change.back))
        if not held.usable:
            actions.insert(0, Member(new_.node, _member(new_)))
        if old_model is not None and old_model != placed.model_key:
            actions += self._take_model(new_.node, old_model)
        return actions

    def model_changed(self, change: Change) -> list[Action]:
        """A model: the nodes with devices of it are told, and devices that waited for it go out."""
        key = change.newest.key
        if change.new is None:
            self._models.pop(key, None)
            self._judge(key)
            return []
        known = key in self._models
        held = self._models.get(key)
        self._models[key] = _read_model(change.new)
        if known and held is not None and same_substance(held[0], change.new) and not change.back:
            return []
        before = {user for user in self._users.get(key, ()) if self._devices[user].usable}
        self._judge(key)
        actions: list[Action] = []
        for node in sorted({self._devices[user].item.node for user in self._users.get(key, ())} - {""}):
            actions.append(Push(node, change.new, first=not known, back=change.back))
        for user in sorted(self._users.get(key, ())):
            placed = self._devices[user]
            if placed.item.node and placed.usable and user not in before:
                actions.append(Member(placed.item.node, _member(placed.item)))
                actions.append(Push(placed.item.node, placed.item, first=True))
        return actions

    def _judge(self, model: Key) -> None:
        for user in self._users.get(model, ()):
            self._devices[user] = self._place(self._devices[user].item)

    def _place(self, item: Object) -> _Placed:
        try:
            device = decode_device(item.raw)
        except ProtocolError as error:
            problem = Problem(path="$", reason="Unreadable", message=str(error)[:256], blocking=True)
            return _Placed(item, None, (problem,))
        return _Placed(item, device, tuple(check_device(device, self.model_of(device))))

    def _hold(self, placed: _Placed) -> None:
        self._devices[placed.item.key] = placed
        if placed.item.node:
            self._of_node.setdefault(placed.item.node, set()).add(placed.item.key)
        if placed.model_key is not None:
            self._users.setdefault(placed.model_key, set()).add(placed.item.key)

    def _release(self, placed: _Placed) -> None:
        key = placed.item.key
        self._devices.pop(key, None)
        _discard(self._of_node, placed.item.node, key)
        if placed.model_key is not None:
            _discard(self._users, placed.model_key, key)

    def _add(self, placed: _Placed) -> list[Action]:
        node = placed.item.node
        if not node or not placed.usable:
            return []
        actions: list[Action] = [Member(node, _member(placed.item))]
        if placed.model_key is not None:
            actions += self._give_model(node, placed.model_key)
        return [*actions, Push(node, placed.item, first=True)]

    def _remove(self, placed: _Placed) -> list[Action]:
        self._release(placed)
        node = placed.item.node
        if not node:
            return []
        actions: list[Action] = [
            Member(node, _member(placed.item), removed=True),
            Push(node, placed.item, deleted=True),
        ]
        if placed.model_key is not None:
            actions += self._take_model(node, placed.model_key)
        return actions

    def _give_model(self, node: str, key: Key) -> list[Action]:
        # the delivery drops it if the node holds this version already
        return [Push(node, self._models[key][0], first=True)] if key in self._models else []

    def _take_model(self, node: str, key: Key) -> list[Action]:
        if any(self._devices[user].item.node == node for user in self._users.get(key, ())):
            return []
        return [Push(node, self._models[key][0], deleted=True)] if key in self._models else []


def _discard(table: dict[T, set[Key]], name: T, key: Key) -> None:
    members = table.get(name)
    if members is not None:
        members.discard(key)
        if not members:
            del table[name]


def _member(item: Object) -> MemberDevice:
    return MemberDevice(
        id=f"{item.namespace}/{item.name}",
        name=item.name,
        description=(item.labels or {}).get("description", ""),
    )


def _read_model(item: Object) -> tuple[Object, DeviceModel | None, tuple[Problem, ...]]:
    try:
        model = decode_model(item.raw)
    except ProtocolError as error:
        return item, None, (Problem(path="$", reason="Unreadable", message=str(error)[:256]),)
    return item, model, tuple(check_model(model))


def kind_of(path: str) -> Kind:
    """The kind of a path that `difference` named."""
    return DEVICE if parse(path).type == DEVICE.wire else DEVICEMODEL
