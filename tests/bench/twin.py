"""Print how long a wish and a reading take between the API and a driver, and what many devices cost.  Asserts nothing.

    python -m tests.bench.twin [--devices 300] [--edits 100]

cloudcore with its control plane, edgecore and `mapper run` are three processes as on real machines; no pods, no broker.  The
driver says by datagram when it was told to write, which is also the moment of the reading that follows.  Two runs: with the
usual second between two writes of one device's status, and with none.  Each figure is followed by what the machine itself
took from the three processes: the share of the time in which one of them could run and had no CPU."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from cloudcore.objects import DEVICE, DEVICEMODEL, DEVICESTATUS, NODE
from edgecore.edgehub import certificate
from edgecore.edgehub.certificate import Files
from tests.bench.devices import cpu_s, pss_mb, spread
from tests.integration.link import cloud as clouds
from tests.integration.link.cloud import Cloud, node_body

NODE_NAME, SETTLE_S, MEASURE_S = "edge-1", 8.0, 20.0
DRIVER = """
import socket
import time

from mappers.framework.driver import Driver

SAY = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


class Probe(Driver):
    protocol = "probe"

    async def open(self):
        self.level, self.count = 0, 0

    async def read(self, prop):
        if prop.name == "level":
            return self.level
        self.count += 1
        return self.count

    async def write(self, prop, value):
        self.level = value
        if self.id == "default/p0":
            SAY.sendto(f"{self.id} {value} {time.monotonic_ns()}".encode(), "SOCKET")
"""


def model() -> dict[str, Any]:
    rows = [{"name": name, "type": "INT", "accessMode": "ReadOnly"} for name in ("first", "second")]
    rows.append({"name": "level", "type": "INT", "accessMode": "ReadWrite"})
    return {"metadata": {"name": "probe"}, "spec": {"protocol": "probe", "properties": rows}}


def device(i: int, level: int = 1) -> dict[str, Any]:
    each = {"collectCycle": 1000, "reportToCloud": True}
    return {
        "metadata": {"name": f"p{i}"},
        "spec": {
            "deviceModelRef": {"name": "probe"},
            "nodeName": NODE_NAME,
            "protocol": {"protocolName": "probe", "configData": {}},
            "properties": [
                {"name": "first", **each},
                {"name": "second", **each},
                {"name": "level", **each, "desired": {"value": str(level)}},
            ],
        },
    }


@contextlib.contextmanager
def running(folder: Path, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(30)


def waited_s(pid: int) -> float:
    """How long the threads of a process could run and had no CPU."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[1]) / 1e9
    return total


class Rig:
    def __init__(self, cloud: Cloud, said: socket.socket, folder: Path) -> None:
        self.cloud, self.said, self.folder = cloud, said, folder
        self.shown: dict[tuple[str, str], float] = {}  # (device, level in the API) -> when it was seen first
        self.pids: dict[str, int] = {}
        self._level = 1

    async def watch(self) -> None:
        version = await self.cloud.api.current_version(DEVICESTATUS)
        while True:
            async for batch in self.cloud.api.watch(DEVICESTATUS, version):
                now = time.monotonic()
                for event in batch:
                    version = event.object.version
                    for twin in json.loads(event.object.raw).get("status", {}).get("twins", ()):
                        if twin["propertyName"] == "level" and "reported" in twin:
                            self.shown.setdefault((event.object.name, twin["reported"]["value"]), now)

    async def edits(self, count: int, *, pause_s: float) -> None:
        """Edit one device again and again, at any moment of its cycles."""
        loop = asyncio.get_running_loop()
        down, up = [], []
        before, began = self._waited(), time.monotonic()
        for _ in range(count):
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            self._level += 1
            level = self._level
            asked = time.monotonic()
            await self.cloud.patch(DEVICE, "p0", {"spec": device(0, level)["spec"]})
            while True:
                async with asyncio.timeout(60):
                    id_, value, at = (await loop.sock_recv(self.said, 200)).decode().split()
                if (id_, value) == ("default/p0", str(level)):
                    break
            wrote = int(at) / 1e9
            async with asyncio.timeout(60):
                while ("p0", str(level)) not in self.shown:
                    await asyncio.sleep(0.001)
            down.append((wrote - asked) * 1000)
            up.append((self.shown["p0", str(level)] - wrote) * 1000)
        share = (self._waited() - before) / (time.monotonic() - began)
        print(f"  wish in the API to driver's write  {spread(down)} of {count}")
        print(f"  driver's reading to the API        {spread(up)} of {count}; {share:.0%} waiting for a CPU")

    def _waited(self) -> float:
        return sum(waited_s(pid) for pid in self.pids.values())

    async def cost(self) -> None:
        before = {name: cpu_s(pid) for name, pid in self.pids.items()}
        version = int(await self.cloud.api.current_version(DEVICESTATUS))
        waited, began = self._waited(), time.monotonic()
        await asyncio.sleep(MEASURE_S)
        took = time.monotonic() - began
        writes = (int(await self.cloud.api.current_version(DEVICESTATUS)) - version) / took
        for name, pid in self.pids.items():
            print(
                f"  {name:<10} {(cpu_s(pid) - before[name]) / took:7.1%} of a core, {pss_mb(pid):5.1f} MB PSS"
            )
        share = (self._waited() - waited) / took
        print(f"  writes of the API {writes:7.1f} /s, all kinds; {share:.0%} waiting for a CPU")


@contextlib.asynccontextmanager
async def rig(folder: Path, status_ms: int) -> AsyncIterator[Rig]:
    (folder / "cloud").mkdir()
    with contextlib.ExitStack() as exits:
        process = exits.enter_context(clouds.process(folder / "cloud", status_ms=status_ms))
        said = exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        said.bind(str(folder / "said"))
        said.setblocking(False)
        async with clouds.using(process) as cloud:
            ca_hash = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cloud.ca)).hexdigest()
            token = certificate.parse_token(f"{ca_hash}.{await cloud.token()}")
            files = Files(folder / "edge" / "pki")
            await certificate.join(
                files, node=NODE_NAME, addresses=[cloud.hub], token=token, remember=[cloud.hub]
            )
            await cloud.create(NODE, node_body(NODE_NAME))
            config = folder / "edgecore.yaml"
            modules = {
                "edged": {"enable": False, "hostnameOverride": NODE_NAME},
                "eventBus": {"enable": False},
                "deviceTwin": {"dmiSockPath": str(folder)},
            }
            text = json.dumps({"dataDir": str(folder / "edge"), "modules": modules})
            await asyncio.to_thread(config.write_text, text)
            driver = folder / "probe.py"
            await asyncio.to_thread(driver.write_text, DRIVER.replace("SOCKET", str(folder / "said")))
            made = Rig(cloud, said, folder)
            child = exits.enter_context(
                running(folder, "edgecore", "edgecore.cli", "run", "--config", str(config))
            )
            made.pids["edgecore"] = child.pid
            command = ("mappers.cli", "run", str(driver), "--dmi-dir", str(folder))
            made.pids["mapper"] = exits.enter_context(running(folder, "mapper", *command)).pid
            made.pids["cloudcore"] = process.pid
            yield made


async def run(devices: int, edits: int, status_ms: int) -> None:
    with tempfile.TemporaryDirectory(prefix="skb") as name:
        async with rig(Path(name), status_ms) as made, asyncio.TaskGroup() as group:
            watch = group.create_task(made.watch())
            await made.cloud.create(DEVICEMODEL, model())
            for few, upto in ((0, 10), (10, devices)):
                for i in range(few, upto):
                    await made.cloud.create(DEVICE, device(i))
                async with asyncio.timeout(120):
                    while len({i for i, _ in made.shown}) < upto:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(SETTLE_S)
                print(f"{upto} devices of 3 properties a second, {status_ms} ms between writes of a status")
                await made.cost()
                await made.edits(edits, pause_s=0.7)
            watch.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=300)
    parser.add_argument("--edits", type=int, default=100)
    given = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for interval in (1000, 0):
        asyncio.run(run(given.devices, given.edits, interval))
