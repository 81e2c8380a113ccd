"""Take down what runs in a containerd, over the container runtime interface, so that its network goes too.

Only the few calls that this needs, and of their messages only the field numbers that it reads or writes; edgecore has
the whole interface.  `ctr tasks kill` would end the processes, but only StopPodSandbox runs CNI DEL, which gives the
addresses and the firewall rules back.

Source: Kubernetes, cri-api/pkg/apis/runtime/v1/api.proto."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from deploy.errors import TrialError

_SERVICE = "/runtime.v1.RuntimeService/"
_CALL_TIMEOUT_S = 30.0
_AT_ONCE = 8


class _Bytes(CodecBase):  # type: ignore[misc]  # grpclib is not read by the type checker
    """Messages are encoded by hand."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


def remove_everything(socket: Path) -> int:
    """Stop and remove all pod sandboxes with their containers; the number of sandboxes that there were.

    Processes are killed without their grace period: this is the end of the trial, or a power cut played by a test.
    Raises: TrialError when the runtime does not answer or refuses."""
    removed, cause = 0, None
    try:
        removed = asyncio.run(_remove_everything(socket))
    except* (GRPCError, StreamTerminatedError, OSError, TimeoutError) as group:
        cause = _first(group)
    if cause is not None:
        raise TrialError(f"cannot remove the pods: {cause or type(cause).__name__}") from cause
    return removed


def _first(fault: BaseException) -> BaseException:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault


async def _remove_everything(socket: Path) -> int:
    channel = Channel(path=str(socket), codec=_Bytes())
    slots = asyncio.Semaphore(_AT_ONCE)

    async def call(method: str, request: bytes) -> bytes:
        stub: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(channel, _SERVICE + method, bytes, bytes)
        answer: bytes = await stub(request, timeout=_CALL_TIMEOUT_S)
        return answer

    async def remove(sandbox: str) -> None:
        async with slots:
            await call("StopPodSandbox", field_text(1, sandbox))
            await call("RemovePodSandbox", field_text(1, sandbox))

    try:
        sandboxes = [id_of(item) for item in fields(await call("ListPodSandbox", b""), 1)]
        async with asyncio.TaskGroup() as group:
            for sandbox in sandboxes:
                group.create_task(remove(sandbox), name=f"remove {sandbox[:12]}")
        return len(sandboxes)
    finally:
        channel.close()


def field_text(number: int, text: str) -> bytes:
    """One length-delimited field of a protobuf message."""
    raw = text.encode()
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def id_of(item: bytes) -> str:
    """Field 1 of a listed object, its id."""
    return next(fields(item, 1)).decode()


def fields(message: bytes, number: int) -> Iterator[bytes]:
    """The length-delimited fields with this number, in order.  Raises TrialError for what is not protobuf."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _read_varint(message, at)
            continue
        if kind == 1:
            length = 8
        elif kind == 5:
            length = 4
        elif kind == 2:
            length, at = _read_varint(message, at)
        else:
            raise TrialError("cannot read the runtime's answer: it is not protobuf")
        if at + length > len(message):
            raise TrialError("cannot read the runtime's answer: it is cut off")
        if kind == 2 and key >> 3 == number:
            yield message[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise TrialError("cannot read the runtime's answer: it is cut off")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
