"""Exec and attach between a websocket of numbered channels and SPDY streams.

Clients of today speak `v5.channel.k8s.io`: the first byte of a message is a channel, and [255, n] closes channel n, which is
how the end of a piped stdin is told.  Runtimes know that end only in SPDY, so this translates, as a Kubernetes API server does.

    0 stdin   1 stdout   2 stderr   3 error (a metav1.Status at the end)   4 resize (JSON)   255 close

Source: apiserver, pkg/util/proxy/streamtranslator.go; client-go, tools/remotecommand/websocket.go."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from beehive import spdy
from beehive.errors import ProtocolError, Unavailable
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream.pipe import Pipe
from cloudcore.cloudstream.podrequests import PodRequest

V5 = "v5.channel.k8s.io"
RUNTIME_PROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SPDY_HEADERS = [
    ("Connection", "Upgrade"),
    ("Upgrade", "SPDY/3.1"),
    ("X-Stream-Protocol-Version", RUNTIME_PROTOCOL),
]
MAX_DATA = 32 * 1024


@dataclass(slots=True)
class Translator:
    """The pure part: channel messages to SPDY bytes and back.  `finished`: the runtime gave its verdict."""

    request: PodRequest
    finished: bool = False
    _spdy: spdy.Client = field(default_factory=spdy.Client)
    _streams: dict[int, int] = field(default_factory=dict)
    _channels: dict[int, int] = field(default_factory=dict)

    def opening(self) -> bytes:
        """The streams the runtime waits for; it begins when all have come."""
        wanted = [(ERROR, "error")]
        r = self.request
        for on, channel, name in (
            (r.stdin, STDIN, "stdin"),
            (r.stdout, STDOUT, "stdout"),
            (r.stderr, STDERR, "stderr"),
            (r.tty, RESIZE, "resize"),
        ):
            if on:
                wanted.append((channel, name))
        out = b""
        for channel, name in wanted:
            stream, frame = self._spdy.open({"streamtype": name})
            self._streams[channel], self._channels[stream] = stream, channel
            out += frame
        return out

    def from_client(self, message: bytes) -> bytes:
        """SPDY bytes for one message of the client.  Raises ProtocolError."""
        if not message:
            return b""
        channel, payload = message[0], message[1:]
        if channel == CLOSE:
            if len(payload) != 1:
                raise ProtocolError("close message of a wrong length")
            closed = self._streams.pop(STDIN, None) if payload[0] == STDIN else None
            return self._spdy.data(closed, b"", fin=True) if closed is not None else b""
        if channel not in (STDIN, RESIZE):
            raise ProtocolError(f"channel {channel} is not the client's to write")
        stream = self._streams.get(channel)
        if stream is None or not payload:
            return b""
        return b"".join(
            self._spdy.data(stream, payload[at : at + MAX_DATA]) for at in range(0, len(payload), MAX_DATA)
        )

    def from_runtime(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Messages for the client, and SPDY bytes to send back.  Raises ProtocolError."""
        messages: list[bytes] = []
        back = b""
        for event in self._spdy.receive(data):
            if isinstance(event, spdy.Reply):
                back += event.payload
                continue
            channel = self._channels[event.stream]
            if channel in (STDOUT, STDERR, ERROR) and event.payload:
                messages.append(bytes([channel]) + event.payload)
                self.finished = self.finished or channel == ERROR
        return messages, back


async def relay_channels(socket: web.WebSocketResponse, stream: Pipe, request: PodRequest) -> None:
    """Carry an exec or attach whose runtime has just switched to SPDY.  Ends the websocket."""
    translator = Translator(request)
    code, reason = 1000, b""
    try:
        await stream.write(translator.opening())
        for channel, on in ((STDOUT, request.stdout), (STDERR, request.stderr), (ERROR, True)):
            if on:
                # an empty message on the lowest channel tells the client that the session stands
                await socket.send_bytes(bytes([channel]))
                break
        async with asyncio.TaskGroup() as group:
            down = group.create_task(_from_client(socket, stream, translator), name="from the client")
            while data := await stream.read():
                messages, back = translator.from_runtime(data)
                for message in messages:
                    await socket.send_bytes(message)
                if back:
                    await stream.write(back)
            down.cancel()
        if not translator.finished and not socket.closed:
            await socket.send_bytes(bytes([ERROR]) + _failure("the runtime ended the session"))
    except (ConnectionError, ProtocolError, Unavailable) as error:
        code, reason = await _tell(socket, error)
    except BaseExceptionGroup as faults:
        rest = faults.split((ConnectionError, ProtocolError, Unavailable))[1]
        if rest is not None:
            raise
        code, reason = await _tell(socket, faults.exceptions[0])
    finally:
        stream.reset("the client went away")
    with contextlib.suppress(ConnectionError, TimeoutError):
        await socket.close(code=code, message=reason)


async def _tell(socket: web.WebSocketResponse, error: BaseException) -> tuple[int, bytes]:
    """Say on the error channel why a session broke off, if there is anybody."""
    with contextlib.suppress(ConnectionError):
        if not socket.closed:
            await socket.send_bytes(bytes([ERROR]) + _failure(str(error)))
    return 1011, str(error).encode()[:120]


async def _from_client(socket: web.WebSocketResponse, stream: Pipe, translator: Translator) -> None:
    async for message in socket:
        if message.type is web.WSMsgType.BINARY:
            data = translator.from_client(message.data)
        elif message.type is web.WSMsgType.TEXT:
            data = translator.from_client(message.data.encode())
        else:
            break
        if data:
            try:
                await stream.write(data)
            except StreamReset:
                return  # the reading side says why
    stream.reset("the client went away")


def _failure(text: str) -> bytes:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    }
    return msgspec.json.encode(status)
