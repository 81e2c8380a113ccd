"""A program with this terminal: what goes over the channels, and that the terminal is as before afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import termios

import pytest

from beehive.errors import ProtocolError, SkerryError, Unavailable
from edgecore import terminal


def failure(**more: object) -> bytes:
    return json.dumps({"status": "Failure", **more}).encode()


def test_the_exit_code_is_the_programs() -> None:
    assert terminal.exit_code(b'{"metadata":{},"status":"Success"}') == 0
    causes = {"causes": [{"reason": "ExitCode", "message": "7"}]}
    assert terminal.exit_code(failure(reason="NonZeroExitCode", details=causes)) == 7
    with pytest.raises(SkerryError, match="no such file"):
        terminal.exit_code(failure(message="no such file"))
    for rubbish in (b"", b"[]", b"\xff"):
        with pytest.raises(ProtocolError):
            terminal.exit_code(rubbish)


class Runtime:
    """Echoes what is typed, until an x; then says how it ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.sizes: list[dict[str, int]] = []
        self.out: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = False

    async def recv(self) -> bytes:
        if self.gone:
            raise Unavailable("the runtime went away")
        return await self.out.get()

    async def send(self, data: bytes) -> None:
        if data[0] == terminal.RESIZE:
            self.sizes.append(json.loads(data[1:]))
            return
        self.heard += data[1:]
        self.out.put_nowait(bytes([terminal.STDOUT]) + data[1:].upper())
        if b"x" in data:
            causes = {"causes": [{"reason": "ExitCode", "message": "3"}]}
            self.out.put_nowait(bytes([terminal.ERROR]) + failure(details=causes))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        return


def test_keys_go_in_output_comes_out_and_the_terminal_is_as_before() -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        termios.tcsetwinsize(theirs, (33, 99))
        runtime = Runtime()

        async def scene() -> int:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                done = group.create_task(terminal.run(runtime, theirs, theirs))
                while termios.tcgetattr(theirs) == before or not runtime.sizes:
                    await asyncio.sleep(0)
                os.write(ours, b"\x03ab")  # raw: the program gets it, not we
                while runtime.heard != b"\x03ab":
                    await asyncio.sleep(0)
                os.write(ours, b"x")
                return await done

        assert asyncio.run(scene()) == 3
        shown = b""
        while len(shown) < 4:  # a terminal gives what it has so far
            shown += os.read(ours, 100)
        assert shown == b"\x03ABX"
        assert runtime.sizes == [{"Width": 99, "Height": 33}]
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_runtime_that_goes_away_leaves_the_terminal_as_before() -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        runtime = Runtime()
        runtime.gone = True
        with pytest.raises(ExceptionGroup, match="unhandled"):
            asyncio.run(terminal.run(runtime, theirs, theirs))
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
