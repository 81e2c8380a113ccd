"""`mapper supervise` beside edgecore's part for devices: it starts the mapper that a device needs, keeps it, and tells of real
hardware that comes and goes in a network namespace of its own."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("pyudev")

from beehive.apis import hardware
from beehive.apis.hardware import CANDIDATE_ANNOTATION, Report, Seen
from beehive.message import Message
from devicetwin.module import DeviceTwin
from edgecore.hardware import Hardware
from edgecore.local import LocalSocket
from tests.fakes.edged import FakeState
from tests.integration.devices.test_thermostat import ROOT, Edge
from tests.unit.devicetwin.fakes import until

root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
WAIT_S = 40.0

DRIVER = '''
import os
from mappers.framework.driver import Driver

class Port(Driver):
    """A network port: which process reads it, and whether it is there."""
    protocol = "netport"

    def read(self, prop):
        if prop.name == "version":
            return VERSION
        if prop.name == "pid":
            return os.getpid()
        return open(f"/sys/class/net/{self.settings.text('port')}/ifindex").read()

VERSION = 1
'''
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "port", "namespace": "default"},
    "spec": {
        "protocol": "netport",
        "properties": [
            {"name": n, "type": "INT", "accessMode": "ReadOnly"} for n in ("index", "pid", "version")
        ],
    },
}
RULE = {
    "apiVersion": hardware.API_VERSION,
    "kind": "HardwareRule",
    "metadata": {"name": "ports", "namespace": "default"},
    "spec": {"match": {"subsystem": "net", "name": "va*"}},
}


def device(port: str, candidate: str) -> dict[str, Any]:
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {
            "name": "port",
            "namespace": "default",
            "annotations": {CANDIDATE_ANNOTATION: candidate},
        },
        "spec": {
            "deviceModelRef": {"name": "port"},
            "nodeName": "edge-1",
            "protocol": {"protocolName": "netport", "configData": {"port": port}},
            "properties": [
                {"name": name, "reportToCloud": True, "collectCycle": 100}
                for name in ("index", "pid", "version")
            ],
        },
    }


class Cloud:
    """What metamanager is to `Hardware`."""

    ours = True

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []
        self.seen: list[Seen] | None = None

    async def known(self, kind: str, namespace: str = "") -> list[msgspec.Raw]:
        assert kind == "hardwarerule"
        return [msgspec.Raw(msgspec.json.encode(rule)) for rule in self.rules]

    async def send(self, message: Message, *, coalesce: str) -> None:
        self.seen = msgspec.json.decode(bytes(message.content), type=Report).seen


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sk") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "drivers").mkdir(exist_ok=True)
    command = 'mount -t sysfs sysfs /sys && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "--mount", "sh", "-c", command, "sh"),
        *(sys.executable, "-m", "mappers.cli", "supervise"),
        *("--edgecore", str(folder / "edgecore.sock"), "--drivers", str(folder / "drivers")),
        *("--dmi-dir", str(folder), "--buffer-dir", str(folder / "buffer")),
        *("--settle", "0.1", "--grace", "0.3", "--source", "kernel"),
        cwd=ROOT,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def edgecore(folder: Path, cloud: Cloud) -> AsyncIterator[tuple[Edge, DeviceTwin, Hardware]]:
    edge = Edge(folder)
    async with edge.running() as twin:
        found = Hardware("edge-1", cloud, twin, FakeState())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(LocalSocket(folder / "edgecore.sock", {"hardware": found.answer}).run())
            try:
                yield edge, twin, found
            finally:
                task.cancel()


def shown(twin: DeviceTwin) -> dict[str, Any]:
    return next(iter(twin.devices()), {})


def reading(twin: DeviceTwin, name: str) -> str | None:
    found = shown(twin).get("twins", {}).get(name) or {}
    value: str | None = found.get("reported")
    return value


def told(edge: Edge) -> str:
    """What the cloud hears to be wrong with the device as a whole."""
    message = edge.uplink.latest.get("twin/default/port")
    problems = msgspec.json.decode(bytes(message.content)).get("problems", []) if message is not None else []
    return next((one["message"] for one in problems if not one["property"]), "")


async def ip(process: asyncio.subprocess.Process, *arguments: str) -> None:
    inside = await asyncio.create_subprocess_exec("nsenter", "-t", str(process.pid), "-n", "ip", *arguments)
    assert await inside.wait() == 0


@root
def test_hardware_is_told_and_its_mapper_runs_while_it_is_needed(folder: Path) -> None:
    async def scenario() -> None:
        cloud = Cloud()
        cloud.rules = [RULE, {**RULE, "metadata": {"name": "wrong"}, "spec": {"match": 7}}]
        create = ("link", "add", "va0", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "vb0")
        async with edgecore(folder, cloud) as (edge, twin, found), supervised(folder) as process:
            driver = folder / "drivers" / "port.py"
            driver.write_text(DRIVER)
            # nothing is plugged in: that is known, which is more than nothing
            await until(lambda: cloud.seen == [], WAIT_S)
            await ip(process, *create)
            await until(lambda: bool(cloud.seen), WAIT_S)
            assert cloud.seen is not None
            candidate = hardware.object_name("edge-1", cloud.seen[0])

            await edge.put(twin, "devicemodel", MODEL)
            await edge.put(twin, "device", device("va0", candidate))
            await until(lambda: reading(twin, "index") is not None, WAIT_S)
            assert shown(twin)["mapper"] == "auto-netport"
            assert shown(twin)["state"] == "online"
            assert found.plugged_in() == {"port": 1}
            assert "no device node" in str(found.device("default", "port"))

            # a mapper that is killed is started again
            first = reading(twin, "pid")
            assert first is not None
            os.kill(int(first), signal.SIGKILL)
            await until(lambda: reading(twin, "pid") not in (None, first), WAIT_S)

            # another driver file: the mapper runs with the new one
            driver.write_text(DRIVER.replace("VERSION = 1", "VERSION = 2"))
            await until(lambda: reading(twin, "version") == "2", WAIT_S)

            # pulled out: offline; plugged in again: the same device
            await ip(process, "link", "delete", "va0")
            await until(lambda: shown(twin)["state"] == "offline", WAIT_S)
            assert found.plugged_in() == {"port": 0}
            assert "not plugged in" in str(found.device("default", "port"))
            await ip(process, *create)
            await until(lambda: shown(twin)["state"] == "online", WAIT_S)
            assert [hardware.object_name("edge-1", seen) for seen in cloud.seen or ()] == [candidate]
            pid = int(reading(twin, "pid") or 0)
        # with the supervisor its mappers end, too
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(scenario())


@root
@pytest.mark.slow
def test_why_nothing_serves_a_device_is_said_on_it(folder: Path) -> None:
    second = DRIVER.replace("class Port", "class Second").partition("class")[2]
    faults = {
        "no driver": (None, "there is no driver for netport: put one into"),
        "syntax": (DRIVER + "\ndef (\n", "port.py is not used: line "),
        "missing module": ("import nothing_of_the_kind\n" + DRIVER, "No module named 'nothing_of_the_kind'"),
        "two classes": (DRIVER + "\n\nclass" + second, "found: Port, Second"),
        "no class": ("protocol = 'netport'\n", "it has no class with a protocol"),
    }

    async def scenario() -> None:
        cloud = Cloud()
        async with edgecore(folder, cloud) as (edge, twin, _), supervised(folder):
            file = folder / "drivers" / "port.py"
            await edge.put(twin, "devicemodel", MODEL)
            await edge.put(twin, "device", device("lo", ""))
            for text, says in faults.values():
                if text is not None:
                    file.write_text(text)
                await until(lambda says=says: says in shown(twin)["problems"].get("", ""), WAIT_S)  # type: ignore[misc]
                await until(lambda says=says: says in told(edge), WAIT_S)  # type: ignore[misc]
            file.write_text(DRIVER)
            await until(lambda: reading(twin, "index") is not None, WAIT_S)
            assert shown(twin)["problems"] == {}

    asyncio.run(scenario())
