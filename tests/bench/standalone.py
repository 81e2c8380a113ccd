"""What the control plane in the box takes: `python -m tests.bench.standalone`.  Prints; asserts nothing.

The control plane runs in a process of its own with nothing beside it; this process is its only client, on the same
machine, so what is measured is both ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.integration.standalone.server import client

Json = dict[str, Any]
ONE_AT_A_TIME = 300
PARALLEL = 16
MAPS = 2000
PODS = 2000
WATCHES = 200
OBJECTS = 10_000
NODES = 20
LISTS = 7


def show(what: str, value: str) -> None:
    print(f"{what:<62}{value:>18}", flush=True)


class Plane:
    """A control plane that serves a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Seconds until it serves."""
        began = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.standalone.server",
            str(self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"
        return time.monotonic() - began

    async def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    def memory_mib(self) -> float:
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024

    @property
    def server(self) -> str:
        config = yaml.safe_load((self.folder / "admin.kubeconfig").read_text())
        return str(config["clusters"][0]["cluster"]["server"])


@contextlib.asynccontextmanager
async def plane() -> AsyncIterator[tuple[Plane, aiohttp.ClientSession]]:
    with tempfile.TemporaryDirectory(prefix="skb") as folder:
        made = Plane(Path(folder))
        await made.start()
        try:
            async with client(Path(folder)) as session:
                yield made, session
        finally:
            await made.stop()


def config_map(number: int) -> Json:
    return {"metadata": {"name": f"m-{number}"}, "data": {"key": "value" * 20}}


def pod(number: int, **spec: Any) -> Json:
    container = {
        "name": "web",
        "image": "registry.local/web:1",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    }
    return {
        "metadata": {"name": f"p-{number}", "labels": {"app": "web", "number": str(number)}},
        "spec": {"containers": [container], **spec},
    }


async def create(session: aiohttp.ClientSession, url: str, body: Json) -> Json:
    async with session.post(url, json=body) as answer:
        value: Json = await answer.json()
        assert answer.status == 201, value
        return value


async def many(session: aiohttp.ClientSession, url: str, bodies: list[Json], parallel: int) -> float:
    """Objects a second, so many at a time."""
    left = iter(bodies)

    async def work() -> None:
        for body in left:
            await create(session, url, body)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work())
    return len(bodies) / (time.monotonic() - began)


async def nodes(session: aiohttp.ClientSession, server: str, count: int) -> None:
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
    ready = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]
    headers = {"Content-Type": "application/merge-patch+json"}
    for number in range(count):
        node = {"metadata": {"name": f"n-{number}"}, "status": {"capacity": capacity}}
        await create(session, f"{server}/api/v1/nodes", node)
        url = f"{server}/api/v1/nodes/n-{number}"
        async with session.patch(
            f"{url}/status", json={"status": {"conditions": ready}}, headers=headers
        ) as answer:
            assert answer.status == 200
        async with session.patch(url, json={"spec": {"taints": None}}, headers=headers) as answer:
            assert answer.status == 200


async def speed() -> None:
    for what, plural, made in (("config maps", "configmaps", config_map), ("pods", "pods", pod)):
        for parallel, count in ((1, ONE_AT_A_TIME), (PARALLEL, MAPS)):
            async with plane() as (at, session):
                url = f"{at.server}/api/v1/namespaces/default/{plural}"
                # these pods are for a node that is named, as an operator of boards writes them
                extra = {"nodeName": "n-0"} if plural == "pods" else {}
                bodies = [made(n, **extra) if extra else made(n) for n in range(count)]
                rate = await many(session, url, bodies, parallel)
                show(f"creates of {what}, {parallel} at a time", f"{rate:.0f}/s")
    async with plane() as (at, session):
        await nodes(session, at.server, NODES)
        url = f"{at.server}/api/v1/namespaces/default/pods"
        began = time.monotonic()
        rate = await many(session, url, [pod(n) for n in range(PODS)], PARALLEL)
        show(f"creates of pods that are scheduled to {NODES} nodes, {PARALLEL} at a time", f"{rate:.0f}/s")
        bound = 0
        while bound < PODS:
            async with session.get(f"{url}?fieldSelector=spec.nodeName=") as answer:
                bound = PODS - len((await answer.json())["items"])
            await asyncio.sleep(0.2)
        show(f"... until all {PODS} are bound", f"{time.monotonic() - began:.1f} s")


async def latency() -> None:
    async with plane() as (at, session):
        url = f"{at.server}/api/v1/namespaces/default/configmaps"
        sent: dict[str, float] = {}
        took: list[float] = []
        async with session.get(f"{url}?watch=true&resourceVersion=0") as events:

            async def see() -> None:
                async for line in events.content:
                    name = json.loads(line)["object"]["metadata"].get("name", "")
                    if name in sent:
                        took.append(time.monotonic() - sent[name])
                    if len(took) == ONE_AT_A_TIME:
                        return

            async with asyncio.TaskGroup() as group:
                group.create_task(see())
                for number in range(ONE_AT_A_TIME):
                    sent[f"m-{number}"] = time.monotonic()
                    await create(session, url, config_map(number))
                    await asyncio.sleep(0.005)
        ordered = sorted(took)
        p99 = ordered[int(len(ordered) * 0.99)]
        show(
            "request sent -> event of it seen, p50 / p99",
            f"{1000 * statistics.median(ordered):.1f} / {1000 * p99:.1f} ms",
        )


async def size() -> None:
    async with plane() as (at, session):
        await asyncio.sleep(2)
        idle = at.memory_mib()
        show("memory idle (PSS)", f"{idle:.1f} MiB")
        url = f"{at.server}/api/v1/namespaces/default/pods"
        await many(session, url, [pod(n, nodeName=f"n-{n % NODES}") for n in range(PODS)], PARALLEL)
        await asyncio.sleep(1)
        show(f"... with {PODS} pods more", f"{at.memory_mib() - idle:.1f} MiB")
        async with contextlib.AsyncExitStack() as stack:
            connector = aiohttp.TCPConnector(limit=0, ssl=session.connector._ssl)  # type: ignore[union-attr]
            wide = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            for number in range(WATCHES):
                selector = f"fieldSelector=spec.nodeName=n-{number % NODES}"
                watch = f"{url}?watch=true&resourceVersion=0&{selector}"
                events = await stack.enter_async_context(wide.get(watch))
                for _ in range(PODS // NODES):
                    await events.content.readline()
            await asyncio.sleep(3)
            show(f"... and {WATCHES} watches", f"{at.memory_mib() - idle:.1f} MiB")
        took = []
        for _ in range(LISTS):
            began = time.monotonic()
            async with session.get(url) as answer:
                text = await answer.read()
            took.append(time.monotonic() - began)
        show(
            f"list of {PODS} pods ({len(text) // 1024} KiB), best / median",
            f"{1000 * min(took):.0f} / {1000 * statistics.median(took):.0f} ms",
        )


async def start() -> None:
    with tempfile.TemporaryDirectory(prefix="skb") as folder:
        at = Plane(Path(folder))
        show("start with nothing", f"{await at.start():.2f} s")
        async with client(Path(folder)) as session:
            base = f"{at.server}/api/v1/namespaces/default"
            await many(session, f"{base}/configmaps", [config_map(n) for n in range(OBJECTS // 2)], PARALLEL)
            bodies = [pod(n, nodeName=f"n-{n % NODES}") for n in range(OBJECTS // 2)]
            await many(session, f"{base}/pods", bodies, PARALLEL)
        await at.stop()
        began = time.monotonic()
        await at.start()
        async with client(Path(folder)) as session, session.get(f"{at.server}/api/v1/nodes") as answer:
            await answer.read()
        show(f"start with {OBJECTS} objects, until the first answer", f"{time.monotonic() - began:.2f} s")
        await at.stop()


async def run() -> None:
    chosen = sys.argv[1:]
    for part in (speed, latency, size, start):
        if not chosen or part.__name__ in chosen:
            await part()


if __name__ == "__main__":
    asyncio.run(run())
