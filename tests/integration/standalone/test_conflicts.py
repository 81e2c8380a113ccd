"""Who is refused because of somebody else's write finds that write when reading next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from cloudcore import kube
from cloudcore.errors import ApiExists
from cloudcore.kube import Kube
from cloudcore.objects import CONFIGMAP
from tests.integration.standalone.server import control_plane


def test_the_loser_of_a_create_can_read_what_won(tmp_path: Path) -> None:
    async def contend(kubeconfig: str) -> int:
        client = Kube(kube.load(kubeconfig))
        lost = 0

        async def create(name: str) -> None:
            nonlocal lost
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "default"},
            }
            try:
                await client.create(CONFIGMAP, msgspec.json.encode(body), "default")
            except ApiExists:
                lost += 1
                await client.get(CONFIGMAP, name, "default")

        try:
            for number in range(40):
                async with asyncio.TaskGroup() as group:
                    for _ in range(4):
                        group.create_task(create(f"same-{number}"))
        finally:
            await client.close()
        return lost

    async def main() -> int:
        async with control_plane(tmp_path):
            return await contend(str(tmp_path / "admin.kubeconfig"))

    assert asyncio.run(main()) == 120
