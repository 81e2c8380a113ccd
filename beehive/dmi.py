"""Unary gRPC over unix sockets for the DMI, both ends.  The only file that knows grpclib.

A `Server` serves a table of methods, each a coroutine from request to reply that is told who calls; a `Client` calls them.
Messages have a size limit that is checked before memory is taken.  Only errors of ours come out of `Client.call`, and only they
carry a message to a peer of `Server`.   Source: protocol notes on DMI sections 1 to 5."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.server import Server as GrpcServer

from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2
from beehive.errors import NotFound, Refused, SkerryError, Unavailable, system_words

log = logging.getLogger(__name__)

SOCKET_NAME = "dmi.sock"
MAX_REQUEST_BYTES = 1024 * 1024  # of what a mapper sends; 1000 properties with 512 characters each fit
MAX_REPLY_BYTES = (
    64 * 1024 * 1024
)  # of a registration: all devices of a mapper.  gRPC's usual 4 MiB are about 2000 devices
MAX_UNREAD_BYTES = 1024 * 1024  # for one peer, beside what the kernel holds
_AT_ONCE_BYTES = 64 * 1024  # more than that has a call of the kernel of its own
MAX_CONNECTIONS = 256  # KubeEdge's mappers open one per report, and close it
_MAX_SOCKET_PATH = 107  # sun_path less its final zero
_SETTINGS = 4  # type of a frame
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call: its HTTP/2 path and the types on both sides."""

    path: str
    request: type[Message]
    reply: type[Message]


def _methods(stubs: Any, service: str) -> dict[str, Method]:
    found = stubs.DESCRIPTOR.services_by_name[service]
    return {
        m.name: Method(
            path=f"/{found.full_name}/{m.name}",
            request=getattr(stubs, m.input_type.name),
            reply=getattr(stubs, m.output_type.name),
        )
        for m in found.methods
    }


MANAGER = _methods(pb, "DeviceManagerService")
MAPPER = _methods(pb, "DeviceMapperService")
METHODS = _methods(methods_pb2, "DeviceMethodService")
"""Ours: KubeEdge's mappers do not serve it."""
REPORTS = _methods(methods_pb2, "DeviceReportService")
"""Ours: KubeEdge's edgecore does not serve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of the socket, by the kernel's word."""

    pid: int
    uid: int
    gid: int


Call = Callable[[Any, Peer], Awaitable[Message]]


def _peer(transport: Any) -> Peer:
    sock = transport.get_extra_info("socket")
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", packed)
    return Peer(pid=pid, uid=uid, gid=gid)


async def _receive(stream: Any, kind: type[Message], limit: int) -> Message | None:
    """Read one message from either kind of grpclib stream.  grpclib's own reader has no limit."""
    head = await stream._stream.recv_data(5)
    if not head:
        return None
    compressed, length = struct.unpack(">?I", head)
    if compressed:
        raise GRPCError(Status.UNIMPLEMENTED, "compression is not supported")
    if length > limit:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"message of {length} bytes is over the limit of {limit}")
    data = await stream._stream.recv_data(length)
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"cannot read {kind.__name__}: {error}") from error


class _Gathered:
    """A transport that sends what is written in one turn of the event loop with one call of the kernel.

    An answer of gRPC is three frames, written one by one; each wakes the peer, which finds that it has to wait for more."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._held = 0

    def write(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            # its answers to pings and settings have no other bound
            log.warning("A DMI peer does not read what it asks for: closing its connection")
            self._parts.clear()
            self._transport.abort()
            return
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)
        self._held += len(data)
        if self._held > _AT_ONCE_BYTES:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        self._held = 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _gathering(protocol: Any) -> Any:
    """Let a protocol of grpclib write through `_Gathered`."""
    made = protocol.connection_made
    protocol.connection_made = lambda transport: made(_Gathered(transport))
    return protocol


class _Channel(Channel):  # type: ignore[misc]
    def _protocol_factory(self) -> Any:
        return _gathering(super()._protocol_factory())


# --- server ----------------------------------------------------------------------------------------------------------

_STATUS = {
    "InvalidValue": Status.INVALID_ARGUMENT,
    "Forbidden": Status.PERMISSION_DENIED,
    "TooManyRequests": Status.RESOURCE_EXHAUSTED,
}


def status_code(error: SkerryError) -> int:
    """The gRPC status that stands for an error of ours."""
    return int(_status(error).value)


def as_error(code: int, text: str) -> SkerryError:
    """The error of ours that a gRPC status of a peer stands for."""
    if code == Status.NOT_FOUND.value:
        return NotFound(text)
    known = {status.value: status.name for status in Status}
    return Refused(text, reason=known.get(code, "UNKNOWN"))


def _status(error: SkerryError) -> Status:
    match error:
        case NotFound():
            return Status.NOT_FOUND
        case Unavailable():
            return Status.UNAVAILABLE
        case _:
            return _STATUS.get(error.reason, Status.FAILED_PRECONDITION)


class _Server(GrpcServer):  # type: ignore[misc]
    """grpclib's server, with a limit of connections and an end to them."""

    def __init__(self, handlers: list[Any]) -> None:
        super().__init__(handlers)
        self.protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        self.protocols = [p for p in self.protocols if _is_open(p)]
        if len(self.protocols) >= MAX_CONNECTIONS:
            log.warning("Too many DMI connections, closing the oldest")
            self.protocols.pop(0).connection.close()
        protocol = _gathering(super()._protocol_factory())
        self.protocols.append(protocol)
        return protocol

    async def end(self) -> None:
        """Cancel the calls under way and close their connections."""
        for handler in self._handlers:
            handler.close()
        for protocol in self.protocols:
            if _is_open(protocol) and hasattr(protocol, "connection"):
                protocol.connection.close()
        for handler in self._handlers:
            await handler.wait_closed()


def _is_open(protocol: Any) -> bool:
    connection = getattr(protocol, "connection", None)  # absent before the connection is made
    return connection is None or not connection.is_closing()


class _Service:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def __mapping__(self) -> Mapping[str, Handler]:
        return self._handlers


class Server:
    """Serves methods on a unix socket.

    A call that raises a SkerryError answers with its text, another error with none.  The socket appears under its name only
    once it can be connected, and goes when `serve` ends.   tidy: with it the folders that were made for it, if nobody else
    uses them; a folder that pods have mounted must stay."""

    def __init__(
        self, path: Path, calls: Sequence[tuple[Method, Call]], *, mode: int = 0o660, tidy: bool = False
    ) -> None:
        self.path = path
        self._tidy = tidy
        self._calls = calls
        self._mode = mode
        self.ready = asyncio.Event()

    async def serve(self) -> None:
        """Listen until cancelled.  Raises: Unavailable when the socket cannot be made."""
        made = _missing(self.path.parent) if self._tidy else []
        try:
            sock = _listen(self.path, self._mode)
        except Unavailable:
            _take_back(made)
            raise
        server = _Server([_Service({m.path: self._handler(m, c) for m, c in self._calls})])
        # grpclib's own start would lose the socket if it were cancelled in the middle.
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(server._protocol_factory, sock=sock, start_serving=False)
        try:
            await listening.start_serving()
            self.ready.set()
            await asyncio.get_running_loop().create_future()
        finally:
            self.ready.clear()
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            _take_back(made)
            listening.close()
            await server.end()

    def _handler(self, method: Method, call: Call) -> Handler:
        async def handle(stream: Any) -> None:
            request = await _receive(stream, method.request, MAX_REQUEST_BYTES)
            if request is None:
                raise GRPCError(Status.INVALID_ARGUMENT, "there is no request")
            try:
                reply = await call(request, _peer(stream._stream._transport))
            except SkerryError as error:
                raise GRPCError(_status(error), str(error)[:512]) from error
            await stream.send_message(reply)

        return Handler(handle, Cardinality.UNARY_UNARY, method.request, method.reply)


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the deepest first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _take_back(folders: Sequence[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # somebody uses it by now
            return


def _listen(path: Path, mode: int) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH - 4:
        raise Unavailable(f"cannot listen on {path}: the path is longer than {_MAX_SOCKET_PATH - 4} bytes")
    fresh = path.with_name(path.name + ".new")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        sock.bind(os.fspath(fresh))
        fresh.chmod(mode)
        sock.listen(128)
        sock.setblocking(False)
        fresh.rename(path)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {error}") from error
    return sock


# --- client ----------------------------------------------------------------------------------------------------------


class Client:
    """Calls the methods of one socket over one connection, made when needed and again when lost.

    uid: if given, the process that listens must run as this user, else calls are refused."""

    def __init__(self, path: str, *, uid: int | None = None) -> None:
        self.path = path
        self._uid = uid
        self._channel: Any = None

    async def call(self, method: Method, request: Message, *, timeout_s: float) -> Any:
        """One call.  Raises: Unavailable (no peer, no answer in time), Refused (the peer's answer is an error)."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._call(method, request)
        except GRPCError as error:
            text = f"cannot call {method.path}: {error.message or error.status.name}"
            if error.status in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED):
                raise Unavailable(text) from error
            if error.status is Status.NOT_FOUND:
                raise NotFound(text) from error
            # grpclib's own server answers an unknown method without a content type, which its client does not take
            unknown = error.status is Status.UNKNOWN and "content-type" in (error.message or "")
            raise Refused(text, reason="UNIMPLEMENTED" if unknown else error.status.name) from error
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"cannot call {method.path}: no answer within {timeout_s:g} s") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"nobody answers at {self.path}: {system_words(error)}") from error
        except (StreamTerminatedError, ProtocolError, AssertionError) as error:
            # grpclib asserts that a message is as long as announced
            self.close()
            raise Unavailable(f"cannot call {method.path} on {self.path}: {error}") from error

    async def _call(self, method: Method, request: Message) -> Message:
        if self._channel is None:
            self._channel = _Channel(path=self.path)
        channel = self._channel
        async with channel.request(
            method.path, Cardinality.UNARY_UNARY, method.request, method.reply
        ) as stream:
            await stream.send_request()
            if self._uid is not None and _peer(stream._stream._transport).uid != self._uid:
                raise Refused(f"{self.path} is served by another user than the one who registered it")
            await stream.send_message(request, end=True)
            await stream.recv_initial_metadata()
            reply = await _receive(stream, method.reply, MAX_REPLY_BYTES)
            await stream.recv_trailing_metadata()
        if reply is None:
            raise Refused(f"cannot call {method.path}: the answer is empty")
        return reply

    async def watch(self, method: Method, request: Message, *, limit: int = MAX_REQUEST_BYTES) -> Any:
        """A call whose answer is a stream: its messages, each of at most `limit` bytes, until the peer ends it.

        On a connection of its own.  Raises: Unavailable (lost, or never there), Refused (the peer's answer is an error)."""
        channel = _Channel(path=self.path)
        try:
            async with channel.request(
                method.path, Cardinality.UNARY_STREAM, method.request, method.reply
            ) as stream:
                await stream.send_message(request, end=True)
                await stream.recv_initial_metadata()
                while True:
                    # grpclib tells only who waits inside its wrapper that the connection was lost
                    with stream._wrapper:
                        reply = await _receive(stream, method.reply, limit)
                    if reply is None:
                        break
                    yield reply
                await stream.recv_trailing_metadata()
        except GRPCError as error:
            text = f"cannot follow {method.path}: {error.message or error.status.name}"
            if error.status in (Status.UNAVAILABLE, Status.CANCELLED):
                raise Unavailable(text) from error
            raise Refused(text, reason=error.status.name) from error
        except (OSError, StreamTerminatedError, ProtocolError, AssertionError) as error:
            raise Unavailable(f"cannot follow {method.path} on {self.path}: {error}") from error
        finally:
            channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def reachable(path: str) -> bool:
    """Whether something listens on a unix socket.  Connects and hangs up, which no server minds; does not block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # its queue is full: it is there
        except OSError:
            return False
        return True


async def answers(path: str, *, timeout_s: float) -> bool:
    """Whether the process behind a unix socket is at work: a server of HTTP/2 speaks first, and one that hangs does not.

    On a connection of its own, without a ping: servers of Go end a connection on which they are pinged too often.
    Source: RFC 9113, section 3.4."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(_PREFACE)
            head = await reader.readexactly(9)
    except (OSError, EOFError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
    return head[3] == _SETTINGS
