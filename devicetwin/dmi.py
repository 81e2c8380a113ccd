"""The edge's end of the DMI: the socket that mappers report to, and the mappers that are known (`mapperlink`).

The kernel says which user a peer is; a mapper reports only for devices of a protocol that this user has registered.
Source: protocol notes on DMI sections 4, 7 and 14."""

import asyncio
import logging
import random
import re
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2 as methods
from beehive.backoff import Backoff
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from devicetwin.assign import Candidate
from devicetwin.dmi_convert import readings
from devicetwin.mapperlink import Host, Link, MapperInfo
from devicetwin.membership import is_id, is_state

log = logging.getLogger(__name__)

MAX_MAPPERS = 64
MAX_TWINS = 1024  # in one report
MAX_REPORTS = 256  # in one call
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")


class Dmi:
    """The server for mappers, and their links."""

    def __init__(self, directory: Path, host: Host, *, rng: random.Random, mode: int = 0o660) -> None:
        self._host = host
        self._rng = rng
        self._group: asyncio.TaskGroup | None = None
        self.links: dict[str, Link] = {}
        self.counts: dict[str, int] = {"reports": 0, "refused": 0}
        self.server = dmi.Server(
            directory / dmi.SOCKET_NAME,
            [
                (dmi.MANAGER["MapperRegister"], self._register),
                (dmi.MANAGER["ReportDeviceStatus"], self._report),
                (dmi.MANAGER["ReportDeviceStates"], self._report_state),
                (dmi.REPORTS["ReportDevices"], self._report_many),
            ],
            mode=mode,
        )

    async def run(self) -> None:
        """Serve mappers and tell them of their devices.  Never returns."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for link in self.links.values():
                group.create_task(link.run(), name=f"mapper {link.info.name}")
            backoff = Backoff(base_s=1.0, cap_s=30.0)
            while True:
                try:
                    await self.server.serve()
                except Unavailable as error:
                    # Pods and MQTT devices do not need this socket, so the daemon stays up without it.
                    log.error("Mappers cannot register: %s", error)
                    await asyncio.sleep(backoff.next_s(self._rng))

    def restore(self, info: MapperInfo) -> None:
        """A mapper known from before the restart; it may still be running, and need not register again."""
        self.links[info.name] = Link(info, self._host, self._rng)

    def candidates(self) -> list[Candidate]:
        return [
            Candidate(name=n, protocol=k.info.protocol, alive=k.alive, callbacks=k.info.callbacks)
            for n, k in self.links.items()
        ]

    def look_at(self, mapper: str, id_: str) -> None:
        link = self.links.get(mapper)
        if link is not None and link.info.callbacks:
            link.look_at(id_)

    def model_changed(self, id_: str) -> None:
        """Have the mappers told that were given this model."""
        for link in self.links.values():
            if link.info.callbacks and link.has_model(id_):
                link.look_at_model(id_)

    def model_gone(self, id_: str, protocol: str) -> None:
        """Have the mappers told that may have this model: those of its protocol may from before this process began."""
        for link in self.links.values():
            if link.info.callbacks and (link.has_model(id_) or link.info.protocol == protocol):
                link.look_at_model(id_)

    # --- calls of mappers

    async def _register(self, request: pb.MapperRegisterRequest, peer: dmi.Peer) -> pb.MapperRegisterResponse:
        info = _info(request, peer)
        known = self.links.get(info.name)
        if known is None and len(self.links) >= MAX_MAPPERS:
            raise Refused(
                f"cannot register {info.name}: there are {MAX_MAPPERS} mappers", reason="TooManyRequests"
            )
        if (
            known is not None
            and known.info.uid != peer.uid
            and peer.uid != 0
            and dmi.reachable(known.info.address)
        ):
            raise Refused(
                f"cannot register {info.name}: another user's mapper has that name", reason="Forbidden"
            )
        if known is None:
            known = Link(info, self._host, self._rng)
            self.links[info.name] = known
            if self._group is not None:
                self._group.create_task(known.run(), name=f"mapper {info.name}")
        known.replace(info)
        tells = await self._host.registered(info)
        known.given(tells)
        log.info("Mapper %s registered for %s with %d devices", info.name, info.protocol, len(tells))
        response = pb.MapperRegisterResponse()
        for tell in tells:
            response.deviceList.append(tell.device)
            response.modelList.append(tell.model)
        return response

    async def _report_many(
        self, request: methods.ReportDevicesRequest, peer: dmi.Peer
    ) -> methods.ReportDevicesResponse:
        """Reports of many devices, each as if it had come alone; others get their turn in between."""
        if len(request.reports) > MAX_REPORTS:
            raise Refused(f"more than {MAX_REPORTS} reports in one call", reason="InvalidValue")
        response = methods.ReportDevicesResponse()
        for index, packed in enumerate(request.reports):
            try:
                report = pb.ReportDeviceStatusRequest.FromString(packed)
                await self._report(report, peer)
            except DecodeError as error:
                refusal = Refused(f"cannot read the report: {error}", reason="InvalidValue")
                response.refusals.add(index=index, code=dmi.status_code(refusal), text=str(refusal))
            except SkerryError as error:
                response.refusals.add(index=index, code=dmi.status_code(error), text=str(error)[:512])
            if index % 16 == 15:
                await asyncio.sleep(0)
        return response

    async def _report(
        self, request: pb.ReportDeviceStatusRequest, peer: dmi.Peer
    ) -> pb.ReportDeviceStatusResponse:
        id_ = self._may_report(request.deviceNamespace, request.deviceName, peer)
        if not request.reportedDevice.twins:
            raise Refused(f"the report for {id_} has no twins", reason="InvalidValue")
        if len(request.reportedDevice.twins) > MAX_TWINS:
            raise Refused(f"the report for {id_} has more than {MAX_TWINS} twins", reason="InvalidValue")
        self.counts["reports"] += 1
        bad = self._host.reported(id_, readings(request))
        if bad:
            self.counts["refused"] += len(bad)
            name, why = next(iter(bad.items()))
            raise Refused(f"the value of {name[:128]!r} of {id_} {why}", reason="InvalidValue")
        return pb.ReportDeviceStatusResponse()

    async def _report_state(
        self, request: pb.ReportDeviceStatesRequest, peer: dmi.Peer
    ) -> pb.ReportDeviceStatesResponse:
        id_ = self._may_report(request.deviceNamespace, request.deviceName, peer)
        # KubeEdge's framework offers a state that KubeEdge's edge does not know.
        state = "offline" if request.state.lower() == "disconnected" else request.state
        if not is_state(state):
            raise Refused(f"there is no state {request.state[:64]!r}", reason="InvalidValue")
        self._host.state_reported(id_, state)
        return pb.ReportDeviceStatesResponse()

    def _may_report(self, namespace: str, name: str, peer: dmi.Peer) -> str:
        """The device's id.  Raises: NotFound, Refused."""
        id_ = f"{namespace}/{name}"
        protocol = self._host.protocol_of(id_) if is_id(id_) else None
        if protocol is None:
            self.counts["refused"] += 1
            raise NotFound(f"there is no device {id_[:256]!r} on this node")
        if not any(k.info.protocol == protocol and k.info.uid == peer.uid for k in self.links.values()):
            self.counts["refused"] += 1
            raise Refused(
                f"no mapper of user {peer.uid} is registered for {protocol}, which {id_} needs",
                reason="Forbidden",
            )
        return id_


def _info(request: pb.MapperRegisterRequest, peer: dmi.Peer) -> MapperInfo:
    """Check a registration.  Raises: Refused."""
    mapper = request.mapper
    if not _NAME.fullmatch(mapper.name):
        raise Refused(f"not a mapper's name: {mapper.name[:64]!r}", reason="InvalidValue")
    if not mapper.protocol or len(mapper.protocol) > 128:
        raise Refused(
            f"mapper {mapper.name} names no protocol, or one that is too long", reason="InvalidValue"
        )
    try:
        address = mapper.address.decode()
    except UnicodeDecodeError:
        address = ""
    if request.withData and (not address.startswith("/") or "\0" in address or len(mapper.address) > 107):
        raise Refused(f"mapper {mapper.name} gives no path of a socket", reason="InvalidValue")
    return MapperInfo(
        name=mapper.name,
        protocol=mapper.protocol,
        address=address,
        version=mapper.version[:64],
        api_version=mapper.api_version[:64],
        uid=peer.uid,
        callbacks=request.withData,
    )


def by_name(links: Mapping[str, Link]) -> list[MapperInfo]:
    """For the local command line."""
    return [links[name].info for name in sorted(links)]
