"""A running trial as its user sees it: the API over HTTPS, with one watch of pods and of events behind all cases."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.conformance.server import Answers, answering

Json = dict[str, Any]
BUSYBOX = "skerry.local/busybox:1"
PATIENCE_S = 120.0
CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")


class ApiError(Exception):
    """An answer that is no success.  code: HTTP's; status: the body."""

    def __init__(self, code: int, status: Json, asked: str) -> None:
        super().__init__(f"{asked}: {code} {status.get('message', status)}")
        self.code, self.status = code, status


@dataclass
class World:
    """What all cases of a run share."""

    url: str
    http: aiohttp.ClientSession
    node: str
    host: str
    """An address of this machine that pods reach."""
    home: Path
    server: Answers = field(init=False)
    pods: dict[tuple[str, str], list[Json]] = field(default_factory=lambda: defaultdict(list))
    """(namespace, name) → every state the watch has told, oldest first; a deletion is the last one, and `gone` has it."""
    gone: dict[tuple[str, str], str] = field(default_factory=dict)
    """(namespace, name) → uid of the last pod of that name that is deleted."""
    events: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    """namespace → uid → event."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    # -- requests

    async def call(
        self, verb: str, path: str, body: Any = None, *, kind: str = "application/json", **query: str
    ) -> Json:
        headers = {"Content-Type": kind} if body is not None else {}
        data = None if body is None else json.dumps(body)
        async with self.http.request(
            verb, self.url + path, data=data, headers=headers, params=query
        ) as answer:
            text = await answer.text()
            try:
                told = json.loads(text)
            except ValueError:
                told = {"message": text}
            if answer.status >= 300:
                raise ApiError(answer.status, told, f"{verb} {path}")
            return told if isinstance(told, dict) else {"message": text}

    async def text(self, path: str, **query: str) -> str:
        async with self.http.get(self.url + path, params=query) as answer:
            said = await answer.text(errors="replace")
            if answer.status >= 300:
                raise ApiError(answer.status, {"message": said}, path)
            return said

    async def follow(self, path: str, look: Callable[[str, Json], None]) -> None:
        """Watch path until cancelled; begin again when the watch ends."""
        version = ""
        while True:
            if not version:
                listed = await self.call("GET", path)
                for item in listed["items"]:
                    look("ADDED", item)
                version = listed["metadata"]["resourceVersion"]
            with suppress(aiohttp.ClientError, TimeoutError):
                query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "300"}
                async with self.http.get(
                    self.url + path, params=query, timeout=aiohttp.ClientTimeout(total=None)
                ) as stream:
                    async for line in stream.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        look(event["type"], event["object"])
                        async with self.changed:
                            self.changed.notify_all()

    def saw_pod(self, what: str, pod: Json) -> None:
        key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.pods[key].append(pod)
        if what == "DELETED":
            self.gone[key] = pod["metadata"]["uid"]

    def saw_event(self, what: str, event: Json) -> None:
        self.events[event["metadata"]["namespace"]][event["metadata"]["uid"]] = event

    async def until(self, look: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
        """Wait until look gives something true; it is asked again with each change that the watches tell."""
        try:
            async with asyncio.timeout(timeout_s):
                async with self.changed:
                    while not (seen := look()):
                        await self.changed.wait()
                    return seen
        except TimeoutError:
            raise AssertionError(f"not seen within {timeout_s:g} s: {what}") from None

    # -- streams

    async def channels(
        self, path: str, query: Iterable[tuple[str, str]], protocol: str = "v5.channel.k8s.io"
    ) -> tuple[str, str, Json]:
        """What a remote command says: stdout, stderr and the status at its end."""
        said = {name: b"" for name in CHANNELS}
        async with self.http.ws_connect(
            self.url + path, params=list(query), protocols=(protocol,), max_msg_size=0
        ) as socket:
            async for message in socket:
                raw = message.data if isinstance(message.data, bytes) else message.data.encode()
                if raw:
                    said[CHANNELS[raw[0]]] += raw[1:]
        status = json.loads(said["error"]) if said["error"] else {}
        return said["stdout"].decode(), said["stderr"].decode(), status


@asynccontextmanager
async def connected(home: Path) -> AsyncIterator[World]:
    """The world of a trial that is up in home (its SKERRY_HOME)."""
    config = yaml.safe_load((home / "kubeconfig").read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    with tempfile.NamedTemporaryFile(prefix="sk-conformance-") as file:
        file.write(base64.b64decode(user["client-certificate-data"]))
        file.write(base64.b64decode(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        )
        world = World(url=cluster["server"], http=http, node="", host="", home=home)
        nodes = (await world.call("GET", "/api/v1/nodes"))["items"]
        world.node = nodes[0]["metadata"]["name"]
        addresses = nodes[0]["status"]["addresses"]
        world.host = next(one["address"] for one in addresses if one["type"] == "InternalIP")
        world.server = await stack.enter_async_context(answering(world.host))
        watches = asyncio.gather(
            world.follow("/api/v1/pods", world.saw_pod), world.follow("/api/v1/events", world.saw_event)
        )
        try:
            yield world
        finally:
            watches.cancel()
            with suppress(asyncio.CancelledError):
                await watches
