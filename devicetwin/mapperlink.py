"""One worker per mapper, which tells it of its devices and their models.

What a mapper should have is not kept here.  A worker holds a set of ids of devices and models to look at again and asks its
`Host` what to tell, at the moment of telling; so a burst of edits is one call, and a call that failed is repeated with the
newest state.  A mapper that hangs or is gone holds up its own worker and nobody else.

Models go before the devices that need them.  One that a mapper was given it is told of when it changes (UpdateDeviceModel) and
when it goes (RemoveDeviceModel); its devices are told again after a change, since KubeEdge's mappers leave those that run as
they are.  A mapper that registers is given all, and forgets the rest.   Source: protocol notes on DMI sections 5, 7, 9."""

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message
from msgspec import Struct

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2 as methods
from beehive.backoff import Backoff
from beehive.errors import NotFound, Refused, Unavailable
from devicetwin.twin import Reading

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0  # KubeEdge waits 10 s, with all mappers standing in one line
PROBE_S = 5.0  # how often a mapper's socket is looked at
LOST_AFTER = 2  # failed looks until its devices are given up
MAX_REFUSALS = (
    3  # times that a mapper may refuse one state of a device before it is left alone until the next change
)


class MapperInfo(Struct, frozen=True, kw_only=True):
    """A registered mapper, as stored.  address: the path of its socket.  callbacks: it asked to be told of devices."""

    name: str
    protocol: str
    address: str
    version: str = ""
    api_version: str = ""
    uid: int = 0
    callbacks: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """What a mapper should know of one device.  digest stands for both messages."""

    device: pb.Device
    model: pb.DeviceModel
    digest: str
    known: bool


class Leave:
    """The device cannot be told of now (its model is missing): the mapper keeps what it has."""


class Host(Protocol):
    """Who decides; `DeviceTwin` in the daemon.  None of these may block but those that wait for the disk."""

    def tell(self, mapper: str, id_: str) -> Tell | Leave | None:
        """What `mapper` should know of a device; None: it should not have it."""

    async def telling(self, mapper: str, id_: str) -> None:
        """The mapper is about to be told: until it confirms, nobody knows what it has.  Returns when that is stored."""

    def told(self, mapper: str, id_: str, digest: str) -> None:
        """The mapper confirmed; an empty digest means that it no longer has the device."""

    def model(self, id_: str) -> pb.DeviceModel | None:
        """A model as it is now; None when there is none of that name."""

    def refused(self, mapper: str, id_: str, text: str) -> None:
        """The mapper will not take the device as it is."""

    async def registered(self, info: MapperInfo) -> list[Tell]:
        """A mapper registered; what it should run."""

    def protocol_of(self, id_: str) -> str | None:
        """The protocol of a device, None if it is not of this node."""

    def reported(self, id_: str, read: list[Reading]) -> dict[str, str]:
        """Readings came; what of them was refused."""

    def state_reported(self, id_: str, state: str) -> bool:
        """Whether that is news."""

    def alive_changed(self, mapper: str) -> None:
        """A mapper was lost or is back."""


class Link:
    """One mapper: what is known of it, and the worker that tells it things."""

    def __init__(self, info: MapperInfo, host: Host, rng: random.Random) -> None:
        self.info = info
        self.alive = True
        self._host = host
        self._rng = rng
        self._client = dmi.Client(info.address, uid=info.uid)
        self._pending: dict[str, int] = {}  # device id -> refusals so far
        self._models: dict[str, bytes] = {}  # model id -> what it was told of it
        self._pending_models: dict[str, int] = {}  # model id -> refusals so far
        self._wake = asyncio.Event()
        self._failed_looks = 0

    def look_at(self, id_: str) -> None:
        """Something about the device may be different: find out and tell the mapper."""
        self._pending[id_] = 0
        self._wake.set()

    def has_model(self, id_: str) -> bool:
        """Whether the mapper was given this model since it registered or this process began."""
        return id_ in self._models

    def look_at_model(self, id_: str) -> None:
        """The model is different, or gone: tell the mapper."""
        self._pending_models[id_] = 0
        self._wake.set()

    def given(self, tells: Iterable[Tell]) -> None:
        """The mapper got these with its registration: none of them need be told again."""
        for tell in tells:
            self._models[_id(tell.model)] = _bytes(tell.model)
            self._pending.pop(f"{tell.device.namespace}/{tell.device.name}", None)

    def replace(self, info: MapperInfo) -> None:
        """The mapper registered again, perhaps at another address; it has just been given everything."""
        if info.address != self.info.address or info.uid != self.info.uid:
            self._client.close()
            self._client = dmi.Client(info.address, uid=info.uid)
        self.info = info
        self._pending.clear()
        self._pending_models.clear()
        self._models.clear()
        self._failed_looks = 0
        if not self.alive:
            self.alive = True
            log.info("Mapper %s is back", info.name)

    async def run(self) -> None:
        """Never returns."""
        backoff = Backoff(base_s=0.25, cap_s=PROBE_S)
        try:
            while True:
                if not self._pending and not self._pending_models:
                    backoff.reset()
                    await self._idle()
                    continue
                try:
                    await self._settle_next()
                    backoff.reset()
                except Unavailable as error:
                    log.debug("! mapper %s: %s", self.info.name, error)
                    await self._look()
                    await asyncio.sleep(backoff.next_s(self._rng))
        finally:
            self._client.close()

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            if self.info.callbacks:
                await self._look()

    async def _look(self) -> None:
        """Find out whether the mapper is at work."""
        at_work = await dmi.answers(self.info.address, timeout_s=CALL_TIMEOUT_S)
        was = self.alive
        self._failed_looks = 0 if at_work else self._failed_looks + 1
        self.alive = self._failed_looks < LOST_AFTER
        if was and not self.alive:
            log.warning("Mapper %s is gone: nobody answers on %s", self.info.name, self.info.address)
        elif self.alive and not was:
            log.info("Mapper %s is back", self.info.name)
        if was != self.alive:
            self._host.alive_changed(self.info.name)

    async def _settle_next(self) -> None:
        """One thing: what devices need before them, what they need no more after them.  Raises: Unavailable."""
        changed = next((id_ for id_ in self._pending_models if self._host.model(id_) is not None), None)
        if changed is not None:
            await self._settle_model(changed)
        elif self._pending:
            await self._settle(next(iter(self._pending)))
        else:
            await self._settle_model(next(iter(self._pending_models)))

    async def _settle_model(self, id_: str) -> None:
        """Tell the mapper that a model is different or gone.  Raises: Unavailable; it is then looked at again."""
        refusals = self._pending_models[id_]
        model = self._host.model(id_)
        try:
            if model is not None:
                await self._put_model(model)
            else:
                await self._remove_model(id_)
        except Refused as error:
            if self._pending_models.get(id_) != refusals:
                return
            if refusals + 1 < MAX_REFUSALS:
                self._pending_models[id_] = refusals + 1
                await asyncio.sleep(1.0)
                return
            # its devices are told next, and what becomes of them is said on them
            log.warning("Mapper %s refuses device model %s: %s", self.info.name, id_, error)
        now = self._host.model(id_)
        if (None if now is None else _bytes(now)) == (None if model is None else _bytes(model)):
            self._pending_models.pop(id_, None)

    async def _put_model(self, model: pb.DeviceModel) -> None:
        """Give the mapper a model, unless it has it like this.  Raises: Unavailable, Refused."""
        id_, packed = _id(model), _bytes(model)
        known = self._models.get(id_)
        if known == packed:
            return
        if known is not None:
            try:
                await self._call("UpdateDeviceModel", pb.UpdateDeviceModelRequest(model=model))
            except (Refused, NotFound) as error:
                # it began anew and did not register, or cannot do this: creating puts it in, known or not
                log.debug("! mapper %s did not change model %s: %s", self.info.name, id_, error)
                known = None
        if known is None:
            # What an earlier process gave it nobody knows; updating an unknown one is refused by KubeEdge's mappers.
            await self._call("CreateDeviceModel", pb.CreateDeviceModelRequest(model=model))
        self._models[id_] = packed

    async def _remove_model(self, id_: str) -> None:
        namespace, _, name = id_.partition("/")
        request = pb.RemoveDeviceModelRequest(modelName=name, modelNamespace=namespace)
        try:
            await self._call("RemoveDeviceModel", request)
        except NotFound as error:
            log.debug("! mapper %s had no model %s: %s", self.info.name, id_, error)
        self._models.pop(id_, None)

    async def _settle(self, id_: str) -> None:
        """Tell the mapper about one device.  Raises: Unavailable; the device is then looked at again."""
        name = self.info.name
        refusals = self._pending[id_]
        want = self._host.tell(name, id_)
        if isinstance(want, Leave):
            self._pending.pop(id_, None)
            return
        await self._host.telling(name, id_)
        try:
            if want is None:
                await self._remove(id_)
            else:
                await self._give(want)
        except Refused as error:
            if refusals + 1 >= MAX_REFUSALS:
                log.warning("Mapper %s refuses device %s: %s", name, id_, error)
                self._host.refused(name, id_, str(error))
                self._pending.pop(id_, None)
            else:
                if self._pending.get(id_) == refusals:
                    self._pending[id_] = refusals + 1
                await asyncio.sleep(1.0)
            return
        self._host.told(name, id_, want.digest if want is not None else "")
        # An edit during the call put the id back in line, where the second look finds nothing to do if nothing changed.
        self._pending.pop(id_, None)
        again = self._host.tell(name, id_)
        if isinstance(again, Tell) != isinstance(want, Tell) or (
            isinstance(again, Tell) and isinstance(want, Tell) and again.digest != want.digest
        ):
            self.look_at(id_)

    async def _give(self, want: Tell) -> None:
        await self._put_model(want.model)
        if want.known:
            await self._call("UpdateDevice", pb.UpdateDeviceRequest(device=want.device))
        else:
            await self._call("RegisterDevice", pb.RegisterDeviceRequest(device=want.device))

    async def _remove(self, id_: str) -> None:
        namespace, _, name = id_.partition("/")
        try:
            await self._call(
                "RemoveDevice", pb.RemoveDeviceRequest(deviceName=name, deviceNamespace=namespace)
            )
        except Refused as error:
            log.debug("! mapper %s had no device %s: %s", self.info.name, id_, error)

    async def call_method(self, request: methods.CallMethodRequest) -> str:
        """Do a method of a device, at once and once.  Raises: Unavailable, Refused, NotFound."""
        # A connection of its own: a slow method must not stand before what the mapper is to be told.
        with dmi.Client(self.info.address, uid=self.info.uid) as client:
            method = dmi.METHODS["CallMethod"]
            try:
                reply = await client.call(method, request, timeout_s=request.timeoutMs / 1000 + 1.0)
            except Refused as error:
                if error.reason == "UNIMPLEMENTED":
                    raise Refused(
                        f"mapper {self.info.name} cannot call methods: it is not of Skerry's SDK"
                    ) from error
                raise Refused(
                    str(error).removeprefix(f"cannot call {method.path}: "), reason=error.reason
                ) from error
        return str(reply.result)

    async def _call(self, method: str, request: Message) -> None:
        await self._client.call(dmi.MAPPER[method], request, timeout_s=CALL_TIMEOUT_S)


def _id(model: pb.DeviceModel) -> str:
    return f"{model.namespace}/{model.name}"


def _bytes(model: pb.DeviceModel) -> bytes:
    return model.SerializeToString(deterministic=True)
