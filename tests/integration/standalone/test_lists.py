"""Lists in pages while others write, and lists of a moment that has passed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.integration.standalone.server import client, control_plane


def test_pages_show_one_moment(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            maps = plane.server + "/api/v1/namespaces/kube-public/configmaps"

            async def create(name: str) -> None:
                async with session.post(maps, json={"metadata": {"name": name}}) as answer:
                    assert answer.status == 201

            async def listed(**query: str) -> tuple[int, Any]:
                async with session.get(maps, params=query) as answer:
                    return answer.status, await answer.json()

            async with asyncio.timeout(30):
                while (await session.get(f"{maps}/kube-root-ca.crt")).status != 200:
                    await asyncio.sleep(0.05)
            for name in ("a", "c"):
                await create(name)
            _, first = await listed(limit="1")
            moment = first["metadata"]["resourceVersion"]
            await create("b")
            async with session.delete(f"{maps}/c") as answer:
                assert answer.status == 200
            code, second = await listed(limit="5", **{"continue": first["metadata"]["continue"]})
            names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
            assert (code, names) == (200, ["a", "c", "kube-root-ca.crt"])
            assert second["metadata"]["resourceVersion"] == moment
            code, then = await listed(resourceVersion=moment, resourceVersionMatch="Exact")
            assert [item["metadata"]["name"] for item in then["items"]] == ["a", "c", "kube-root-ca.crt"]
            code, now = await listed(resourceVersion=moment, resourceVersionMatch="NotOlderThan")
            assert [item["metadata"]["name"] for item in now["items"]] == ["a", "b", "kube-root-ca.crt"]
        # what happened before a restart is not known any more: said, not guessed
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            maps = plane.server + "/api/v1/namespaces/kube-public/configmaps"
            async with session.get(
                maps, params={"limit": "5", "continue": first["metadata"]["continue"]}
            ) as answer:
                body = await answer.json()
            assert (answer.status, body["reason"]) == (410, "Expired")

    asyncio.run(main())
