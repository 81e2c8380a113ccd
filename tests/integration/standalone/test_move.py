"""Back up, restore and export, as an administrator does it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.integration.standalone.server import control_plane, kubectl
from tests.integration.standalone.test_kubectl import CRD, WEB


async def cloudcore(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cloudcore.cli",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_what_was_saved_comes_back_and_moves_on(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    config, file, folder = tmp_path / "cloudcore.yaml", tmp_path / "file", tmp_path / "manifests"
    config.write_text(f"modules:\n  standalone:\n    stateDir: {home}\n")
    named = ("--config", str(config))

    async def good(state_dir: Path, *arguments: str, stdin: str | None = None) -> str:
        code, out, err = await kubectl(state_dir, *arguments, stdin=stdin)
        assert code == 0, f"kubectl {arguments}: {err}"
        return out

    async def main() -> None:
        async with control_plane(home):
            await good(home, "apply", "-f", "-", stdin=WEB)
            await good(home, "apply", "-f", "-", stdin=CRD)
            await good(
                home, "wait", "--for=condition=Established", "crd/widgets.test.example", "--timeout=10s"
            )
            widget = "apiVersion: test.example/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"
            await good(home, "apply", "-f", "-", stdin=widget)
            await good(home, "create", "configmap", "kept", "--from-literal=k=v")
            token = (await good(home, "create", "token", "default")).strip()
            code, _, err = await cloudcore("backup", *named, str(file))
            assert code == 0, err
            await good(home, "delete", "configmap", "kept")
            await good(home, "create", "configmap", "later")
            code, _, err = await cloudcore("restore", *named, str(file))
            assert code == 1
            assert "a control plane runs there" in err
            newest = int(
                json.loads(await good(home, "get", "cm", "later", "-o", "json"))["metadata"][
                    "resourceVersion"
                ]
            )
        code, _, err = await cloudcore("restore", *named, str(file))
        assert code == 0, err
        async with control_plane(home):
            kept: dict[str, Any] = json.loads(await good(home, "get", "cm", "kept", "-o", "json"))
            assert int(kept["metadata"]["resourceVersion"]) > newest
            assert (await kubectl(home, "get", "cm", "later"))[0] == 1
            assert await good(home, "auth", "whoami", "--token", token)
            assert "web" in await good(home, "get", "deployments", "-o", "name")
            code, _, err = await cloudcore("export", *named, "-o", str(folder))
            assert code == 0, err
            code, text, _ = await cloudcore("export", *named)
            assert code == 0
            assert text.count("kind: Deployment") == 1
        names = sorted(path.name for path in folder.iterdir())
        assert names == [
            "1-cluster-customresourcedefinitions.apiextensions.k8s.io-widgets.test.example.yaml",
            "3-default-configmaps-kept.yaml",
            "5-default-widgets.test.example-w.yaml",
            "6-default-deployments.apps-web.yaml",
        ]
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        async with control_plane(other):
            await good(other, "apply", "-f", str(folder / names[0]))
            await good(
                other, "wait", "--for=condition=Established", "crd/widgets.test.example", "--timeout=10s"
            )
            await good(other, "apply", "-f", str(folder))
            assert json.loads(await good(other, "get", "widget", "w", "-o", "json"))["spec"] == {"size": 3}
            assert "web" in await good(other, "get", "deployments", "-o", "name")

    asyncio.run(main())
