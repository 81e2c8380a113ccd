"""Has methods of devices done that somebody asks for with a DeviceCall: once or not at all.

A call is marked Sent in the API before it goes to the node, by a compare-and-swap; so of several cloudcores one sends it, and
none sends it again after a restart.  What is not answered in time has Failed, and its message says if it may have been done."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import msgspec

from beehive import clock
from beehive.apis import twins
from beehive.apis.devices import Device, DeviceModel, check_call
from beehive.apis.twins import MethodCall, MethodResult
from beehive.errors import ProtocolError, SkerryError
from beehive.message import Group, Op, Source, new
from cloudcore.cache import Cache
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.devicecontroller.placement import DevicePlacement
from cloudcore.errors import ApiConflict, ApiNotFound, ApiRefused
from cloudcore.kube import Kube
from cloudcore.objects import DEVICECALL, Change, Object

log = logging.getLogger(__name__)

LOOK_S = 1.0
SLACK_S = 3.0
"""How much longer than its own time a call may be away: the ways there and back."""
KEEP_S = 600.0
"""How long what came of a call can be read."""
MAX_ANSWERS = 1024
MAX_RESULT, MAX_ERROR = 64 * 1024, 1024
"""Characters of what a node says; an object in the API has a bound."""


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    device_name: str = ""
    method: str = ""
    values: dict[str, str] = {}
    timeout_seconds: int = 10


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    phase: str = ""


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()
    status: _Status = _Status()


@dataclass(slots=True)
class _Watched:
    """since: when this process first saw the call in its phase."""

    item: Object
    call: _Call
    since: float


def refusal(call: _Call, device: Device | None, model: DeviceModel | None) -> str | None:
    """Why a call cannot be done, whoever is connected.  Pure."""
    name = call.spec.device_name
    if device is None:
        return f"there is no device {name}"
    if model is None:
        return f"device {name} has no model"
    if not device.spec.node_name:
        return f"device {name} is on no node"
    rows = {row.name: row for row in model.spec.properties}
    return check_call(device, rows, call.spec.method, call.spec.values)


class CallController:
    """`run` is a supervised part; `answered` takes what an edge says of a call."""

    name = "callcontroller"

    def __init__(self, kube: Kube, nodes: Nodes, placement: DevicePlacement) -> None:
        self.calls = Cache(kube, DEVICECALL)
        self._kube = kube
        self._nodes = nodes
        self._placement = placement
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._answers: dict[str, tuple[str, str, str, MethodResult]] = {}  # by uid: node, namespace, device
        self._dirty = asyncio.Event()
        self.calls.subscribe(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.new is None:
            self._watched.pop(change.newest.key, None)
            return
        try:
            call = change.new.decode(_Call)
        except ProtocolError as error:
            log.warning("Cannot read DeviceCall %s/%s: %s", *change.new.key, error)
            return
        old = self._watched.get(change.new.key)
        same = old is not None and old.item.uid == change.new.uid and old.call.status == call.status
        since = old.since if old is not None and same else clock.monotonic()
        self._watched[change.new.key] = _Watched(change.new, call, since)
        self._dirty.set()

    def answered(self, link: Link, namespace: str, name: str, uid: str, result: MethodResult) -> None:
        """What an edge says; whether the device is that node's has been seen to."""
        if len(self._answers) < MAX_ANSWERS:
            short = MethodResult(result=result.result[:MAX_RESULT], error=result.error[:MAX_ERROR])
            self._answers[uid] = (link.node, namespace, name, short)
            self._dirty.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S if self._watched else None):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            for key, watched in list(self._watched.items()):
                try:
                    await self._look(key, watched)
                except (ApiNotFound, ApiConflict) as error:
                    log.debug("! call %s/%s: %s", *key, error)
                except ApiRefused as error:
                    log.warning("Cannot write about DeviceCall %s/%s: %s", *key, error)
                    self._watched.pop(key, None)
                except SkerryError as error:
                    log.warning("Cannot follow calls of devices, trying again: %s", error)
                    break
            known = {watched.item.uid for watched in self._watched.values()}
            self._answers = {uid: found for uid, found in self._answers.items() if uid in known}

    async def _look(self, key: tuple[str, str], watched: _Watched) -> None:
        """Do for one call what is due.  Raises: SkerryError."""
        age = clock.monotonic() - watched.since
        spec, uid = watched.call.spec, watched.item.uid
        match watched.call.status.phase:
            case "":
                await self._begin(key, watched, age)
            case "Sent":
                found = self._answers.get(uid)
                if found is not None and found[1:3] == (key[0], spec.device_name):
                    result = found[3]
                    phase = "Failed" if result.error else "Done"
                    await self._write(watched, phase=phase, result=result.result, message=result.error)
                    self._answers.pop(uid, None)
                elif age > spec.timeout_seconds + SLACK_S:
                    text = f"no answer within {spec.timeout_seconds} s: it may have been done"
                    await self._write(watched, phase="Failed", message=text)
            case _ if age > KEEP_S:
                await self._kube.delete(DEVICECALL, key[1], key[0])

    async def _begin(self, key: tuple[str, str], watched: _Watched, age: float) -> None:
        spec = watched.call.spec
        device = self._placement.device(key[0], spec.device_name)
        model = self._placement.model_of(device) if device is not None else None
        wrong = refusal(watched.call, device, model)
        if wrong:
            await self._write(watched, phase="Failed", message=wrong)
            return
        assert device is not None, "else it was refused"
        link = self._nodes.get(device.spec.node_name)
        if link is None or not link.ours:
            if age > spec.timeout_seconds:
                text = f"node {device.spec.node_name} was not connected within {spec.timeout_seconds} s"
                await self._write(watched, phase="Failed", message=text)
            return
        await self._write(watched, phase="Sent")
        call = MethodCall(
            id=watched.item.uid,
            method=spec.method,
            values=spec.values,
            timeout_ms=spec.timeout_seconds * 1000,
        )
        link.reply(
            new(
                source=Source.DEVICECONTROLLER,
                group=Group.TWIN,
                operation=Op.UPDATE,
                resource=f"device/{key[0]}/{spec.device_name}/{twins.CALL}",
                content=call,
            )
        )

    async def _write(self, watched: _Watched, **status: Any) -> None:
        """Raises ApiConflict when it has changed since it was read."""
        item = watched.item
        body = {
            "metadata": {"resourceVersion": item.version},
            "status": {name: value for name, value in status.items() if value},
        }
        written = await self._kube.patch(
            DEVICECALL, item.name, msgspec.json.encode(body), item.namespace, subresource="status"
        )
        self._on_change(Change(item, written))
