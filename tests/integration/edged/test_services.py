"""Containers know their namespace's Services by variables, also when nobody can be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.integration.edged.bench import Bench, container, pod, stage


def _service(b: Bench, name: str, address: str, port: int) -> None:
    b.put("service", name, spec={"clusterIP": address, "ports": [{"port": port}]})


@pytest.mark.parametrize("kind", ["fake", pytest.param("containerd", marks=pytest.mark.root)])
def test_services_are_variables(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None

    async def main() -> None:
        async with stage(kind, tmp_path, machine) as b:
            _service(b, "my-db", "10.9.8.7", 5432)
            _service(b, "headless", "None", 80)
            own: dict[str, Any] = {"env": [{"name": "URL", "value": "db://$(MY_DB_SERVICE_HOST)"}]}
            with_links = pod("with", container(**own))
            without = pod("without", container(), enableServiceLinks=False)
            b.objects.offline = True
            async with b.edged():
                uid, other = b.want(with_links), b.want(without)
                await b.running(uid)
                await b.running(other)
                env = await b.env(uid)
                assert env["MY_DB_SERVICE_HOST"] == "10.9.8.7"
                assert env["MY_DB_PORT_5432_TCP"] == "tcp://10.9.8.7:5432"
                assert env["URL"] == "db://10.9.8.7"
                assert not [name for name in env if name.startswith("HEADLESS")]
                assert not [name for name in await b.env(other) if name.startswith("MY_DB")]
                # another address is told to the next container, not to this one
                first = await b.container_id(uid)
                _service(b, "my-db", "10.9.8.8", 5432)
                b.poke(uid)
                await asyncio.sleep(0.3)
                assert await b.container_id(uid) == first
                await b.cri.stop_container(first, 0)
                await b.until(lambda: b.container(uid).get("restartCount") == 1, "restarted")
                await b.running(uid)
                assert (await b.env(uid))["MY_DB_SERVICE_HOST"] == "10.9.8.8"

    asyncio.run(main())
