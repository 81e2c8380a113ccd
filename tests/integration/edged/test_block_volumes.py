"""Claims as raw devices: of this machine, and of drivers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgecore._generated import csi_pb2 as pb
from edgecore.edged import tree
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.edged.test_csi import Driver, disk, put
from tests.integration.edged.test_faults import on_containerd, on_fake

pytestmark = pytest.mark.root


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A disk of its own; its first bytes say so."""
    image = tmp_path / "disk.img"
    image.write_bytes(b"ours" + bytes(1024 * 1024 - 4))
    made = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    path = made.stdout.strip()
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


def claim(b: Bench, path: str, mode: str = "Block") -> None:
    meta = {"name": "data", "namespace": "default", "uid": "u1"}
    objects: dict[tuple[str, str, str], Any] = {
        ("persistentvolumeclaim", "default", "data"): {
            "metadata": meta,
            "spec": {"volumeName": "disk", "volumeMode": mode},
            "status": {"phase": "Bound"},
        },
        ("persistentvolume", "", "disk"): {
            "metadata": {"name": "disk"},
            "spec": {"claimRef": meta, "volumeMode": mode, "local": {"path": path}},
        },
    }
    b.objects.store.update({key: json.dumps(value).encode() for key, value in objects.items()})


def using(name: str, **source: Any) -> dict[str, Any]:
    devices = [{"name": "v", "devicePath": "/dev/data"}]
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data", **source}}
    return pod(name, container(volumeDevices=devices), volumes=[volume])


def test_a_container_reads_and_writes_a_disk_of_the_machine(
    tmp_path: Path, containerd: Containerd, device: str
) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            claim(b, str(tmp_path))
            p = using("web")
            uid = b.want(p)
            await b.until(lambda: "FailedMount" in b.reports.reasons(), "a folder is no disk")
            # by a link, as udev makes them
            (tmp_path / "by-id").symlink_to(device)
            claim(b, str(tmp_path / "by-id"))
            b.poke(uid)
            await b.running(uid)
            assert (await b.exec(uid, "head", "-c", "4", "/dev/data"))[1] == "ours"
            write = "printf mine | dd of=/dev/data bs=4 conv=notrunc 2>/dev/null && sync"
            assert (await b.exec(uid, "sh", "-c", write))[0] == 0
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert (tmp_path / "disk.img").read_bytes()[:4] == b"mine"
            reader = b.want(using("reader", readOnly=True))
            await b.running(reader)
            assert (await b.exec(reader, "head", "-c", "4", "/dev/data"))[1] == "mine"
            assert (await b.exec(reader, "sh", "-c", write))[0] != 0

    on_containerd(tmp_path, containerd, story)


def test_what_is_no_device_is_not_given_as_one(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        def said() -> str:
            return " ".join(e["message"] for e in b.reports.events)

        async with b.edged():
            claim(b, str(tmp_path), mode="Filesystem")
            uid = b.want(using("web"))
            await b.until(
                lambda: "has volumeMode Filesystem, but is specified in volumeDevices" in said(), ""
            )
            claim(b, "/dev/null")
            b.poke(uid)
            await b.until(lambda: "/dev/null is no block device" in said(), "")
            assert await b.containers(uid) == []

    on_fake(tmp_path, story)


class Blocks(Driver):
    """Its volumes are one disk of the machine."""

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(folder)
        self.device = device

    def NodeStageVolume(self, asked: pb.NodeStageVolumeRequest) -> pb.NodeStageVolumeResponse:
        assert asked.volume_capability.WhichOneof("access_type") == "block"
        return pb.NodeStageVolumeResponse()

    def NodePublishVolume(self, asked: pb.NodePublishVolumeRequest) -> pb.NodePublishVolumeResponse:
        assert asked.volume_capability.WhichOneof("access_type") == "block"
        target = Path(asked.target_path)
        assert target.parent.is_dir()
        target.touch()
        subprocess.run(["mount", "--bind", self.device, str(target)], check=True)
        return pb.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, asked: pb.NodeUnpublishVolumeRequest) -> pb.NodeUnpublishVolumeResponse:
        subprocess.run(["umount", asked.target_path], check=True)
        Path(asked.target_path).unlink()
        return pb.NodeUnpublishVolumeResponse()


def test_a_disk_of_a_driver(tmp_path: Path, containerd: Containerd, device: str) -> None:
    async def story(b: Bench) -> None:
        with tempfile.TemporaryDirectory(prefix="skb", dir="/tmp") as name:
            b.config = replace(b.config, plugin_dir=Path(name))
            driver = Blocks(Path(name), device)
            disk(b, attach=False)
            for kind, namespace, of in (
                ("persistentvolumeclaim", "default", "data"),
                ("persistentvolume", "", "disk"),
            ):
                body = json.loads(b.objects.store[kind, namespace, of])
                body["spec"]["volumeMode"] = "Block"
                put(b, kind, of, namespace, meta=body.pop("metadata"), **body)
            async with driver.serving(), b.edged():
                await b.until(lambda: driver.accepted == [True], "registered")
                p = using("web")
                uid = b.want(p)
                await b.running(uid)
                assert (await b.exec(uid, "head", "-c", "4", "/dev/data"))[1] == "ours"
                b.delete(p)
                await b.until(lambda: uid in b.reports.gone, "gone")
                assert driver.calls[-1] == "NodeUnstageVolume"
                assert await asyncio.to_thread(tree.mounts_below, b.config.root_dir) == []

    on_containerd(tmp_path, containerd, story)
