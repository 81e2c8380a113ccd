"""A program with what is piped in: what goes over the streams, when they end, and the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable

import pytest

from beehive.errors import SkerryError, Unavailable
from edgecore import execpipe

ERROR, STDIN, STDOUT, STDERR = 1, 3, 5, 7
"""SPDY numbers a client's streams by odd numbers, in the order in which they are opened."""


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack("!II", stream, len(payload)) + payload


def verdict(code: int) -> bytes:
    causes = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return frame(ERROR, json.dumps({"status": "Failure", "details": causes}).encode())


class Runtime:
    """The other end: gathers what is piped in, and answers with `act` once it is over."""

    def __init__(self, end: socket.socket, act: Callable[[bytes], bytes]) -> None:
        self.end, self.act = end, act
        self.heard = b""

    async def run(self) -> None:
        loop, buffer = asyncio.get_running_loop(), b""
        while True:
            data = await loop.sock_recv(self.end, 65536)
            assert data, "the client stays until it is told"
            buffer += data
            while len(buffer) >= 8:
                head, rest = struct.unpack_from("!II", buffer)
                size = rest & 0xFFFFFF
                if len(buffer) < 8 + size:
                    break
                body, buffer = buffer[8 : 8 + size], buffer[8 + size :]
                if head >> 31:
                    continue
                assert head == STDIN
                self.heard += body
                if rest >> 24:
                    await loop.sock_sendall(self.end, self.act(self.heard))
                    self.end.shutdown(socket.SHUT_WR)
                    return


def play(act: Callable[[bytes], bytes], given: bytes, out: int, err: int) -> tuple[int, bytes]:
    async def scene() -> tuple[int, bytes]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        source, sink = os.pipe()
        with ours, theirs:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                runtime = Runtime(theirs, act)
                serving = group.create_task(runtime.run())
                feeding = group.create_task(asyncio.to_thread(_write, sink, given))
                try:
                    code = await execpipe.run(ours, b"", source, out, err)
                finally:
                    await feeding
                    os.close(source)
                    await serving
        return code, runtime.heard

    return asyncio.run(scene())


def _write(sink: int, given: bytes) -> None:
    view = memoryview(given)
    while view:
        view = view[os.write(sink, view) :]
    os.close(sink)


def test_all_that_is_piped_in_arrives_with_its_end_and_the_exit_code_comes_back() -> None:
    given = os.urandom(300_000)
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    try:
        said = frame(STDOUT, b"one") + frame(STDERR, b"two") + verdict(7)
        code, heard = play(lambda _: said, given, out_end, err_end)
        assert (code, heard == given) == (7, True)
        assert (os.read(out, 9), os.read(err, 9)) == (b"one", b"two")
    finally:
        for fd in (out, out_end, err, err_end):
            os.close(fd)


def test_nothing_piped_in_ends_at_once() -> None:
    success = frame(ERROR, b'{"status":"Success"}')
    assert play(lambda _: success, b"", 1, 2) == (0, b"")


def test_a_program_that_did_not_start_and_a_runtime_that_goes() -> None:
    failure = frame(ERROR, json.dumps({"status": "Failure", "message": "no such program"}).encode())
    with pytest.raises(ExceptionGroup) as raised:
        play(lambda _: failure, b"", 1, 2)
    assert raised.group_contains(SkerryError, match="no such program")
    with pytest.raises(ExceptionGroup) as raised:
        play(lambda _: b"", b"", 1, 2)
    assert raised.group_contains(Unavailable, match="without a word")


def test_a_reader_that_has_had_enough_ends_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, _ = play(lambda _: frame(STDOUT, b"x") + verdict(0), b"", writer, 2)
        assert code == execpipe.SIGPIPE
    finally:
        os.close(writer)
