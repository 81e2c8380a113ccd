"""Methods: whom a call reaches, and what is said when it reaches nobody."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beehive._generated import methods_pb2 as methods
from beehive.apis.hardware import CANDIDATE_ANNOTATION
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from devicetwin.mapperlink import Link, MapperInfo
from devicetwin.module import DeviceTwin
from tests.unit.devicetwin.fakes import twin_message, until
from tests.unit.devicetwin.world import ID, World, recorded_object, run


def _device() -> dict[str, Any]:
    device = recorded_object("device")
    device["spec"]["methods"] = [{"name": "boost", "propertyNames": ["temperature"]}]
    device["metadata"]["annotations"] = {CANDIDATE_ANNOTATION: "camera-1"}
    return device


class _Link(Link):
    async def call_method(self, request: methods.CallMethodRequest) -> str:
        return f"{request.deviceNamespace}/{request.deviceName} {request.method} {request.timeoutMs}"


def test_a_call_says_why_it_reaches_nobody(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        async def call(id_: str = ID, method: str = "boost", timeout_s: float = 5) -> str:
            return await twin.call(id_, method, {}, timeout_s)

        with pytest.raises(NotFound):
            await call()
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", _device())
        with pytest.raises(Refused):
            await call(method="fly")
        with pytest.raises(Unavailable, match="no mapper runs"):
            await call()
        info = MapperInfo(name="m", protocol="vecproto", address="/nowhere")
        link = twin.dmi.links["m"] = _Link(info, twin.dispatch, random.Random(0))
        twin.dispatch.reassign()
        assert await call() == f"{ID} boost 5000"
        assert await call(timeout_s=1e9) == f"{ID} boost 300000"
        twin.plugged(frozenset())
        with pytest.raises(Unavailable, match="not plugged in"):
            await call()
        twin.plugged(frozenset({"camera-1"}))
        link.alive = False
        with pytest.raises(Unavailable, match="no mapper runs"):
            await call()

    run(folder, scenario)


@pytest.mark.parametrize("fault", [None, Unavailable("it hangs")])
def test_the_cloud_hears_the_end_of_its_call(folder: Path, fault: SkerryError | None) -> None:
    class Failing(_Link):
        async def call_method(self, request: methods.CallMethodRequest) -> str:
            if fault is not None:
                raise fault
            return await super().call_method(request)

    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", _device())
        info = MapperInfo(name="m", protocol="vecproto", address="/nowhere")
        twin.dmi.links["m"] = Failing(info, twin.dispatch, random.Random(0))
        twin.dispatch.reassign()
        call = {"id": "c1", "method": "boost", "timeout_ms": 2000}
        await twin.on_message(twin_message(f"device/{ID}/call", call))
        await until(lambda: "call/c1" in world.uplink.latest)
        said = msgspec.json.decode(bytes(world.uplink.latest["call/c1"].content))
        wanted = ("", "it hangs") if fault is not None else (f"{ID} boost 2000", "")
        assert (said.get("result", ""), said.get("error", "")) == wanted

    run(folder, scenario)
