"""How a real `mapper run` process begins and ends where things are not as they should be."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beehive.watchdog import HANGS
from tests.integration.devices.test_thermostat import ROOT, Edge, folder, sample
from tests.unit.devicetwin.fakes import until

__all__ = ["folder"]

BLOCKING = """
import time
from mappers.framework.driver import Driver

class Blocks(Driver):
    protocol = "virtual"

    async def read(self, prop):
        print("reading", flush=True)
        time.sleep(3600)
"""


IMPATIENT = """
import sys
from beehive import supervise
from beehive.watchdog import Watchdog
from mappers.cli import main

supervise.Watchdog = lambda: Watchdog(look_s=0.1, tell_s=0.5, loop_limit_s=2.0)
sys.exit(main())
"""


@contextlib.asynccontextmanager
async def started(
    folder: Path, file: str, program: tuple[str, str] = ("-m", "mappers.cli")
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "run", file, "--dmi-dir", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_without_an_edgecore_no_folder_is_left_behind(folder: Path) -> None:
    async def scenario() -> None:
        dmi_dir = folder / "etc" / "kubeedge"
        async with started(dmi_dir, "mappers/virtual/thermostat.py") as process:
            await until((dmi_dir / "virtual.sock").exists)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await process.communicate()
            assert process.returncode == 0
        assert not (folder / "etc").exists()

        # one that was there, or that somebody uses by now, stays
        dmi_dir.mkdir(parents=True)
        async with started(dmi_dir / "deep", "mappers/virtual/thermostat.py") as process:
            await until((dmi_dir / "deep" / "virtual.sock").exists)
            (dmi_dir / "deep" / "dmi.sock").touch()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await process.communicate()
        assert [path.name for path in (dmi_dir / "deep").iterdir()] == ["dmi.sock"]

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_driver_that_blocks_the_loop_does_not_keep_its_mapper_alive(folder: Path) -> None:
    async def scenario() -> None:
        file = folder / "blocks.py"
        file.write_text(BLOCKING)
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            await edge.put(twin, "device", sample("device"))
            for signals, code in (((signal.SIGTERM,), HANGS), ((signal.SIGTERM, signal.SIGTERM), 143)):
                async with started(folder, str(file)) as process:
                    assert process.stdout is not None
                    async with asyncio.timeout(30):
                        assert await process.stdout.readline() == b"reading\n"
                    for number in signals:
                        process.send_signal(number)
                        await asyncio.sleep(0.2)
                    async with asyncio.timeout(60):
                        _, said = await process.communicate()
                    assert process.returncode == code
                    assert (b"its event loop is blocked" in said) == (code == HANGS)
                    assert (b"blocks.py" in said) == (code == HANGS)  # whose fault it is
            # nobody need tell it to end
            async with started(folder, str(file), ("-c", IMPATIENT)) as process, asyncio.timeout(60):
                _, said = await process.communicate()
                assert process.returncode == HANGS
                assert b"blocks.py" in said

    asyncio.run(scenario())
