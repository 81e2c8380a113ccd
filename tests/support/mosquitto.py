"""A real broker that lets everybody in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

PROGRAM = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
IS_HERE = os.access(PROGRAM, os.X_OK)
START_S = 30.0


@contextlib.asynccontextmanager
async def broker(port: int, *lines: str, folder: Path | None = None) -> AsyncIterator[None]:
    """lines: more of its configuration.   folder: where it may write, if that is to outlive it."""
    with contextlib.ExitStack() as exits:
        own = folder or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="skm")))
        own.chmod(0o777)  # mosquitto gives up root
        config = own / "mosquitto.conf"
        config.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *lines, ""]))
        config.chmod(0o644)
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + START_S
            while not _listens(port):
                assert time.monotonic() < deadline, "mosquitto does not listen"
                await asyncio.sleep(0.02)
            yield
        finally:
            process.terminate()
            await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
