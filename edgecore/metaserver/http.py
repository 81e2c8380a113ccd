"""HTTP/1.1 on streams, bounded in every direction.  The only file that knows h11.

A small server for a small machine: it speaks what Kubernetes clients speak — keep-alive, chunked answers that go on for
hours, bodies of a few MiB — and nothing else.  Bounds: connections in all and per client, bytes of head and body, time for each
part of a request, and time for a client to read what it asked for.  An over-bound is an answer where one can be given, else an
end of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import h11

from beehive.errors import SkerryError
from edgecore.metaserver import status
from edgecore.metaserver.status import ApiError

log = logging.getLogger(__name__)

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers; a token is the longest of them."""
MAX_BODY = 3 * 1024 * 1024
"""An API server's own limit."""
MAX_CONNECTIONS = 128
MAX_PER_CLIENT = 32
"""Connections of one address; client-go needs two, a browser six."""
READ = 16 * 1024
WRITE_HIGH = 64 * 1024
IDLE_S = 120.0
"""A connection without a request; longer than the 90 s after which Go's client closes idle ones."""
HEAD_S = 15.0
BODY_S = 60.0
DRAIN_S = 30.0
"""How long a client may let what it asked for lie."""
HANDSHAKE_S = 10.0
LINGER_S = 2.0
BACKLOG = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Header names are in lower case.  `local`: it came over the machine's own socket, whose mode says who may.

    headers: the last of each name.   fields: all of them, since an upgrade offers its protocols in several."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    client: str
    local: bool = False
    fields: Sequence[tuple[str, str]] = ()


class Pipe(Protocol):
    """What a stream of a pod answered to an upgrade, and its bytes after that."""

    @property
    def status(self) -> int:
        """101, or why not."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...

    @property
    def text(self) -> bytes:
        """What is wrong, unless the status is 101."""
        ...

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes) -> None:
        """Until either end is over.   early: what the client sent already.  Raises OSError: the client went away."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Either `body`, or `stream`, whose pieces are sent as they come, or (with code 101) `pipe`, which takes the connection."""

    code: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    pipe: Pipe | None = None


Handler = Callable[[Request], Awaitable[Answer]]


class _ClientGone(Exception):
    """The client closed its end while it was being answered."""


class Server:
    """Serves `handler`.  `serve_tcp` and `serve_unix` never return; both may run at once."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._clients: Counter[str] = Counter()
        self.turned_away = 0

    @property
    def connections(self) -> int:
        return self._clients.total()

    async def serve_tcp(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        ready: Callable[[int], None] | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        """`ready` is told the port once clients can connect.   listening: a socket that is bound there already.
        Raises OSError: the address cannot be used."""
        async with _connections() as group:
            server = await asyncio.start_server(
                lambda reader, writer: self._accept(group, reader, writer, local=False),
                host if listening is None else None,
                port if listening is None else None,
                sock=listening,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S,
                limit=READ,
                backlog=BACKLOG,
            )
            async with server:
                if ready is not None:
                    ready(server.sockets[0].getsockname()[1])
                await server.serve_forever()

    async def serve_unix(self, path: Path, *, ready: Callable[[], None] | None = None) -> None:
        """The socket is made with mode 0600 and replaces one that an earlier process left.  Raises OSError."""
        beside = path.with_name(path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        async with _connections() as group:
            server = await asyncio.start_unix_server(
                lambda reader, writer: self._accept(group, reader, writer, local=True),
                beside,
                limit=READ,
                backlog=BACKLOG,
            )
            # under its name only once its mode is right
            os.chmod(beside, 0o600)
            os.replace(beside, path)
            try:
                async with server:
                    if ready is not None:
                        ready()
                    await server.serve_forever()
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _accept(
        self,
        group: asyncio.TaskGroup,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        local: bool,
    ) -> None:
        client = "local" if local else str((writer.get_extra_info("peername") or ("?",))[0])
        if self.connections >= MAX_CONNECTIONS or self._clients[client] >= MAX_PER_CLIENT:
            self.turned_away += 1
            if self.turned_away.bit_count() == 1:  # the first, second, fourth, …
                log.warning(
                    "Turned away %d connections, now one of %s: %d of it are open, %d in all",
                    *(self.turned_away, client, self._clients[client], self.connections),
                )
            writer.transport.abort()
            return
        self._clients[client] += 1
        group.create_task(self._serve(reader, writer, client, local=local), name=f"http {client}")

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str, *, local: bool
    ) -> None:
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH)
        connection = _Connection(reader, writer, client, local=local)
        try:
            while await connection.serve_one(self._handler):
                pass
            await connection.linger()
        except (OSError, TimeoutError, EOFError, _ClientGone) as error:
            log.debug("x %s: %s", client, str(error) or type(error).__name__)
            writer.transport.abort()
        except Exception as error:
            # the boundary of one connection (P9): what a client asks must not end the daemon
            expected = isinstance(error, SkerryError)
            log.warning("Cannot go on answering %s: %r", client, error, exc_info=None if expected else error)
            writer.transport.abort()
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            # an orderly end, but not one that waits for the client
            if not writer.transport.is_closing():
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await writer.wait_closed()
                writer.transport.abort()


@contextlib.asynccontextmanager
async def _connections() -> AsyncIterator[asyncio.TaskGroup]:
    """A group for the connections of one listener; what ends the listener comes out as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        # connections end in themselves: what is here is the listener's
        raise failures.exceptions[0] from failures


class _Connection:
    """One client's connection: requests in turn."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str, *, local: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._client = client
        self._local = local
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def serve_one(self, handler: Handler) -> bool:
        """Read a request and answer it.  Returns whether there may be another."""
        try:
            head = await self._head()
            if head is None:
                return False
            answer = await self._answer(head, handler)
        except h11.RemoteProtocolError as error:
            if self._http.our_state is h11.ERROR or self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return False
            hint = error.error_status_hint
            failure = ApiError(hint, "BadRequest", str(error)[:256])
            await self._send(_failed(failure), closing=True)
            return False
        if answer.pipe is not None:
            await self._switch(answer, answer.pipe)
            return False
        await self._send(answer, closing=self._http.their_state is not h11.DONE)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def linger(self) -> None:
        """Let a client that was refused in the middle of its body read the answer: closing at once would reset it."""
        left = 4 * MAX_BODY
        if self._http.their_state is not h11.SEND_BODY and self._http.their_state is not h11.ERROR:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0 and (data := await self._reader.read(READ)):
                    left -= len(data)

    async def _answer(self, head: h11.Request, handler: Handler) -> Answer:
        fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        headers = dict(fields)
        try:
            body = await self._body(headers)
            request = Request(
                method=head.method.decode("ascii"),
                target=head.target.decode("ascii", "replace"),
                headers=headers,
                body=body,
                client=self._client,
                local=self._local,
                fields=fields,
            )
            return await handler(request)
        except ApiError as error:
            return _failed(error)
        except (OSError, TimeoutError, EOFError, h11.RemoteProtocolError):
            raise  # the client's
        except Exception as error:
            # the boundary of one request (P9): it is answered, and the next one is heard
            log.error("Cannot answer %s %s", head.method, head.target[:256], exc_info=error)
            return _failed(status.internal("see the log of this node"))

    async def _head(self) -> h11.Request | None:
        limit = IDLE_S
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is h11.NEED_DATA:
                async with asyncio.timeout(limit):
                    await self._feed()
                limit = HEAD_S
                continue
            return None

    async def _body(self, headers: dict[str, str]) -> bytes:
        """Raises ApiError 413."""
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            raise status.too_large(MAX_BODY)
        body = bytearray()
        async with asyncio.timeout(BODY_S):
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    if len(body) + len(event.data) > MAX_BODY:
                        raise status.too_large(MAX_BODY)
                    body += event.data
                elif event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._write(h11.InformationalResponse(status_code=100, headers=[]))
                        await self._drain()
                    await self._feed()
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                else:
                    raise EOFError("the request ended early")

    async def _feed(self) -> None:
        self._http.receive_data(await self._reader.read(READ))

    async def _send(self, answer: Answer, *, closing: bool) -> None:
        headers = {"content-type": answer.content_type, "cache-control": "no-cache, private"} | answer.headers
        if answer.stream is None:
            headers["content-length"] = str(len(answer.body))
        if closing:
            headers["connection"] = "close"
        self._write(h11.Response(status_code=answer.code, headers=list(headers.items())))
        try:
            if answer.stream is None:
                self._write(h11.Data(data=answer.body))
            else:
                await self._stream(answer.stream)
        finally:
            if answer.stream is not None:
                await _close(answer.stream)
        self._write(h11.EndOfMessage())
        await self._drain()

    async def _switch(self, answer: Answer, pipe: Pipe) -> None:
        """Give the connection to what was asked for, until that is over."""
        try:
            self._write(h11.InformationalResponse(status_code=101, headers=list(pipe.headers)))
            await self._drain()
            early, _ = self._http.trailing_data
            await pipe.carry(self._reader, self._writer, early)
        finally:
            pipe.close()

    async def _stream(self, stream: AsyncIterator[bytes]) -> None:
        await self._drain()  # the head, so that the client knows that it is heard
        try:
            async with asyncio.TaskGroup() as group:
                gone = group.create_task(self._until_gone(), name="http gone")
                async for piece in stream:
                    self._write(h11.Data(data=piece))
                    await self._drain()
                gone.cancel()
        except BaseExceptionGroup as failures:
            # one is the cause; there are only the stream and the client's end
            raise failures.exceptions[0] from failures

    async def _until_gone(self) -> None:
        """While an answer goes out, what comes in can only be the end (or a next request, which has to wait)."""
        if await self._reader.read(1):
            # a pipelined request during a watch: no Kubernetes client does that
            raise _ClientGone("sent something during a stream")
        raise _ClientGone("closed")

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _drain(self) -> None:
        async with asyncio.timeout(DRAIN_S):
            await self._writer.drain()


async def _close(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _failed(error: ApiError) -> Answer:
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else {}
    return Answer(code=error.code, body=error.body() + b"\n", headers=headers)
