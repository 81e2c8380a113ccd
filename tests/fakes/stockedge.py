"""The stream side of a stock KubeEdge edge as a script: its half of the tunnel's wire, and a kubelet's port for it to ask.

Written from the description of the wire alone, not from our code: it frames, chunks and ends as a stock edge does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from beehive import tunnel
from beehive.errors import SkerryError
from beehive.tunnelpeer import StreamReset

LOGS, EXEC, METRIC, DATA, REMOVE, CLOSE, ATTACH = range(7)
CHUNK = 256

Send = Callable[[bytes], Awaitable[None]]
Recv = Callable[[], Awaitable[bytes]]


def number(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value % 0x80 + 0x80]), value // 0x80
    return out + bytes([value])


def split(message: bytes) -> tuple[int, int, bytes]:
    found = []
    for _ in range(2):
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(value)
    return found[0], found[1], message


@dataclass
class StockEdge:
    """kubelet: host and port of what a stock edge has on 127.0.0.1:10350.   asked: the CONNECT messages that came."""

    kubelet: tuple[str, int]
    send: Send
    asked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    _inboxes: dict[int, asyncio.Queue[bytes | None]] = field(default_factory=dict)

    async def serve(self, recv: Recv) -> None:
        """Until the hub closes.  `recv` raises SkerryError when the connection is over."""
        async with asyncio.TaskGroup() as group:
            tasks: dict[int, asyncio.Task[None]] = {}
            while True:
                try:
                    connection, kind, data = split(await recv())
                except SkerryError:
                    break
                if kind in (LOGS, METRIC, EXEC, ATTACH):
                    request = json.loads(data)
                    self.asked.append((kind, request))
                    assert request["MessID"] == connection
                    assert (request["url"]["Scheme"], request["url"]["Host"]) == ("http", "127.0.0.1:10350")
                    self._inboxes[connection] = asyncio.Queue(128)
                    work = self._plain if kind in (LOGS, METRIC) else self._pipe
                    tasks[connection] = group.create_task(work(kind, request))
                elif kind == DATA and connection in self._inboxes:
                    await self._inboxes[connection].put(data)
                elif kind == REMOVE:
                    self.removed.append(connection)
                    if connection in tasks:
                        tasks.pop(connection).cancel()
            for task in tasks.values():
                task.cancel()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.kubelet)

    async def _plain(self, kind: int, request: dict[str, Any]) -> None:
        url = request["url"]
        reader, writer = await self._dial()
        try:
            writer.write(
                f"GET {url['Path']}?{url['RawQuery']} HTTP/1.0\r\nHost: {url['Host']}\r\n\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            if kind == METRIC:
                while line := await reader.readline():
                    await self._up(request, line.rstrip(b"\n") + b"\n")
            else:
                while data := await reader.read(CHUNK):
                    await self._up(request, data)
        finally:
            writer.close()
        await self._remove(request)

    async def _pipe(self, kind: int, request: dict[str, Any]) -> None:
        del kind
        url = request["url"]
        reader, writer = await self._dial()
        target = (url["RawPath"] or url["Path"]) + (f"?{url['RawQuery']}" if url["RawQuery"] else "")
        lines = [f"{request['method']} {target} HTTP/1.1", f"Host: {url['Host']}"]
        lines += [f"{name}: {value}" for name, values in request["header"].items() for value in values]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        inbox = self._inboxes[request["MessID"]]

        async def down() -> None:
            while (data := await inbox.get()) is not None:
                writer.write(data)
                await writer.drain()

        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(down())
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(CHUNK):
                        await self._up(request, data)
                task.cancel()
        finally:
            writer.close()
        await self._remove(request)

    async def _up(self, request: dict[str, Any], data: bytes) -> None:
        await self.send(number(request["MessID"]) + number(DATA) + data)

    async def _remove(self, request: dict[str, Any]) -> None:
        await self.send(number(request["MessID"]) + number(REMOVE))


# -- the kubelet's port


class _Stream:
    """A connection to the port as our own kubelet's endpoints want a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: tunnel.Head) -> None:
        self.head = head
        self.over = False
        self._reader, self._writer = reader, writer
        self._answer: tunnel.Answer | None = None
        self._refusal = b""

    @property
    def has_answered(self) -> bool:
        return self._answer is not None

    async def answer(self, answer: tunnel.Answer) -> None:
        self._answer = answer
        if answer.status in (101, 200):
            self._writer.write(self._head(answer.headers))

    def _head(self, headers: list[tuple[str, str]]) -> bytes:
        assert self._answer is not None
        lines = [f"HTTP/1.1 {self._answer.status} Text", *(f"{k}: {v}" for k, v in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    async def write(self, data: bytes | memoryview) -> None:
        assert self._answer is not None
        if self._answer.status not in (101, 200):
            self._refusal += data
            return
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise StreamReset("the client went away") from error

    async def end(self) -> None:
        assert self._answer is not None
        if self._answer.status not in (101, 200):
            length = ("Content-Length", str(len(self._refusal)))
            self._writer.write(self._head([*self._answer.headers, length]) + self._refusal)
            await self._writer.drain()

    def reset(self, reason: str) -> None:
        del reason
        self.over = True


@contextlib.asynccontextmanager
async def kubelet_port(serve: Callable[[Any], Awaitable[None]]) -> AsyncIterator[tuple[str, int]]:
    """Serve a kubelet's endpoints on loopback without asking who it is, as a stock edge does.   serve: answers one stream."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            method, path, _ = first.split(" ")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            upgrade = any(name.lower() == "upgrade" for name, _ in headers)
            head = tunnel.Head(
                kind="upgrade" if upgrade else "http",
                method=method,
                path=path.rstrip("?"),
                headers=headers if upgrade else [],
            )
            stream = _Stream(reader, writer, head)
            with contextlib.suppress(SkerryError):
                await serve(stream)
            if stream.has_answered and upgrade and stream._answer and stream._answer.status != 101:
                # a kubelet keeps the connection open after a refusal
                await asyncio.sleep(3600)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
