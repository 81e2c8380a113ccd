"""A program in a container with this terminal: what `edgecore exec -it` does once the runtime waits for a client.

The bytes go over a websocket to the runtime's streaming server, each message with its channel in front.  The terminal is raw
meanwhile, so that keys and control characters reach the program as they are, and is as before afterwards, whatever happens.

Source: Kubernetes, apimachinery util/remotecommand and kubelet's websocket protocol v4.channel.k8s.io."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from typing import Any

import msgspec

from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import UNREADABLE
from beehive.tunnelpeer import BinaryConnection
from edgecore.typedin import TypedIn

SUBPROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
READ = 4096
MAX_KEYS = 64
"""Pieces of input that wait to be sent; who types faster than the program reads is held up."""


class _Cause(msgspec.Struct, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True, kw_only=True):
    causes: list[_Cause] = []


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    status: str = ""
    message: str = ""
    details: _Details | None = None


def exit_code(said: bytes) -> int:
    """The program's exit code by what the runtime said at the end.  Raises: SkerryError (it did not start), ProtocolError."""
    try:
        found = msgspec.json.decode(said, type=_Status)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read what became of the program: {error}") from error
    if found.status == "Success":
        return 0
    for cause in found.details.causes if found.details is not None else ():
        if cause.reason == "ExitCode" and cause.message.isdecimal():
            return int(cause.message) & 0xFF
    raise SkerryError(found.message[:512] or "the program did not start")


def size_message(rows: int, columns: int) -> bytes:
    """How large the terminal is, as the runtime wants to hear it."""
    return bytes([RESIZE]) + msgspec.json.encode({"Width": columns, "Height": rows})


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal without echo, lines and signals of its own."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def run(connection: BinaryConnection, keys: int, screen: int) -> int:
    """Carry keys and output until the program ends; its exit code.   keys, screen: file descriptors of a terminal.

    Raises: SkerryError (it did not start), Unavailable (the runtime went away), ProtocolError."""
    typed = TypedIn(keys, most=MAX_KEYS, size=READ)
    resized = asyncio.Event()
    resized.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    try:
        with raw(keys):
            typed.start()
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(_send_keys(connection, typed), name="keys up"),
                    group.create_task(_send_sizes(connection, screen, resized), name="sizes up"),
                ]
                said = await _show(connection, screen)
                for helper in helpers:
                    helper.cancel()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
    return exit_code(said)


async def _show(connection: BinaryConnection, screen: int) -> bytes:
    """Until the runtime says what became of the program."""
    while True:
        message = await connection.recv()
        channel, data = message[:1], memoryview(message)[1:]
        if channel in (bytes([STDOUT]), bytes([STDERR])):
            while data:
                data = data[await asyncio.to_thread(os.write, screen, data) :]
        elif channel == bytes([ERROR]) and data:
            return bytes(data)


async def _send_keys(connection: BinaryConnection, typed: TypedIn) -> None:
    while data := await typed.get():
        with contextlib.suppress(Unavailable):  # whoever reads hears of it, too
            await connection.send(bytes([STDIN]) + data)


async def _send_sizes(connection: BinaryConnection, screen: int, resized: asyncio.Event) -> None:
    while True:
        await resized.wait()
        resized.clear()
        rows, columns = _size(screen)
        if rows and columns:
            with contextlib.suppress(Unavailable):
                await connection.send(size_message(rows, columns))


def _size(screen: int) -> tuple[int, int]:
    try:
        found: tuple[Any, ...] = struct.unpack("HHHH", fcntl.ioctl(screen, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return int(found[0]), int(found[1])
