"""What a mapper takes from edgecore."""

import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from beehive import dmi as wire
from beehive._generated import dmi_pb2 as pb
from beehive.errors import Refused
from mappers.framework import dmi
from mappers.framework.dmi import EdgeLink, Identity
from mappers.framework.spec import DeviceSpec


class Devices:
    def __init__(self) -> None:
        self.known: dict[str, DeviceSpec] = {}

    def put(self, spec: DeviceSpec) -> None:
        self.known[spec.id] = spec

    def remove(self, id_: str) -> bool:
        return self.known.pop(id_, None) is not None

    def ids(self) -> frozenset[str]:
        return frozenset(self.known)

    async def call(self, id_: str, method: str, texts: Mapping[str, str]) -> str:
        raise NotImplementedError


def device(name: str) -> pb.Device:
    made = pb.Device(name=name, namespace="default")
    made.spec.deviceModelReference = "m"
    return made


def test_with_as_many_devices_as_can_be_those_are_still_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dmi, "MAX_DEVICES", 1)
    identity = Identity(name="m", protocol="p", version="v1", address=tmp_path / "m.sock")
    devices = Devices()
    link = EdgeLink(identity, tmp_path / "dmi.sock", devices, rng=random.Random(0))
    us = wire.Peer(pid=0, uid=os.getuid(), gid=0)

    async def scenario() -> None:
        await link._create_model(
            pb.CreateDeviceModelRequest(model=pb.DeviceModel(name="m", namespace="default")), us
        )
        await link._register_device(pb.RegisterDeviceRequest(device=device("a")), us)
        await link._update_device(pb.UpdateDeviceRequest(device=device("a")), us)
        with pytest.raises(Refused, match="there are 1 devices"):
            await link._register_device(pb.RegisterDeviceRequest(device=device("b")), us)

    asyncio.run(scenario())
    assert devices.ids() == {"default/a"}
