"""Print what a hub takes and gives: memory for each edge, reconnect storms, deliveries.  Asserts nothing.

    python -m tests.bench.hub [--edges 300] [--pods 5000]

cloudcore runs in a process of its own with its control plane in the box; the edges are simulated (tests.bench.fleet) and speak
the real wire with real TLS.  With 2 cores, one is the hub's and one the fleet's."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from beehive import session
from cloudcore import kube
from cloudcore.errors import ApiExists
from cloudcore.kube import Kube
from cloudcore.objects import NODE, POD
from tests.bench.fleet import SimEdge, make_fleet

BIN = Path(sys.executable).parent


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:<58} {value:10.2f} {unit}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hub:
    """A cloudcore in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.api_port = free_port(), free_port()
        self.config = folder / "cloudcore.yaml"
        self.config.write_text(
            f"""apiVersion: cloudcore.config.kubeedge.io/v1alpha1
kind: CloudCore
modules:
  cloudHub:
    nodeLimit: 5000
    websocket: {{address: 127.0.0.1, port: {self.port}}}
  deviceController: {{enable: false}}
  standalone: {{address: 127.0.0.1, port: {self.api_port}, stateDir: {folder}/state}}
"""
        )
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> float:
        """Returns how long it took to listen, in seconds."""
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            command = [BIN / "cloudcore", "run", "--standalone", "--config", self.config]
            self.process = await asyncio.to_thread(subprocess.Popen, command, stderr=log, stdout=log)
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"cloudcore ended: {(self.folder / 'log').read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return time.monotonic() - began

    async def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, 30)

    def token(self, uses: int) -> str:
        command = [BIN / "cloudcore", "token", "create", "--config", self.config, "--uses", str(uses)]
        return subprocess.check_output(command, text=True).strip()

    def pss_kib(self) -> int:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise RuntimeError("no Pss in smaps_rollup")

    def cpu_s(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100.0


async def until(condition: object, limit_s: float = 120.0) -> float:
    """Seconds until `condition()` is true."""
    assert callable(condition)
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            raise SystemExit("the hub did not get there in time")
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def make_pods(client: Kube, nodes: list[str], count: int) -> None:
    """`count` pods spread over `nodes`, each about 1 KiB."""

    async def pod(number: int) -> None:
        node = nodes[number % len(nodes)]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p-{number}", "namespace": "default", "annotations": {"pad": "x" * 300}},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "busybox:1", "command": ["sleep", "1"]}],
            },
        }
        await client.create(POD, msgspec.json.encode(body), "default")

    for start in range(0, count, 200):
        async with asyncio.TaskGroup() as group:
            for number in range(start, min(count, start + 200)):
                group.create_task(pod(number))


async def make_nodes(client: Kube, names: list[str]) -> None:
    for name in names:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"node-role.kubernetes.io/edge": ""}},
        }
        try:
            await client.create(NODE, msgspec.json.encode(body))
        except ApiExists:
            continue


async def handshakes(edges: list[SimEdge], port: int) -> float:
    """Seconds that so many TLS handshakes need, and nothing else."""

    async def one(edge: SimEdge) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=edge.tls)
        writer.transport.abort()

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for edge in edges:
            group.create_task(one(edge))
    return time.monotonic() - began


async def memory_and_storms(hub: Hub, edges: list[SimEdge], storms: int) -> None:
    await asyncio.sleep(3)
    idle = hub.pss_kib()
    show("cloudcore with its control plane, no edge: PSS", idle / 1024, "MiB")
    async with asyncio.TaskGroup() as group:
        cpu = hub.cpu_s()
        tasks = [group.create_task(edge.run()) for edge in edges]
        show(
            f"{len(edges)} edges connected after",
            await until(lambda: all(e.connected.is_set() for e in edges)),
            "s",
        )
        show("  hub CPU for each connection", (hub.cpu_s() - cpu) * 1000 / len(edges), "ms")
        await asyncio.sleep(5)
        show("memory for each connected edge (PSS)", (hub.pss_kib() - idle) / len(edges), "KiB")
        for storm in range(1, storms + 1):
            wanted = {edge.name: edge.sessions + 1 for edge in edges}
            for edge in edges:
                if edge.link:
                    edge.link.transport.abort()
            took = await until(lambda wanted=wanted: all(e.sessions >= wanted[e.name] for e in edges))
            # cloudcore gives back what a storm left a few seconds after it
            await asyncio.sleep(6)
            show(f"storm {storm}: all back after", took, "s")
            show("  memory for each edge (PSS)", (hub.pss_kib() - idle) / len(edges), "KiB")
        cpu = hub.cpu_s()
        await asyncio.sleep(10)
        show("hub CPU with all idle", (hub.cpu_s() - cpu) * 10, "% of a core")
        alone = await handshakes(edges, hub.port)
        show(f"{len(edges)} TLS handshakes alone", alone, "s")
        await hub.stop()
        await until(lambda: not any(e.connected.is_set() for e in edges))
        show("cloudcore listens again after", await hub.start(), "s")
        took = await until(lambda: all(e.connected.is_set() for e in edges))
        show(f"{len(edges)} edges back after a restart, from when it listens", took, "s")
        show("  as often as the handshakes alone need", took / alone, "")
        for task in tasks:
            task.cancel()


async def deliveries(hub: Hub, edges: list[SimEdge], client: Kube, pods: int) -> None:
    names = [edge.name for edge in edges[:50]]
    await make_nodes(client, names)
    began = time.monotonic()
    await make_pods(client, names, pods)
    show("creates through the control plane", pods / (time.monotonic() - began), "/s")
    chosen = edges[:50]
    start = asyncio.Event()
    for edge in chosen:
        edge.held.clear()
        edge.applied = 0
        edge.start = start
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edge.run()) for edge in chosen]
        await until(lambda: all(edge.connected.is_set() for edge in chosen))
        await asyncio.sleep(1)
        cpu = hub.cpu_s()
        start.set()
        took = await until(lambda: sum(len(e.held) for e in chosen) >= pods)
        await asyncio.sleep(0.5)
        cost = (hub.cpu_s() - cpu) / pods
        show(f"{pods} objects to {len(chosen)} connected edges", pods / took, "objects/s")
        show("  hub CPU for each object, acknowledged", cost * 1e6, "µs")
        show("  objects for each second of one core of the hub", 1 / cost, "/s")
        show("  objects that went back in version", sum(e.went_back for e in chosen), "")
        for task in tasks:
            task.cancel()
    for edge in chosen:
        edge.start = None
    late = edges[50] if len(edges) > 50 else edges[-1]
    await make_nodes(client, [late.name])
    before = pods
    bodies = [before + number for number in range(500)]
    for start in range(0, 500, 100):
        async with asyncio.TaskGroup() as group:
            for number in bodies[start : start + 100]:
                body = {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": f"late-{number}", "namespace": "default"},
                    "spec": {
                        "nodeName": late.name,
                        "automountServiceAccountToken": False,
                        "containers": [{"name": "c", "image": "busybox:1"}],
                    },
                }
                group.create_task(client.create(POD, msgspec.json.encode(body), "default"))
    await asyncio.sleep(1)
    late.ack_delay_s = 0.1
    async with asyncio.TaskGroup() as group:
        task = group.create_task(late.run())
        took = await until(lambda: len(late.held) >= 500)
        show("500 objects to one edge whose acks come 100 ms late", took, "s")
        task.cancel()


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as name:
        hub = Hub(Path(name))
        show("cloudcore listens after", await hub.start(), "s")
        try:
            began = time.monotonic()
            edges = await make_fleet("127.0.0.1", hub.port, hub.token(options.edges), options.edges)
            show(f"{len(edges)} edges joined", len(edges) / (time.monotonic() - began), "/s")
            await hub.stop()
            show("cloudcore listens again after", await hub.start(), "s")
            await memory_and_storms(hub, edges, options.storms)
            client = Kube(kube.load(str(hub.folder / "state" / "admin.kubeconfig")))
            try:
                await deliveries(hub, edges, client, options.pods)
            finally:
                await client.close()
        finally:
            await hub.stop()
    print(f"a silent link is given up after {session.SILENCE_S:.0f} s by either end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=300)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--storms", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
