"""An edge's answers, with a runtime in memory; the runtime's streaming server is a socket on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import Peer, Stream, StreamReset
from edgecore.edgestream.kubelet import Kubelet
from edgecore.edgestream.ports import ContainerView, Instance, PodView

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("Authorization", "Bearer secret")]


class Line:
    """One end of a connection in memory."""

    def __init__(self, inbox: asyncio.Queue[bytes], outbox: asyncio.Queue[bytes]) -> None:
        self.inbox, self.outbox = inbox, outbox

    async def recv(self) -> bytes:
        return await self.inbox.get()

    async def send(self, data: bytes) -> None:
        await self.outbox.put(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        return None


@dataclass
class Runtime:
    """Pods by name; `url` is where streams are."""

    pods: dict[str, PodView] = field(default_factory=dict)
    url: str = "http://127.0.0.1:1/exec/token"
    asked: list[Any] = field(default_factory=list)

    async def pod(self, namespace: str, name: str) -> PodView | None:
        return self.pods.get(name) if namespace == "default" else None

    async def running(self, container_id: str) -> bool:
        return False

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        self.asked.append((container_id, list(command), stdin, stdout, stderr, tty))
        return self.url

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        self.asked.append((container_id, stdin, stdout, stderr, tty))
        return self.url

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        self.asked.append((sandbox_id, list(ports)))
        return self.url

    async def pods_json(self) -> bytes:
        return b"{}"

    async def stats_json(self) -> bytes:
        raise Unavailable("the runtime is away")

    async def metrics_text(self, path: str) -> bytes:
        return path.encode()


Ask = Callable[..., Awaitable[tuple[int, bytes]]]


def play(runtime: Runtime, story: Callable[[Peer], Awaitable[None]], **switches: bool) -> None:
    async def scene() -> None:
        up: asyncio.Queue[bytes] = asyncio.Queue(8)
        down: asyncio.Queue[bytes] = asyncio.Queue(8)
        hub = Peer(Line(up, down), tunnel.Role.HUB)
        edge = Peer(Line(down, up), tunnel.Role.EDGE, handler=Kubelet(runtime, switches).serve)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(hub.run()), group.create_task(edge.run())]
            await story(hub)
            for task in tasks:
                task.cancel()

    asyncio.run(scene())


async def open_stream(
    hub: Peer, path: str, *, kind: str = "http", method: str = "GET"
) -> tuple[Stream, tunnel.Answer]:
    headers = UPGRADE if kind == "upgrade" else []
    stream = await hub.open(tunnel.Head(kind=kind, method=method, path=path, headers=headers))
    return stream, await stream.answered(5)


async def ask(hub: Peer, path: str, **options: str) -> tuple[int, str]:
    stream, answer = await open_stream(hub, path, **options)
    body = b""
    while data := await stream.read():
        body += data
    return answer.status, body.decode()


def web(root: Path, *instances: Instance, waiting: str = "", sandbox: str = "sandbox-1") -> PodView:
    return PodView(
        namespace="default",
        name="web",
        uid="uid-1",
        sandbox=sandbox,
        containers=(ContainerView(name="c", instances=instances, waiting=waiting),),
        log_root=str(root),
    )


def logged(root: Path, number: int, *, running: bool) -> Instance:
    path = root / "default_web_uid-1" / "c" / f"{number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"2026-01-02T03:04:05Z stdout F life {number}\n")
    return Instance(id=f"id-{number}", attempt=number, running=running, log=str(path))


def test_logs_of_this_life_and_the_last(tmp_path: Path) -> None:
    lives = [logged(tmp_path, 1, running=True), logged(tmp_path, 0, running=False)]
    runtime = Runtime({"web": web(tmp_path, *lives)})

    async def story(hub: Peer) -> None:
        path = "/containerLogs/default/web/c"
        assert await ask(hub, path) == (200, "life 1\n")
        assert await ask(hub, f"{path}?previous=true") == (200, "life 0\n")
        assert await ask(hub, f"{path}?follow=true&timestamps=true") == (
            200,
            "2026-01-02T03:04:05.000000000Z life 1\n",
        )
        assert await ask(hub, f"{path}?tailLines=x") == (400, "invalid tailLines 'x'")
        assert await ask(hub, "/containerLogs/default/web/x") == (404, 'container "x" not found in pod "web"')
        assert await ask(hub, "/containerLogs/default/nope/c") == (404, 'pod "nope" does not exist')
        assert await ask(hub, "/containerLogs/other/web/c") == (404, 'pod "web" does not exist')

    play(runtime, story)


def test_between_two_lives_the_last_one_is_the_previous_one(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, logged(tmp_path, 0, running=False), waiting="CrashLoopBackOff")})

    async def story(hub: Peer) -> None:
        assert await ask(hub, "/containerLogs/default/web/c") == (200, "life 0\n")
        assert await ask(hub, "/containerLogs/default/web/c?previous=true") == (200, "life 0\n")

    play(runtime, story)


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        ("", "ContainerCreating"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
    ],
)
def test_a_container_that_has_not_begun_says_why(tmp_path: Path, waiting: str, text: str) -> None:
    runtime = Runtime({"web": web(tmp_path, waiting=waiting, sandbox="")})

    async def story(hub: Peer) -> None:
        which = 'container "c" in pod "web"'
        assert await ask(hub, "/containerLogs/default/web/c") == (400, f"{which} is waiting to start: {text}")
        gone = await ask(hub, "/containerLogs/default/web/c?previous=true")
        assert gone == (400, f"previous terminated {which} not found")
        exec_ = await ask(hub, "/exec/default/web/c?output=1&command=x", kind="upgrade")
        assert exec_ == (500, 'container not found ("c")')
        forward = await ask(hub, "/portForward/default/web", kind="upgrade")
        assert forward == (500, "unable to forward port because pod 'web' is not running")

    play(runtime, story)


def test_pages_and_refusals(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})

    async def story(hub: Peer) -> None:
        assert await ask(hub, "/pods") == (200, "{}")
        assert await ask(hub, "/metrics/resource") == (200, "metrics/resource")
        assert await ask(hub, "/healthz") == (200, "ok")
        assert await ask(hub, "/stats/summary") == (500, "the runtime is away")
        assert (await ask(hub, "/run/default/web/c"))[0] == 403
        assert (await ask(hub, "/pods", method="DELETE"))[0] == 405
        assert (await ask(hub, "/exec/default/web/c?output=1"))[0] == 400
        assert await ask(hub, "/exec/default/nope/c?output=1", kind="upgrade") == (404, "pod does not exist")
        assert await ask(hub, "/exec/default/web/u-2/c?output=1", kind="upgrade") == (
            404,
            "pod does not exist",
        )
        assert (await ask(hub, "/exec/default/web/c", kind="upgrade"))[0] == 400
        assert (await ask(hub, "/containerLogs/default/web/c"))[0] == 404

    play(runtime, story)


def test_a_verb_that_is_switched_off(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})

    async def story(hub: Peer) -> None:
        refused = await ask(hub, "/exec/default/web/c?output=1&command=x", kind="upgrade")
        assert refused == (403, "exec is switched off on this node")
        assert (await ask(hub, "/pods"))[0] == 200
        assert runtime.asked == []

    play(runtime, story, exec=False)


async def serve(
    answer: bytes, talk: Callable[..., Awaitable[None]] | None = None
) -> tuple[asyncio.Server, list[bytes]]:
    """A streaming server that answers with these bytes; what it was sent first."""
    heads: list[bytes] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if talk is not None:
            await talk(reader, writer)
        writer.close()

    return await asyncio.start_server(client, "127.0.0.1", 0), heads


def address(server: asyncio.Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/exec/token?x=y"


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


def test_exec_is_piped_to_the_runtime_without_the_clients_credentials(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})
    payload = bytes(range(256)) * 2000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"early")
        writer.write((await reader.readexactly(len(payload)))[::-1])
        await reader.read()  # until the client has ended
        writer.write(b"last words")
        await writer.drain()

    async def story(hub: Peer) -> None:
        server, heads = await serve(SWITCHING, talk)
        async with server:
            runtime.url = address(server)
            path = "/exec/default/web/c?input=1&output=1&error=1&command=echo&command=a+b"
            stream, answer = await open_stream(hub, path, kind="upgrade", method="POST")
            assert (answer.status, answer.header("upgrade")) == (101, "SPDY/3.1")
            assert runtime.asked == [("a", ["echo", "a b"], True, True, True, False)]
            assert heads[0].startswith(b"POST /exec/token?x=y HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"secret" not in heads[0]
            await stream.write(payload)
            await stream.end()
            got = b""
            while data := await stream.read():
                got += data
            assert got == b"early" + payload[::-1] + b"last words"

    play(runtime, story)


def test_port_forward_and_attach_ask_for_what_they_are(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})

    async def story(hub: Peer) -> None:
        server, _ = await serve(SWITCHING)
        async with server:
            runtime.url = address(server)
            await open_stream(hub, "/portForward/default/web?port=80", kind="upgrade")
            await open_stream(hub, "/attach/default/web/c?output=1", kind="upgrade")
        assert runtime.asked == [("sandbox-1", [80]), ("a", False, True, False, False)]

    play(runtime, story)


def test_a_hub_that_gives_up_ends_the_runtimes_connection(tmp_path: Path) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async def story(hub: Peer) -> None:
        server, _ = await serve(SWITCHING, talk)
        async with server:
            runtime.url = address(server)
            stream, _ = await open_stream(hub, "/exec/default/web/c?output=1&command=x", kind="upgrade")
            stream.reset("the client went away")
            with pytest.raises(StreamReset):
                await stream.read()
            await ended.wait()

    play(runtime, story)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno such", 404, "no such"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", 500, ""),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 500, "the runtime's streaming server does not speak HTTP"),
        (b"", 500, "the runtime's streaming server closed the connection"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000,
            500,
            "the runtime's streaming server answered with a head that is too long",
        ),
    ],
)
def test_what_else_the_runtime_may_answer(tmp_path: Path, answer: bytes, status: int, text: str) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))})

    async def story(hub: Peer) -> None:
        server, _ = await serve(answer)
        async with server:
            runtime.url = address(server)
            got = await ask(hub, "/exec/default/web/c?output=1&command=x", kind="upgrade")
            assert got == (status, text)

    play(runtime, story)


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:80/x", "https://127.0.0.1:80/x", "http://127.0.0.1/x", "unix:///x"]
)
def test_only_this_machine_is_dialled(tmp_path: Path, url: str) -> None:
    runtime = Runtime({"web": web(tmp_path, Instance(id="a", attempt=0, running=True))}, url=url)

    async def story(hub: Peer) -> None:
        status, text = await ask(hub, "/exec/default/web/c?output=1&command=x", kind="upgrade")
        assert (status, text) == (500, "the runtime's streaming server is not plain HTTP on this machine")

    play(runtime, story)
