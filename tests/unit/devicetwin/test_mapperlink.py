"""What a mapper is told of device models, over a real socket, by a mapper that keeps to KubeEdge's contract."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from beehive.errors import Refused, Unavailable
from devicetwin import mapperlink
from devicetwin.mapperlink import Link, MapperInfo
from devicetwin.module import DeviceTwin
from tests.unit.devicetwin.fakes import until
from tests.unit.devicetwin.world import ID, World, recorded_object, run

MODEL = "vectors/thermo"


class Mapper:
    """Keeps what it is told, as KubeEdge's framework does: a model that it does not know cannot be changed.

    refuses: names of calls that fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "m.sock"
        self.models: dict[str, pb.DeviceModel] = {}
        self.devices: dict[str, pb.Device] = {}
        self.calls: list[str] = []
        self.refuses: set[str] = set()
        self._serving: asyncio.Task[None] | None = None

    async def _put_model(self, request: Any, peer: dmi.Peer) -> Any:
        name = f"{request.model.namespace}/{request.model.name}"
        change = isinstance(request, pb.UpdateDeviceModelRequest)
        self._note("UpdateDeviceModel" if change else "CreateDeviceModel", name)
        if change and name not in self.models:
            raise Refused(f"update deviceModel {name} failed, not existed")
        self.models[name] = request.model
        return pb.UpdateDeviceModelResponse() if change else pb.CreateDeviceModelResponse()

    async def _remove_model(self, request: Any, peer: dmi.Peer) -> Any:
        name = f"{request.modelNamespace}/{request.modelName}"
        self._note("RemoveDeviceModel", name)
        self.models.pop(name, None)
        return pb.RemoveDeviceModelResponse()

    async def _put_device(self, request: Any, peer: dmi.Peer) -> Any:
        name = f"{request.device.namespace}/{request.device.name}"
        change = isinstance(request, pb.UpdateDeviceRequest)
        self._note("UpdateDevice" if change else "RegisterDevice", name)
        model = f"{request.device.namespace}/{request.device.spec.deviceModelReference}"
        if model not in self.models:
            raise Refused(f"deviceModel {model} not found")
        self.devices[name] = request.device
        return pb.UpdateDeviceResponse() if change else pb.RegisterDeviceResponse()

    async def _remove_device(self, request: Any, peer: dmi.Peer) -> Any:
        name = f"{request.deviceNamespace}/{request.deviceName}"
        self._note("RemoveDevice", name)
        self.devices.pop(name, None)
        return pb.RemoveDeviceResponse()

    def _note(self, call: str, name: str) -> None:
        self.calls.append(f"{call} {name}")
        if call in self.refuses:
            raise Refused("not this one")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        calls = {
            "CreateDeviceModel": self._put_model,
            "UpdateDeviceModel": self._put_model,
            "RemoveDeviceModel": self._remove_model,
            "RegisterDevice": self._put_device,
            "UpdateDevice": self._put_device,
            "RemoveDevice": self._remove_device,
        }
        server = dmi.Server(self.path, [(dmi.MAPPER[name], call) for name, call in calls.items()])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.serve())
            await server.ready.wait()
            try:
                yield
            finally:
                task.cancel()

    async def register(self) -> pb.MapperRegisterResponse:
        await until((self.folder / "dmi.sock").exists)
        with dmi.Client(str(self.folder / "dmi.sock")) as client:
            info = pb.MapperInfo(name="m", protocol="vecproto", address=str(self.path).encode())
            request = pb.MapperRegisterRequest(withData=True, mapper=info)
            answer: pb.MapperRegisterResponse = await client.call(
                dmi.MANAGER["MapperRegister"], request, timeout_s=30
            )
        self.models = {f"{m.namespace}/{m.name}": m for m in answer.modelList}
        self.devices = {f"{d.namespace}/{d.name}": d for d in answer.deviceList}
        return answer


def model(maximum: str = "100") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(recorded_object("devicemodel")))
    found["spec"]["properties"][0]["maximum"] = maximum
    # KubeEdge's cloud lets a model name another protocol than its devices have; the mapper has this one
    found["spec"]["protocol"] = "vecproto"
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapperlink, "PROBE_S", 0.05)


def play(folder: Path, scenario: Callable[[World, DeviceTwin, Mapper], Awaitable[None]]) -> World:
    async def main(world: World, twin: DeviceTwin) -> None:
        mapper = Mapper(folder)
        await world.put("devicemodel", model())
        await world.put("device", recorded_object("device"))
        async with mapper.serving():
            await mapper.register()
            await scenario(world, twin, mapper)

    return run(folder, main)


def idle(twin: DeviceTwin) -> bool:
    link = twin.dmi.links["m"]
    return not link._pending and not link._pending_models


def test_a_changed_model_is_updated_and_then_its_devices(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        await world.put("devicemodel", model("50"), "update")
        await until(lambda: len(mapper.calls) == 2 and idle(twin))
        assert mapper.calls == [f"UpdateDeviceModel {MODEL}", f"UpdateDevice {ID}"]
        assert mapper.models[MODEL].spec.properties[0].maximum == "50"
        # said again, it is no news
        await world.put("devicemodel", model("50"), "update")
        await until(lambda: idle(twin))
        assert len(mapper.calls) == 2

    play(folder, scenario)


def test_a_model_that_is_deleted_is_removed_and_its_device_goes_on(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        await world.put("devicemodel", model(), "delete")
        await until(lambda: bool(mapper.calls) and idle(twin))
        assert mapper.calls == [f"RemoveDeviceModel {MODEL}"]
        assert ID in mapper.devices
        # there again, another: it is made, not changed
        await world.put("devicemodel", model("60"))
        await until(lambda: len(mapper.calls) == 3 and idle(twin))
        assert mapper.calls[1:] == [f"CreateDeviceModel {MODEL}", f"UpdateDevice {ID}"]

    play(folder, scenario)


def test_a_device_goes_before_its_model(folder: Path) -> None:
    """`kubectl delete -f` deletes the model first, if it is first in the file."""

    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        await world.put("devicemodel", model(), "delete")
        await world.put("device", recorded_object("device"), "delete")
        await until(lambda: len(mapper.calls) == 2 and idle(twin))
        assert mapper.calls == [f"RemoveDevice {ID}", f"RemoveDeviceModel {MODEL}"]

    play(folder, scenario)


def test_a_mapper_that_registers_again_has_the_model_as_it_is_now(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        twin.dmi.links["m"].info = MapperInfo(name="m", protocol="vecproto", address="/nowhere")
        twin.dmi.links["m"]._client = dmi.Client("/nowhere")
        await world.put("devicemodel", model("50"), "update")
        await asyncio.sleep(0.1)
        assert mapper.calls == []
        answer = await mapper.register()
        assert answer.modelList[0].spec.properties[0].maximum == "50"
        await world.settle()
        await until(lambda: idle(twin))
        assert mapper.calls == []  # nothing is said twice
        await world.put("devicemodel", model("40"), "update")
        await until(lambda: len(mapper.calls) == 2)
        assert mapper.calls[0] == f"UpdateDeviceModel {MODEL}"

    play(folder, scenario)


def test_what_changes_while_a_mapper_is_away_is_told_when_it_answers_again(folder: Path) -> None:
    async def main(world: World, twin: DeviceTwin) -> None:
        mapper = Mapper(folder)
        await world.put("devicemodel", model())
        await world.put("device", recorded_object("device"))
        async with mapper.serving():
            await mapper.register()
        await world.put("devicemodel", model("50"), "update")
        await until(lambda: not twin.dmi.links["m"].alive)
        async with mapper.serving():
            await until(lambda: len(mapper.calls) == 2)
            assert mapper.calls == [f"UpdateDeviceModel {MODEL}", f"UpdateDevice {ID}"]
        # it began anew meanwhile, and has nothing
        mapper.calls.clear()
        mapper.models.clear()
        await world.put("devicemodel", model("40"), "update")
        async with mapper.serving():
            await until(lambda: len(mapper.calls) == 3)
            assert mapper.calls == [
                f"UpdateDeviceModel {MODEL}",
                f"CreateDeviceModel {MODEL}",
                f"UpdateDevice {ID}",
            ]

    run(folder, main)


def test_after_a_restart_of_edgecore_a_model_that_changed_meanwhile_is_created_and_one_that_goes_removed(
    folder: Path,
) -> None:
    """Nobody knows any more what the mapper was given."""

    async def first(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        await world.settle()

    world = play(folder, first)
    world.store.rows["devicemodel", MODEL] = json.dumps(model("50")).encode()

    async def again() -> None:
        mapper = Mapper(folder)
        async with mapper.serving(), world.running() as twin:
            await until(lambda: len(mapper.calls) == 2 and idle(twin))
            assert mapper.calls == [f"CreateDeviceModel {MODEL}", f"UpdateDevice {ID}"]

    async def once_more() -> None:
        mapper = Mapper(folder)
        async with mapper.serving(), world.running() as twin:
            await world.put("devicemodel", model("50"), "delete")
            await until(lambda: bool(mapper.calls) and idle(twin))
            assert mapper.calls == [f"RemoveDeviceModel {MODEL}"]

    asyncio.run(again())
    asyncio.run(once_more())


def test_a_mapper_that_refuses_a_model_hears_of_its_devices_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapperlink, "MAX_REFUSALS", 1)

    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        mapper.refuses = {"UpdateDeviceModel", "CreateDeviceModel"}
        await world.put("devicemodel", model("50"), "update")
        await until(lambda: idle(twin))
        (shown,) = twin.devices()
        assert "not this one" in shown["problems"][""]
        mapper.refuses = {"UpdateDeviceModel"}  # one that knows creating only
        mapper.calls.clear()
        await world.put("devicemodel", model("40"), "update")
        await until(lambda: bool(mapper.calls) and idle(twin))
        assert mapper.models[MODEL].spec.properties[0].maximum == "40"
        assert twin.devices()[0]["problems"] == {}

    play(folder, scenario)


def test_a_model_that_goes_while_it_is_told_is_removed_after_all(folder: Path) -> None:
    """The worker asks for the newest at the moment of telling, and looks again after."""
    models: dict[str, pb.DeviceModel] = {"a/m": pb.DeviceModel(name="m", namespace="a")}
    said: list[str] = []

    class Host:
        def model(self, id_: str) -> pb.DeviceModel | None:
            return models.get(id_)

    class Slow(Link):
        async def _call(self, method: str, request: Any) -> None:
            said.append(method)
            models.pop("a/m", None)
            await asyncio.sleep(0)

    async def main() -> None:
        link = Slow(MapperInfo(name="m", protocol="p", address="/x"), Host(), random.Random(0))  # type: ignore[arg-type]
        link.look_at_model("a/m")
        while link._pending_models:
            await link._settle_next()

    asyncio.run(main())
    assert said == ["CreateDeviceModel", "RemoveDeviceModel"]


def test_a_mapper_without_callbacks_is_told_of_no_model(folder: Path) -> None:
    async def main(world: World, twin: DeviceTwin) -> None:
        info = MapperInfo(name="m", protocol="vecproto", address="/x", callbacks=False)
        twin.dmi.links["m"] = Link(info, twin.dispatch, random.Random(0))
        await world.put("devicemodel", model())
        await world.put("devicemodel", model(), "delete")
        assert idle(twin)

    run(folder, main)


def test_a_call_that_has_no_answer_is_made_again(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin, mapper: Mapper) -> None:
        link = twin.dmi.links["m"]
        calls, failing = link._call, [True]

        async def fails(method: str, request: Any) -> None:
            if failing:
                failing.pop()
                raise Unavailable("it hangs")
            await calls(method, request)

        link._call = fails  # type: ignore[method-assign]
        await world.put("devicemodel", model("50"), "update")
        await until(lambda: len(mapper.calls) == 2)
        assert mapper.calls == [f"UpdateDeviceModel {MODEL}", f"UpdateDevice {ID}"]

    play(folder, scenario)
