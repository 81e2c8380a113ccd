"""What `skerry init` applies, at a real API: each object is taken as it stands, and cloudcore can live on its account."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import deploy
from beehive.message import Op
from cloudcore.objects import CONFIGMAP, NODE, POD
from deploy import cluster
from tests.fakes import edge
from tests.integration.link import cloud
from tests.integration.link.cloud import Process, node_body, pod_body

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
SAMPLES = sorted(
    (Path(deploy.__file__).parent / "samples").glob("*.yaml"),
    key=lambda file: (not file.stem.endswith("-model"), file.name),
)
SERVER_SIDE = ("apply", "--server-side", "-f", "-")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with cloud.process(tmp_path_factory.mktemp("first"), hardware=1) as running:
        yield running


def kubectl(running: Process, *words: str, stdin: str | None = None) -> tuple[str, str]:
    """What it said, and what it warned of."""
    base = (
        "kubectl",
        "--kubeconfig",
        str(running.kubeconfig),
        "--cache-dir",
        str(running.kubeconfig.parent / "cache"),
    )
    done = subprocess.run(
        (*base, *words), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def applied(running: Process) -> dict[str, str]:
    """Everything that `skerry init` would apply: where it came from, and the objects."""
    wish = cluster.Wish(image="registry.example/cloudcore:1", addresses=("192.0.2.1", "hub.example"))
    found = {"definitions": cluster.definitions(), "manifests": cluster.manifests(wish)}
    for text in found.values():
        kubectl(running, *SERVER_SIDE, stdin=text)
    kubectl(running, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    return found


def test_all_that_is_applied_is_taken_as_it_stands(first: Process) -> None:
    texts = applied(first) | {file.name: file.read_text() for file in SAMPLES}
    for where, text in texts.items():
        wanted = [item for item in yaml.safe_load_all(text) if item]
        told, warned = kubectl(first, "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
        assert len(told.splitlines()) == len(wanted), where
        # of what this API keeps and does not act upon it says so; that is no fault of a manifest
        ours = ("not acted upon", "this server has nobody", "last-applied-configuration")
        unexpected = [line for line in warned.splitlines() if not any(words in line for words in ours)]
        assert unexpected == [], where
        again, _ = kubectl(first, *SERVER_SIDE, "--dry-run=server", "-o", "json", stdin=text)
        shown = json.loads(again)
        for item in shown.get("items", [shown]):
            assert item["metadata"].get("uid"), item["metadata"]["name"]


def test_cloudcore_lives_on_its_account(first: Process, tmp_path: Path) -> None:
    applied(first)
    token = kubectl(first, "-n", "kubeedge", "create", "token", "cloudcore")[0].strip()
    config = yaml.safe_load(first.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    own = tmp_path / "kubeconfig"
    own.write_text(yaml.safe_dump(config))

    async def go(second: Process) -> None:
        async with cloud.using(replace(first, hub=second.hub)) as there, asyncio.timeout(60):
            identity = await there.node("edge-1")
            await there.create(CONFIGMAP, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
            volumes = [{"name": "v", "configMap": {"name": "settings"}}]
            async with edge.connected(there.hub, identity) as link:
                answer = await link.request(Op.INSERT, "default/node/edge-1", node_body("edge-1"))
                assert answer.route.operation != Op.ERROR, answer.text()
                pod = await there.create(POD, pod_body("one", "edge-1", volumes=volumes))
                await link.until(lambda it: {"default/pod/one", "default/configmap/settings"} <= it.paths())
                assert pod.uid in link.held
            assert (await there.api.get(NODE, "edge-1")).uid

    with cloud.replica(tmp_path, own) as (second, _):
        asyncio.run(go(second))
    log = (tmp_path / "log").read_text()
    assert "forbidden" not in log.lower(), log
