"""The mapper's end of the DMI: registers with edgecore, hears of devices, and reports readings and states.

Readings wait in a buffer with one place per property: the newest counts, so an edgecore that is away for a day finds the
current values and the buffer stays small.  Registration is repeated whenever edgecore was away, since it may have a new list
for us; its list is complete, so what is missing there is given up.   Source: protocol notes on DMI sections 4, 7, 8, 9."""

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import Message

from beehive import clock, dmi
from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2 as methods
from beehive.apis.devices import TWIN_TYPES
from beehive.apis.twins import ANOMALY
from beehive.backoff import Backoff
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from mappers.framework.poller import Sample
from mappers.framework.spec import DeviceSpec, from_proto

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
LOOK_S = 1.0  # how often edgecore's socket is looked at while there is nothing to report
RETRY_BASE_S, RETRY_CAP_S = 0.2, 5.0
MAX_DEVICES = 10_000
MAX_CALL_MS = 300_000
MAX_IN_CALL = 256  # reports; as edgecore takes
MAX_CALL_BYTES = 512 * 1024  # of reports; half of what edgecore takes
API_VERSION = "v1.0.0"


class Devices(Protocol):
    """Who runs devices.  None of these may block."""

    def put(self, spec: DeviceSpec) -> None: ...

    def remove(self, id_: str) -> bool: ...

    def ids(self) -> frozenset[str]: ...

    async def call(self, id_: str, method: str, texts: Mapping[str, str]) -> str:
        """Do a method of a device.  Raises: SkerryError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How a mapper names itself.  address: the socket that it serves."""

    name: str
    protocol: str
    version: str
    address: Path


class EdgeLink:
    """The connection of one mapper to its edgecore.  `run` never returns; the rest is for the pollers."""

    def __init__(self, identity: Identity, edgecore: Path, devices: Devices, *, rng: random.Random) -> None:
        self._identity = identity
        self._edgecore = edgecore
        self._devices = devices
        self._rng = rng
        self._client = dmi.Client(str(edgecore))
        self._models: dict[str, pb.DeviceModel] = {}
        self._protos: dict[str, pb.Device] = {}
        self._samples: dict[str, dict[str, Sample]] = {}
        self._states: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._registered = False
        self._many = True  # whether edgecore takes reports of many devices in one call
        self._seen: int | None = None  # edgecore's socket, by inode
        self._away = False
        self._bad: set[tuple[str, str]] = set()
        self.server = dmi.Server(
            identity.address,
            [
                (dmi.MAPPER["RegisterDevice"], self._register_device),
                (dmi.MAPPER["UpdateDevice"], self._update_device),
                (dmi.MAPPER["RemoveDevice"], self._remove_device),
                (dmi.MAPPER["CreateDeviceModel"], self._create_model),
                (dmi.MAPPER["UpdateDeviceModel"], self._update_model),
                (dmi.MAPPER["RemoveDeviceModel"], self._remove_model),
                (dmi.MAPPER["GetDevice"], self._get_device),
                (dmi.METHODS["CallMethod"], self._call_method),
            ],
            tidy=True,
        )

    # --- for pollers

    def readings(self, id_: str, samples: list[Sample]) -> None:
        place = self._samples.setdefault(id_, {})
        for sample in samples:
            place[sample.name] = sample
        self._wake.set()

    def state(self, id_: str, state: str) -> None:
        self._states[id_] = state
        self._wake.set()

    # --- life

    async def run(self) -> None:
        """Serve edgecore's calls, keep registered, report.  Never returns.  Raises: Unavailable if the socket cannot be
        made."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.server.serve(), name="serve edgecore")
                await self.server.ready.wait()  # edgecore may call as soon as it knows of us
                group.create_task(self._report_forever(), name="report")
        finally:
            self._client.close()

    async def _report_forever(self) -> None:
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            try:
                if not self._registered:
                    await self._register()
                await self._send_states()
                await self._send_readings()
                backoff.reset()
            except (Unavailable, _Unknown) as error:
                self._registered = False
                if not self._away:
                    self._away = True
                    log.warning("Edgecore is away, readings wait: %s", error)
                await asyncio.sleep(backoff.next_s(self._rng))
                continue
            await self._idle()

    async def _idle(self) -> None:
        """Wait for something to report, and notice when edgecore was replaced meanwhile."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            if _inode(self._edgecore) != self._seen:
                self._registered = False

    async def _register(self) -> None:
        seen = _inode(self._edgecore)
        who = self._identity
        request = pb.MapperRegisterRequest(
            withData=True,
            mapper=pb.MapperInfo(
                name=who.name,
                version=who.version,
                api_version=API_VERSION,
                protocol=who.protocol,
                address=os.fsencode(who.address),
                state="ok",
            ),
        )
        try:
            answer: pb.MapperRegisterResponse = await self._call("MapperRegister", request)
        except Refused as error:
            raise _Unknown(str(error)) from error
        self._seen = seen
        self._many = True
        self._take_all(answer)
        self._registered = True
        self._away = False
        log.info(
            "Registered %s for %s at %s with %d devices",
            who.name,
            who.protocol,
            self._edgecore,
            len(answer.deviceList),
        )

    def _take_all(self, answer: pb.MapperRegisterResponse) -> None:
        self._models = {f"{m.namespace}/{m.name}": m for m in answer.modelList}
        listed = set()
        for device in list(answer.deviceList)[:MAX_DEVICES]:
            listed.add(f"{device.namespace}/{device.name}")
            try:
                self._take(device)
            except SkerryError as error:
                log.error("Cannot run device %s/%s: %s", device.namespace, device.name, error)
        for id_ in self._devices.ids() - listed:
            self._give_up(id_)

    def _take(self, device: pb.Device) -> None:
        model = self._models.get(f"{device.namespace}/{device.spec.deviceModelReference}")
        spec = from_proto(device, model)
        self._protos[spec.id] = device
        self._devices.put(spec)

    def _give_up(self, id_: str) -> bool:
        self._samples.pop(id_, None)
        self._states.pop(id_, None)
        self._protos.pop(id_, None)
        return self._devices.remove(id_)

    # --- reporting

    async def _send_states(self) -> None:
        while self._states:
            id_, state = next(iter(self._states.items()))
            namespace, _, name = id_.partition("/")
            request = pb.ReportDeviceStatesRequest(deviceName=name, deviceNamespace=namespace, state=state)
            await self._tell("ReportDeviceStates", request, id_)
            if self._states.get(id_) == state:
                del self._states[id_]

    async def _send_readings(self) -> None:
        while len(self._samples) > 1 and self._many:
            await self._send_many()
        while self._samples:
            id_ = next(iter(self._samples))
            samples = self._samples.pop(id_)
            try:
                await self._tell("ReportDeviceStatus", _request(id_, samples), id_)
            except BaseException:
                # What came in during the call is newer.
                self._samples[id_] = {**samples, **self._samples.get(id_, {})}
                raise

    async def _send_many(self) -> None:
        """The readings of many devices in one call, as far as they fit into one."""
        taken: dict[str, dict[str, Sample]] = {}
        request = methods.ReportDevicesRequest()
        size = 0
        for id_ in list(self._samples):
            packed = _request(id_, self._samples[id_]).SerializeToString()
            size += len(packed) + 8
            if taken and size > MAX_CALL_BYTES:
                break
            request.reports.append(packed)
            taken[id_] = self._samples.pop(id_)
            if len(taken) == MAX_IN_CALL:
                break
        try:
            reply = await self._client.call(dmi.REPORTS["ReportDevices"], request, timeout_s=CALL_TIMEOUT_S)
        except BaseException as error:
            for id_, samples in taken.items():
                self._samples[id_] = {**samples, **self._samples.get(id_, {})}
            if isinstance(error, Refused) and error.reason == "UNIMPLEMENTED":
                self._many = False  # KubeEdge's edgecore: one by one
                return
            raise
        ids = list(taken)
        for refusal in reply.refusals:
            if not 0 <= refusal.index < len(ids):
                continue
            id_ = ids[refusal.index]
            try:
                self._judge(dmi.as_error(refusal.code, refusal.text), id_)
            except _Unknown:
                self._samples[id_] = {**taken[id_], **self._samples.get(id_, {})}
                raise

    async def _tell(self, method: str, request: Message, id_: str) -> None:
        """One report."""
        try:
            await self._call(method, request)
        except (NotFound, Refused) as error:
            self._judge(error, id_)

    def _judge(self, error: SkerryError, id_: str) -> None:
        """A report was not taken.  A refusal is logged once and the report dropped: sending it again would not help.

        Raises: _Unknown, when edgecore does not know of us or of this device of ours."""
        if isinstance(error, NotFound):
            if id_ not in self._devices.ids():
                return
            raise _Unknown(str(error)) from error
        if isinstance(error, Refused):
            if (id_, str(error)) not in self._bad:
                self._bad.add((id_, str(error)))
                if len(self._bad) > 1000:
                    self._bad.clear()
                log.warning("Edgecore refuses a report of %s: %s", id_, error)
            if error.reason in ("PERMISSION_DENIED", "FAILED_PRECONDITION"):
                raise _Unknown(str(error)) from error

    async def _call(self, method: str, request: Message) -> Any:
        return await self._client.call(dmi.MANAGER[method], request, timeout_s=CALL_TIMEOUT_S)

    # --- edgecore's calls

    def _check(self, peer: dmi.Peer) -> None:
        """Only root, or the user that this mapper runs as, may give it devices."""
        if peer.uid not in (0, os.getuid()):
            raise Refused(f"user {peer.uid} may not do this", reason="Forbidden")

    async def _register_device(
        self, request: pb.RegisterDeviceRequest, peer: dmi.Peer
    ) -> pb.RegisterDeviceResponse:
        self._put_device(request.device, peer)
        return pb.RegisterDeviceResponse(
            deviceName=request.device.name, deviceNamespace=request.device.namespace
        )

    async def _update_device(
        self, request: pb.UpdateDeviceRequest, peer: dmi.Peer
    ) -> pb.UpdateDeviceResponse:
        self._put_device(request.device, peer)
        return pb.UpdateDeviceResponse()

    def _put_device(self, device: pb.Device, peer: dmi.Peer) -> None:
        self._check(peer)
        if not device.name or not device.namespace:
            raise Refused("the device has no name or no namespace", reason="InvalidValue")
        known = self._devices.ids()
        if len(known) >= MAX_DEVICES and f"{device.namespace}/{device.name}" not in known:
            raise Refused(f"there are {MAX_DEVICES} devices", reason="TooManyRequests")
        self._take(device)

    async def _remove_device(
        self, request: pb.RemoveDeviceRequest, peer: dmi.Peer
    ) -> pb.RemoveDeviceResponse:
        self._check(peer)
        if not self._give_up(f"{request.deviceNamespace}/{request.deviceName}"):
            raise NotFound(f"there is no device {request.deviceNamespace}/{request.deviceName}")
        return pb.RemoveDeviceResponse()

    async def _create_model(
        self, request: pb.CreateDeviceModelRequest, peer: dmi.Peer
    ) -> pb.CreateDeviceModelResponse:
        self._put_model(request.model, peer)
        return pb.CreateDeviceModelResponse(
            deviceModelName=request.model.name, deviceModelNamespace=request.model.namespace
        )

    async def _update_model(
        self, request: pb.UpdateDeviceModelRequest, peer: dmi.Peer
    ) -> pb.UpdateDeviceModelResponse:
        self._put_model(request.model, peer)
        return pb.UpdateDeviceModelResponse()

    def _put_model(self, model: pb.DeviceModel, peer: dmi.Peer) -> None:
        """Take a model; running devices take on its types and bounds (KubeEdge's keep the old ones)."""
        self._check(peer)
        self._models[f"{model.namespace}/{model.name}"] = model
        for device in list(self._protos.values()):
            if (device.namespace, device.spec.deviceModelReference) != (model.namespace, model.name):
                continue
            try:
                self._take(device)
            except SkerryError as error:
                # it goes on as it was, until it is told with what fits the new model
                log.warning(
                    "Device %s/%s does not fit the changed model %s: %s",
                    device.namespace,
                    device.name,
                    model.name,
                    error,
                )

    async def _remove_model(
        self, request: pb.RemoveDeviceModelRequest, peer: dmi.Peer
    ) -> pb.RemoveDeviceModelResponse:
        self._check(peer)
        self._models.pop(f"{request.modelNamespace}/{request.modelName}", None)
        return pb.RemoveDeviceModelResponse()

    async def _get_device(self, request: pb.GetDeviceRequest, peer: dmi.Peer) -> pb.GetDeviceResponse:
        self._check(peer)
        device = self._protos.get(f"{request.deviceNamespace}/{request.deviceName}")
        if device is None:
            raise NotFound(f"there is no device {request.deviceNamespace}/{request.deviceName}")
        return pb.GetDeviceResponse(device=device)

    async def _call_method(
        self, request: methods.CallMethodRequest, peer: dmi.Peer
    ) -> methods.CallMethodResponse:
        self._check(peer)
        id_ = f"{request.deviceNamespace}/{request.deviceName}"
        if id_ not in self._devices.ids():
            raise NotFound(f"there is no device {id_[:256]}")
        try:
            async with asyncio.timeout(min(max(request.timeoutMs, 1), MAX_CALL_MS) / 1000):
                result = await self._devices.call(id_, request.method, dict(request.values))
        except TimeoutError:
            raise Refused(f"{request.method} did not return within {request.timeoutMs} ms") from None
        return methods.CallMethodResponse(result=result)


class _Unknown(SkerryError):
    """Edgecore does not know us, or not this device of ours: register again."""


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _request(id_: str, samples: Mapping[str, Sample]) -> pb.ReportDeviceStatusRequest:
    namespace, _, name = id_.partition("/")
    request = pb.ReportDeviceStatusRequest(deviceName=name, deviceNamespace=namespace)
    now = str(clock.wall_ms())
    for sample in samples.values():
        twin = request.reportedDevice.twins.add(propertyName=sample.name)
        metadata = {"timestamp": now, "type": TWIN_TYPES.get(sample.type, "string")}
        twin.reported.value = sample.value
        twin.reported.metadata.update(metadata)
        if sample.anomaly:
            twin.reported.metadata[ANOMALY] = sample.anomaly
        twin.observedDesired.value = (
            sample.desired
        )  # both sides are always there: KubeEdge's edgecore dies of a missing one
        twin.observedDesired.SetInParent()
        twin.observedDesired.metadata.update(metadata)
    return request
