"""Run a control plane for a test: in this process on a free port, with everything under a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import uvloop

from cloudcore.standalone.measured import UsageSource
from cloudcore.standalone.server import ControlPlane, StandaloneConfig


@contextlib.asynccontextmanager
async def control_plane(
    state_dir: Path,
    *,
    manifests: Sequence[Path] = (),
    node_grace_s: float = 40.0,
    usage: UsageSource | None = None,
) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane(
        StandaloneConfig(state_dir=state_dir, listen_port=0, node_grace_s=node_grace_s),
        bootstrap_manifests=manifests,
        usage=usage,
    )
    task = asyncio.get_running_loop().create_task(plane.run())
    started = asyncio.get_running_loop().create_task(plane.started())
    try:
        async with asyncio.timeout(20):
            await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield plane
    finally:
        started.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        # connections that clients have closed a moment ago end in the next turns of the loop
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def client(state_dir: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """An administrator's HTTPS session."""
    context = ssl.create_default_context(cafile=str(state_dir / "pki" / "api-ca.crt"))
    context.load_cert_chain(state_dir / "pki" / "admin.crt", state_dir / "pki" / "admin.key")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def kubectl(
    state_dir: Path, *arguments: str, stdin: str | None = None, timeout_s: float = 30.0
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the stock kubectl against that control plane."""
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        "--kubeconfig",
        str(state_dir / "admin.kubeconfig"),
        "--cache-dir",
        str(state_dir / "kubectl-cache"),
        *arguments,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(state_dir), "KUBE_EDITOR": "true"},
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin.encode() if stdin is not None else None)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def _until_told(state_dir: Path) -> None:
    async with control_plane(state_dir):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    # for clients that block: serve the folder given until standard input ends
    # on the loop that cloudcore runs on
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_told(Path(sys.argv[1])))
