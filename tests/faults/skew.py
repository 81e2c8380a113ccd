"""Daemons with a wall clock that a test can step (`skew.c`)."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.faults.stage import Stage


class Skew:
    """Edge and hub of a stage, restarted with such a clock; other parts are started as ever."""

    def __init__(
        self, stage: Stage, folder: Path, parts: tuple[str, ...] = ("cloudcore", "edgecore")
    ) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("not installed: cc")
        self._stage, self._folder, self._parts = stage, folder, parts
        self._library = folder / "skew.so"
        source = Path(__file__).with_name("skew.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)], check=True
        )
        for part in parts:
            (folder / part).write_bytes(bytes(8))
            stage.kill(part)
            self.start(part)

    def step(self, part: str, seconds: int) -> None:
        """How far its clock is ahead from now on."""
        with (self._folder / part).open("r+b") as file:
            file.write(struct.pack("q", seconds))

    def start(self, part: str) -> None:
        """Start it if it does not run."""
        daemon = self._stage.parts.daemons[part]
        if daemon.pid() is not None:
            return
        environment = {"LD_PRELOAD": str(self._library), "SKERRY_TEST_SKEW": str(self._folder / part)}
        daemon.start(self._stage.parts.command(part), env=environment if part in self._parts else None)

    def end(self) -> None:
        """The next start is one with the machine's own clock."""
        for part in self._parts:
            self._stage.kill(part)
