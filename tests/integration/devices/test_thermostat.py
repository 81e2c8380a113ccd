"""The twin part and a real `mapper run` process, over a real unix socket."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from beehive import clock, dmi
from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2
from beehive.errors import NotFound, Refused, Unavailable
from devicetwin.module import DeviceTwin
from tests.unit.devicetwin.fakes import (
    MemoryBus,
    MemoryStore,
    MemoryUplink,
    resource_message,
    twin_message,
    until,
)

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "deploy" / "samples"
ID = "default/thermostat"


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SAMPLES / f"thermostat-{name}.yaml").read_text())
    return document


def with_target(value: str) -> dict[str, Any]:
    device = sample("device")
    for prop in device["spec"]["properties"]:
        if prop["name"] == "target":
            prop["desired"] = {"value": value}
    return device


@pytest.fixture
def folder() -> Any:
    # Short: the path of a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="sk") as name:
        yield Path(name)


class Edge:
    """A DeviceTwin on fakes that can be stopped and started again on the same store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.uplink = MemoryUplink()
        self.bus = MemoryBus()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[DeviceTwin]:
        twin = DeviceTwin(
            node_name="edge-1",
            store=self.store,
            uplink=self.uplink,
            publisher=self.bus,
            dmi_dir=self.folder,
            clock=clock,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(twin.run())
            try:
                await until((self.folder / "dmi.sock").exists)
                yield twin
            finally:
                task.cancel()

    async def put(self, twin: DeviceTwin, kind: str, obj: dict[str, Any], operation: str = "insert") -> None:
        """As metamanager does: store, then pass on."""
        key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        if operation == "delete":
            self.store.rows.pop((kind, key), None)
        else:
            self.store.rows[kind, key] = msgspec.json.encode(obj)
        await twin.on_message(resource_message(kind, obj, operation))


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[dmi.Client]:
    with dmi.Client(str(path)) as client:
        yield client


@contextlib.asynccontextmanager
async def mapper(
    folder: Path, *extra: str, file: str = "mappers/virtual/thermostat.py"
) -> AsyncIterator[Any]:
    """A `mapper run` process; it must end cleanly on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mappers.cli", "run", file, "--dmi-dir", str(folder), *extra, cwd=ROOT
    )
    try:
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_desired_value_becomes_a_reading(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))
            async with mapper(folder):
                await until(lambda: edge.uplink.twin(ID).get("target") == ("21.5", "21.5"))
                await until(lambda: edge.uplink.state(ID) == "online")
                await asyncio.sleep(0.5)
                await edge.put(twin, "device", with_target("25"), "update")
                await until(lambda: edge.uplink.twin(ID)["target"] == ("25", "25"))
                await until(lambda: float(edge.uplink.twin(ID)["temperature"][0]) > 24.5)
                types = {
                    name: t["metadata"]["type"]
                    for name, t in msgspec.json.decode(edge.uplink.latest[f"twin/{ID}"].content)[
                        "twin"
                    ].items()
                }
                assert types == {"temperature": "float", "target": "float", "heating": "boolean"}
                (shown,) = twin.devices()
                assert shown["delivered"]
                assert shown["mapper"] == "virtual"
                # What was never wished for is not written: an out-of-range value is refused and the last good one stays.
                await edge.put(twin, "device", with_target("500"), "update")
                (shown,) = twin.devices()
                assert "is above the maximum" in shown["problems"]["target"]
                await asyncio.sleep(0.5)
                assert edge.uplink.twin(ID)["target"][0] == "25"

    asyncio.run(scenario())
    assert not list(folder.iterdir())


def test_either_side_may_restart(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with mapper(folder) as process:
            async with edge.running() as twin:
                await edge.put(twin, "devicemodel", sample("model"))
                await edge.put(twin, "device", sample("device"))
                await until(lambda: edge.uplink.twin(ID).get("target") == ("21.5", "21.5"))
            # While the edge is down, the wish changes in its store (as after a crash between storing and telling).
            edge.store.rows["device", ID] = msgspec.json.encode(with_target("23"))
            edge.uplink.latest.clear()
            async with edge.running():
                await until(lambda: edge.uplink.twin(ID).get("target") == ("23", "23"))
                process.kill()
                await process.wait()
                await until(lambda: edge.uplink.state(ID) == "unknown", 60)
                async with mapper(folder):
                    await until(lambda: edge.uplink.state(ID) == "online")
                    await until(lambda: edge.uplink.twin(ID)["target"] == ("23", "23"))

    asyncio.run(scenario())


def test_a_device_comes_and_goes_while_the_mapper_runs(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin, mapper(folder), contextlib.AsyncExitStack() as stack:
            await until((folder / "virtual.sock").exists)
            await until(lambda: "virtual" in twin.dmi.links)
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))
            await until(lambda: edge.uplink.twin(ID).get("target") == ("21.5", "21.5"))
            await edge.put(twin, "devicemodel", sample("model"), "delete")
            await edge.put(twin, "device", sample("device"), "delete")
            await until(lambda: ("twin", ID) not in edge.store.rows)
            client = stack.enter_context(dmi.Client(str(folder / "virtual.sock")))
            ask = pb.GetDeviceRequest(deviceNamespace="default", deviceName="thermostat")

            async def gone() -> bool:
                try:
                    await client.call(dmi.MAPPER["GetDevice"], ask, timeout_s=30)
                except NotFound:
                    return True
                return False

            async with asyncio.timeout(30):
                while not await gone():
                    await asyncio.sleep(0.05)
            assert twin.devices() == []

    asyncio.run(scenario())


def test_a_hanging_mapper_stalls_nobody_and_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket accepts and never answers; the thermostat's changes go through meanwhile."""
    monkeypatch.setattr("devicetwin.mapperlink.CALL_TIMEOUT_S", 1.0)

    async def scenario() -> None:
        edge = Edge(folder)
        other = sample("device")
        other["metadata"]["name"] = "stuck"
        other["spec"]["protocol"]["protocolName"] = "slow"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(folder / "slow.sock"))
            silent.listen()
            async with edge.running() as twin, mapper(folder), opened(folder / "dmi.sock") as client:
                info = pb.MapperInfo(name="slow", protocol="slow", address=os.fsencode(folder / "slow.sock"))
                request = pb.MapperRegisterRequest(withData=True, mapper=info)
                await client.call(dmi.MANAGER["MapperRegister"], request, timeout_s=30)
                await edge.put(twin, "devicemodel", sample("model"))
                await edge.put(twin, "device", other)
                await edge.put(twin, "device", sample("device"))
                await until(lambda: edge.uplink.twin(ID).get("target") == ("21.5", "21.5"))
                assert not next(d for d in twin.devices() if d["id"] == "default/stuck")["delivered"]
                # it told of its device once, and nobody knows how that is since it hangs
                twin.reports.state_reported("default/stuck", "online")
                await until(lambda: edge.uplink.state("default/stuck") == "unknown")
                assert edge.uplink.state(ID) == "online"

    asyncio.run(scenario())


def test_what_a_hostile_mapper_says_is_refused(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin, opened(folder / "dmi.sock") as client:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))

            async def register(**info: Any) -> None:
                request = pb.MapperRegisterRequest(withData=True, mapper=pb.MapperInfo(**info))
                await client.call(dmi.MANAGER["MapperRegister"], request, timeout_s=30)

            async def report(value: str, *, name: str = "thermostat", prop: str = "temperature") -> None:
                request = pb.ReportDeviceStatusRequest(deviceNamespace="default", deviceName=name)
                request.reportedDevice.twins.add(propertyName=prop).reported.value = value
                await client.call(dmi.MANAGER["ReportDeviceStatus"], request, timeout_s=30)

            for bad in (
                {"name": "", "protocol": "virtual", "address": b"/x"},
                {"name": "../x", "protocol": "virtual", "address": b"/x"},
                {"name": "x" * 200, "protocol": "virtual", "address": b"/x"},
                {"name": "m", "protocol": "", "address": b"/x"},
                {"name": "m", "protocol": "virtual", "address": b"relative"},
                {"name": "m", "protocol": "virtual", "address": b"\xff"},
                {"name": "m", "protocol": "virtual", "address": b"/" + b"x" * 200},
            ):
                with pytest.raises(Refused):
                    await register(**bad)
            with pytest.raises(Refused, match="no mapper"):
                await report("20")
            await register(name="m", protocol="virtual", address=b"/nowhere.sock")
            await report("20")
            for value in ("NaN", "1e999", "warm", "", "9" * 5000):
                with pytest.raises(Refused):
                    await report(value)
            with pytest.raises(NotFound):
                await report("20", name="other")
            with pytest.raises(NotFound):
                await report("20", name="../etc")
            with pytest.raises(Refused):
                await report("20", prop="x" * 600_000)
            await until(lambda: edge.uplink.twin(ID).get("temperature", ("",))[0] == "20")
            with pytest.raises(Refused, match="limit"):
                await report("20", name="x" * 2_000_000)

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_closed_and_a_flood_leaves_the_others_their_turn(folder: Path) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    pings = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0, *range(8))) * 1000  # each asks for an answer

    def send_for_ever(sock: socket.socket) -> None:
        sock.sendall(preface)
        while True:
            sock.sendall(pings)

    def never_reading() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(120)
            sock.connect(str(folder / "dmi.sock"))
            with pytest.raises(ConnectionError):
                send_for_ever(sock)

    async def scenario() -> None:
        edge = Edge(folder)
        noise = sample("device")
        noise["metadata"]["name"] = "noise"
        noise["spec"]["protocol"]["protocolName"] = "noise"
        calls = 0

        async def flood(client: dmi.Client) -> None:
            nonlocal calls
            request = pb.ReportDeviceStatusRequest(deviceNamespace="default", deviceName="noise")
            reading = request.reportedDevice.twins.add(propertyName="temperature").reported
            while True:
                calls += 1
                reading.value = str(calls)
                await client.call(dmi.MANAGER["ReportDeviceStatus"], request, timeout_s=60)

        async with edge.running() as twin, mapper(folder), opened(folder / "dmi.sock") as client:
            info = pb.MapperInfo(name="noise", protocol="noise", address=b"/nowhere")
            register = pb.MapperRegisterRequest(withData=False, mapper=info)
            await client.call(dmi.MANAGER["MapperRegister"], register, timeout_s=30)
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", noise)
            await edge.put(twin, "device", sample("device"))
            async with asyncio.TaskGroup() as group:
                floods = [group.create_task(flood(client)) for _ in range(16)]
                silent = group.create_task(asyncio.to_thread(never_reading))
                for target in ("25", "15", "30"):
                    await edge.put(twin, "device", with_target(target), "update")
                    await until(lambda target=target: edge.uplink.twin(ID).get("target") == (target, target))  # type: ignore[misc]
                await silent
                for task in floods:
                    task.cancel()
            assert calls > 16
            said = [m for m in edge.uplink.sent if m.route.resource.startswith("device/default/noise/twin")]
            assert len(said) < calls  # coalesced

    asyncio.run(scenario())


@pytest.mark.slow
def test_two_mappers_of_one_protocol_share_its_devices(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        mine, theirs = sample("device"), sample("device")
        mine["metadata"]["name"] = "mine"
        mine["metadata"]["annotations"] = {"skerry.dev/mapper": "two"}
        theirs["metadata"]["name"] = "free"

        def owners(twin: DeviceTwin) -> dict[str, str]:
            return {d["id"]: d["mapper"] for d in twin.devices() if d["delivered"]}

        async with edge.running() as twin, mapper(folder, "--name", "one") as first:
            await until(lambda: "one" in twin.dmi.links)
            async with mapper(folder, "--name", "two"):
                await until(lambda: "two" in twin.dmi.links)
                await edge.put(twin, "devicemodel", sample("model"))
                await edge.put(twin, "device", mine)
                await edge.put(twin, "device", theirs)
                await until(lambda: owners(twin) == {"default/mine": "two", "default/free": "one"})
                # One dies: the other takes what was not bound to it, and what is bound stays.
                first.kill()
                await first.wait()
                await until(lambda: owners(twin) == {"default/mine": "two", "default/free": "two"}, 60)
                await until(lambda: edge.uplink.state("default/free") == "online")

    asyncio.run(scenario())


def test_a_method_is_called_and_its_failure_is_told(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))
            with pytest.raises(Unavailable, match="no mapper runs"):
                await twin.call(ID, "boost", {}, 5)
            async with mapper(folder):
                await until(lambda: edge.uplink.twin(ID).get("target") == ("21.5", "21.5"), 30)
                assert (await twin.call(ID, "boost", {}, 5)).endswith("celsius now")
                for method, values, words in (
                    ("sing", {}, "no method 'sing'; the device has boost"),
                    ("boost", {"target": "7"}, "takes no 'target'"),
                ):
                    with pytest.raises(Refused, match=words):
                        await twin.call(ID, method, values, 5)
                with pytest.raises(NotFound):
                    await twin.call("default/nobody", "boost", {}, 5)
                # by the cloud's message; the answer is a report
                await twin.on_message(
                    twin_message(f"device/{ID}/call", {"id": "uid-1", "method": "boost", "timeout_ms": 5000})
                )
                await until(lambda: "call/uid-1" in edge.uplink.latest, 30)
                answer = edge.uplink.latest["call/uid-1"]
                assert answer.route.resource == f"device/{ID}/call/uid-1"
                assert msgspec.json.decode(answer.content)["result"].endswith("celsius now")
                await twin.on_message(
                    twin_message(f"device/{ID}/call", {"id": "uid-2", "method": "sing", "timeout_ms": 5000})
                )
                await until(lambda: "call/uid-2" in edge.uplink.latest, 30)
                assert "no method" in msgspec.json.decode(edge.uplink.latest["call/uid-2"].content)["error"]

    asyncio.run(scenario())


DRIVERS = """
import asyncio
from mappers.framework.driver import Driver

class Odd(Driver):
    protocol = "virtual"

    async def read(self, prop):
        return 1.0 if prop.type == "FLOAT" else False

    async def write(self, prop, value):
        pass

    async def call(self, method, values):
        if method == "hang":
            await asyncio.sleep(600)
        if method == "echo":
            return values["target"]
        raise ValueError("odd")
"""


def test_a_method_that_hangs_or_fails_holds_nobody_up(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        file = folder / "odd.py"
        file.write_text(DRIVERS)
        device = sample("device")
        device["spec"]["methods"] = [
            {"name": n, "propertyNames": ["target"]} for n in ("hang", "fail", "echo")
        ]
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", device)
            async with mapper(folder, file=str(file)):
                await until(lambda: edge.uplink.twin(ID).get("heating") == ("false", ""), 30)
                with pytest.raises(Refused, match="fail failed: ValueError: odd"):
                    await twin.call(ID, "fail", {}, 5)
                with pytest.raises(Refused, match="did not return within 300 ms"):
                    await twin.call(ID, "hang", {}, 0.3)
                assert await twin.call(ID, "echo", {"target": "7"}, 5) == "7"
                with pytest.raises(Refused, match="above the maximum"):
                    await twin.call(ID, "echo", {"target": "99"}, 5)
                assert twin.devices()[0]["state"] == "online"

    asyncio.run(scenario())


def test_reports_of_many_devices_in_one_call_are_judged_one_by_one(folder: Path) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))
            async with opened(folder / "dmi.sock") as client:
                mapper_ = pb.MapperInfo(name="x", protocol="virtual", state="ok")
                await client.call(
                    dmi.MANAGER["MapperRegister"], pb.MapperRegisterRequest(mapper=mapper_), timeout_s=5
                )

                def report(name: str, value: str, prop: str = "temperature") -> bytes:
                    one = pb.ReportDeviceStatusRequest(deviceNamespace="default", deviceName=name)
                    one.reportedDevice.twins.add(propertyName=prop).reported.value = value
                    return one.SerializeToString()

                request = methods_pb2.ReportDevicesRequest(
                    reports=[
                        report("thermostat", "20.5"),
                        report("nobody", "1"),
                        b"\xff\xff",
                        report("thermostat", "warm"),
                        report("thermostat", "22.5", "target"),
                    ]
                )
                reply = await client.call(dmi.REPORTS["ReportDevices"], request, timeout_s=5)
                assert [refusal.index for refusal in reply.refusals] == [1, 2, 3]
                assert "no device" in reply.refusals[0].text
                values = twin.devices()[0]["twins"]
                assert (values["temperature"]["reported"], values["target"]["reported"]) == ("20.5", "22.5")
                flood = methods_pb2.ReportDevicesRequest(reports=[b""] * 257)
                with pytest.raises(Refused, match="more than 256"):
                    await client.call(dmi.REPORTS["ReportDevices"], flood, timeout_s=5)

    asyncio.run(scenario())


def test_many_devices_report_to_an_edgecore_of_either_kind(folder: Path) -> None:
    """One that takes many reports in a call, and KubeEdge's, which does not know of that."""

    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            for number in range(5):
                device = sample("device")
                device["metadata"]["name"] = f"t{number}"
                await edge.put(twin, "device", device)
            async with mapper(folder):
                await until(
                    lambda: all(d["twins"].get("heating", {}).get("reported") for d in twin.devices()), 30
                )

    asyncio.run(scenario())
    # the mapper is another process: it asks for the method by its own name
    method = dmi.REPORTS["ReportDevices"]
    dmi.REPORTS["ReportDevices"] = replace(method, path="/skerry.v1.Nobody/ReportDevices")
    try:
        asyncio.run(scenario())
    finally:
        dmi.REPORTS["ReportDevices"] = method
