"""Remove every sandbox of a runtime, as the last act of a test."""

from __future__ import annotations

import asyncio

from edgecore.edged.cri import Cri


async def wipe_async(cri: Cri) -> None:
    """Stop and remove all sandboxes; what runs in them is killed."""
    for container in await cri.list_containers():
        await cri.stop_container(container.id, 0)
        await cri.remove_container(container.id)
    for sandbox in await cri.list_sandboxes():
        await cri.stop_sandbox(sandbox.id)
        await cri.remove_sandbox(sandbox.id)


def wipe(endpoint: str) -> None:
    async def run() -> None:
        cri = Cri(endpoint)
        try:
            await wipe_async(cri)
        finally:
            cri.close()

    asyncio.run(run())
