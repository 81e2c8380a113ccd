"""A machine whose pods were started by a stock edgecore: they go on, and so does everything that hangs on them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged.runtime import (
    ANNOTATION_HASH,
    ANNOTATION_POD,
    ANNOTATION_RESOURCES,
    ContainerConfig,
    ContainerState,
    SandboxConfig,
)
from tests.integration.edged.bench import Bench, container, pod, stage


def as_a_stock_edgecore(b: Bench, spec_hash: str) -> None:
    """From now on pods are started with what a stock agent writes on them.  spec_hash: empty for the same as ours."""
    create, run = b.cri.create_container, b.cri.run_sandbox

    def changed(config: SandboxConfig) -> SandboxConfig:
        return replace(
            config, annotations={k: v for k, v in config.annotations.items() if k != ANNOTATION_POD}
        )

    async def create_container(sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        notes = {k: v for k, v in config.annotations.items() if k != ANNOTATION_RESOURCES}
        if spec_hash:
            notes[ANNOTATION_HASH] = spec_hash
        return await create(sandbox_id, replace(config, annotations=notes), changed(sandbox))

    async def run_sandbox(config: SandboxConfig, *, handler: str = "") -> str:
        return await run(changed(config), handler=handler)

    b.cri.create_container = create_container  # type: ignore[method-assign]
    b.cri.run_sandbox = run_sandbox  # type: ignore[method-assign]


@pytest.mark.parametrize("spec_hash", ["", "311670a"])
@pytest.mark.parametrize("kind", ["fake", pytest.param("containerd", marks=pytest.mark.root)])
def test_pods_of_a_stock_edgecore_go_on(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, spec_hash: str
) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None
    wanted = pod(
        "web",
        container(
            volumeMounts=[{"name": "data", "mountPath": "/data"}, {"name": "cm", "mountPath": "/cm"}],
            terminationMessagePath="/words",
        ),
        volumes=[{"name": "data", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "settings"}}],
    )

    async def story(b: Bench) -> None:
        b.put("configmap", "settings", data={"colour": "blue"})
        ours, theirs = b.config, tmp_path / "kubelet"
        untouched = (b.cri.create_container, b.cri.run_sandbox)
        as_a_stock_edgecore(b, spec_hash)
        b.config = replace(ours, root_dir=theirs / "pods", log_dir=theirs / "logs")
        async with b.edged():
            uid = b.want(wanted)
            await b.running(uid)
            await b.exec(uid, "touch", "/data/kept")
        before = await b.container_id(uid)

        b.config = ours
        b.cri.create_container, b.cri.run_sandbox = untouched  # type: ignore[method-assign]
        b.state.rows.clear()
        b.reports.statuses.clear()
        async with b.edged() as agent:
            await b.until(lambda: b.ready(uid), "taken over")
            assert b.container(uid)["containerID"] == f"containerd://{before}"
            assert b.container(uid)["restartCount"] == 0
            worker = agent.worker(uid)
            assert worker is not None
            assert worker.log_root == str(theirs / "logs")
            # what changes reaches it where it looks
            b.put("configmap", "settings", data={"colour": "green"})
            colour = theirs / "pods" / uid / "volumes" / "kubernetes.io~configmap" / "cm" / "colour"
            await b.until(lambda: colour.read_text() == "green", "followed the change")
            assert (await b.exec(uid, "cat", "/cm/colour"))[1] == "green"
        # once more, from what the agent remembers; then it crashes and is started by us, with its data
        async with b.edged():
            await b.until(lambda: b.ready(uid), "adopted again")
            await b.cri.stop_container(before, 0)
            await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "restarted")
            assert (await b.exec(uid, "test", "-e", "/data/kept"))[0] == 0
            states = [c.state for c in await b.containers(uid) if c.id != before]
            assert states == [ContainerState.RUNNING]
            b.delete(wanted)
            await b.until(lambda: b.reports.gone == [uid], "gone")
            for folder in (theirs / "pods", theirs / "logs", ours.root_dir, ours.log_dir):
                assert list(folder.iterdir()) == []

    async def scene() -> None:
        async with stage(kind, tmp_path, machine) as bench:
            await story(bench)

    asyncio.run(scene())
