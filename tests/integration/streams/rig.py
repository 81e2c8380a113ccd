"""Everything between kubectl and containerd on one stage: control plane, cloudstream, a tunnel, edgestream, edged."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from beehive import clock
from beehive.errors import NotFound, Unavailable
from cloudcore.cloudstream.measure import Measurer
from cloudcore.cloudstream.proxy import PodStreams
from cloudcore.cloudstream.tunnels import Tunnels
from cloudcore.identity.tls import use_certificate
from cloudcore.standalone.server import ControlPlane, StandaloneConfig
from edgecore.edged.cri import Cri
from edgecore.edgestream.client import EdgeStream
from edgecore.edgestream.edged import EdgedRuntime
from edgecore.edgestream.kubelet import Kubelet
from edgecore.edgestream.stock import StockTunnel
from tests.fakes.stockedge import StockEdge, kubelet_port
from tests.integration.edged.bench import Bench, stage
from tests.integration.edged.machine import Containerd

NODE = "edge-1"
KUBECTL_S = 30.0


class Line:
    """One end of a connection in memory; `cut` ends both."""

    def __init__(self, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]) -> None:
        self._inbox, self._outbox = inbox, outbox
        self.cut = asyncio.Event()
        # a queue lets who comes by chance overtake who waits
        self._turn = asyncio.Lock()

    @property
    def heard(self) -> float:
        return clock.monotonic()

    async def recv(self) -> bytes:
        frame = await self._inbox.get()
        if frame is None:
            raise Unavailable("connection cut")
        return frame

    async def send(self, data: bytes) -> None:
        async with self._turn:
            await self._outbox.put(data)

    async def ping(self, timeout_s: float) -> None:
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._outbox.put_nowait(None)


@dataclass
class Answer:
    code: int
    out: str
    err: str


@dataclass
class Rig:
    bench: Bench
    tunnels: Tunnels
    kubeconfig: Path
    pods: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    dials: int = 0
    line: Line | None = None
    stock: StockEdge | None = None

    async def dial(self, group: asyncio.TaskGroup, *, stock: bool = False) -> Line:
        self.dials += 1
        up: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        down: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        cloud, edge = Line(up, down), Line(down, up)
        serve = self.tunnels.serve_stock if stock else self.tunnels.serve_tunnel
        group.create_task(serve(NODE, cloud), name="tunnel")
        self.line = cloud
        return edge

    async def cut(self) -> None:
        """Break the tunnel, as a line does."""
        assert self.line is not None
        await self.line._outbox.put(None)
        await self.line._inbox.put(None)

    async def get_pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        found = self.pods.get((namespace, name))
        if found is None:
            raise NotFound("no such pod")
        return found

    @property
    def api(self) -> str:
        """The control plane's address."""
        return str(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    def client(self) -> aiohttp.ClientSession:
        """A client of the control plane that may do anything, with as many connections as it likes."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        certificate, key = (base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))
        use_certificate(context, certificate, key)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))

    async def start(
        self, *args: str, stdin: int = asyncio.subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            f"--kubeconfig={self.kubeconfig}",
            *args,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )

    async def kubectl(
        self, *args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Answer:
        pipe = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        process = await self.start(*args, stdin=pipe, env=env)
        try:
            async with asyncio.timeout(KUBECTL_S):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"kubectl {args} hangs: {out[-500:]!r} {err[-500:]!r}") from None
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())

    async def run_pod(self, pod: dict[str, Any], *, wait: bool = True) -> str:
        """Create a pod at the API, on our node, and have edged run it."""
        pod["spec"] |= {"nodeName": NODE, "automountServiceAccountToken": False}
        pod["metadata"].pop("uid", None)
        made = await self.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(pod).encode())
        assert made.code == 0, made.err
        body = json.loads(made.out)
        self.pods[body["metadata"]["namespace"], body["metadata"]["name"]] = body
        uid = self.bench.want(body)
        if wait:
            await self.bench.running(uid)
            # kubectl looks at it before it forwards a port
            status = json.dumps({"status": self.bench.status(uid)})
            name = body["metadata"]["name"]
            told = await self.kubectl(
                "patch", "pod", name, "--subresource=status", "--type=merge", "-p", status
            )
            assert told.code == 0, told.err
        return uid


async def until_lost(serving: Awaitable[None]) -> None:
    with contextlib.suppress(Unavailable):
        await serving


@contextlib.asynccontextmanager
async def rig(
    tmp: Path, machine: Containerd, *, switches: Mapping[str, bool] | None = None, stock: str = ""
) -> AsyncIterator[Rig]:
    """stock: the tunnel is KubeEdge's own, and its edge's end a stock edge's ("script") or ours ("ours")."""
    tunnels = Tunnels()
    async with stage("containerd", tmp, machine) as bench, bench.edged() as agent:
        config = StandaloneConfig(state_dir=tmp / "cp", listen_port=0)
        made = Rig(bench=bench, tunnels=tunnels, kubeconfig=config.kubeconfig)
        usage = Measurer(tunnels)
        plane = ControlPlane(
            config,
            kubelet_proxy=PodStreams(tunnels, get_pod=made.get_pod, switches=switches),
            usage=usage,
        )
        assert isinstance(bench.cri, Cri)
        runtime = EdgedRuntime(agent, bench.cri, node=NODE)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(plane.run())
            measuring = group.create_task(usage.run())
            await plane.started()

            async def dial() -> Line:
                return await made.dial(group)

            async with contextlib.AsyncExitStack() as stack:
                if stock == "ours":
                    edge = await made.dial(group, stock=True)
                    stack.push_async_callback(edge.close)
                    tunnel = StockTunnel(edge, Kubelet(runtime).serve)
                    carrying = group.create_task(until_lost(tunnel.run()))
                elif stock:
                    port = await stack.enter_async_context(kubelet_port(Kubelet(runtime).serve))
                    edge = await made.dial(group, stock=True)
                    stack.push_async_callback(edge.close)
                    made.stock = StockEdge(port, edge.send)
                    carrying = group.create_task(made.stock.serve(edge.recv))
                else:
                    carrying = group.create_task(EdgeStream(dial=dial, runtime=runtime).run())
                while not tunnels.connected(NODE):
                    await asyncio.sleep(0.01)
                try:
                    yield made
                finally:
                    for body in made.pods.values():
                        bench.delete(body, grace_s=1)
                    await bench.until(
                        lambda: set(bench.objects.wanted) <= set(bench.reports.gone), "pods gone"
                    )
                    carrying.cancel()
                    measuring.cancel()
                    serving.cancel()
