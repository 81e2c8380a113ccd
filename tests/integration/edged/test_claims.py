"""Claims on volumes of this machine: data outlives the pod, and nothing of another claim is shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgecore.edged import tree
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.edged.test_faults import on_containerd, on_fake


def put(b: Bench, path: Path, *, claim_uid: str = "u1") -> None:
    def raw(obj: dict[str, Any]) -> bytes:
        return json.dumps(obj).encode()

    b.objects.store["persistentvolumeclaim", "default", "data"] = raw(
        {
            "metadata": {"name": "data", "namespace": "default", "uid": "u1"},
            "spec": {"volumeName": "disk"},
            "status": {"phase": "Bound"},
        }
    )
    b.objects.store["persistentvolume", "", "disk"] = raw(
        {
            "metadata": {"name": "disk"},
            "spec": {
                "claimRef": {"namespace": "default", "name": "data", "uid": claim_uid},
                "local": {"path": str(path)},
            },
        }
    )


def claiming(name: str, command: str, **claim: Any) -> dict[str, Any]:
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/sub", "subPath": "sub"}]
    return pod(
        name,
        container(
            command=["sh", "-c", f"{command}; trap 'exit 0' TERM; sleep 1000 & wait"], volumeMounts=mounts
        ),
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data", **claim}}],
    )


@pytest.mark.root
def test_data_outlives_pods_and_nothing_stays_mounted(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        disk = tmp_path / "disk"
        async with b.edged():
            p = claiming("first", "echo one > /v/file; echo two > /sub/file")
            uid = b.want(p)
            await b.until(lambda: "FailedMount" in b.reports.reasons(), "no claim yet")
            put(b, disk)
            b.reports.events.clear()
            b.poke(uid)
            # a local volume must be there: no empty folder takes its place
            await b.until(lambda: "FailedMount" in b.reports.reasons(), "no disk yet")
            assert not disk.exists()
            disk.mkdir()
            b.poke(uid)
            await b.running(uid)
            await b.until(lambda: (disk / "sub" / "file").exists(), "written")
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert (disk / "file").read_text() == "one\n"
            assert (disk / "sub" / "file").read_text() == "two\n"
            assert tree.mounts_below(tmp_path) == []
            reader = claiming("second", "echo three > /v/more", readOnly=True)
            second = b.want(reader)
            await b.running(second)
            assert (await b.exec(second, "cat", "/v/file"))[1] == "one\n"
            assert not (disk / "more").exists()
            b.delete(reader)
            await b.until(lambda: second in b.reports.gone, "gone, with its mounts")
            assert tree.mounts_below(tmp_path) == []

    on_containerd(tmp_path, containerd, story)


def test_a_volume_of_another_claim_or_a_forbidden_path_holds_the_pod(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        put(b, disk, claim_uid="somebody-else")

        def said() -> str:
            return " ".join(e["message"] for e in b.reports.events)

        async with b.edged():
            uid = b.want(claiming("web", "true"))
            await b.until(lambda: "another claim" in said(), "refused")
            put(b, disk)
            policy = tmp_path / "policy.json"
            policy.write_text('{"allowHostPaths": []}')
        b.config = replace(b.config, policy_file=policy)
        async with b.edged():
            await b.until(lambda: "policy forbids path" in said(), "refused")
            await asyncio.sleep(0.2)
            assert await b.containers(uid) == []

    on_fake(tmp_path, story)
