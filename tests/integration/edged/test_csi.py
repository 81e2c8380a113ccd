"""A CSI driver beside edged: it is found by its socket, its volumes are staged once, and nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from msgspec.structs import replace

from edgecore._generated import csi_pb2 as pb
from edgecore._generated import pluginregistration_pb2 as registration_pb
from edgecore.edged import csi, podvolumes, tree
from tests.integration.edged.bench import Bench, container, pod, stage

NAME = "disks.example.com"


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True, capture_output=True)


class Driver:
    """Its volumes are tmpfs: staged for claims and bound from there, of the pod's own when they are ephemeral."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.last: dict[str, Any] = {}
        self.broken = ""
        self.accepted: list[bool] = []
        self.expands = True

    def __mapping__(self) -> dict[str, Handler]:
        def unary(service: str, name: str, call: Any, request: Any, reply: Any) -> tuple[str, Handler]:
            async def handle(stream: Any) -> None:
                asked = await stream.recv_message()
                if service == "csi.v1.Node":
                    self.calls.append(name)
                    self.last[name] = asked
                    if self.broken == name:
                        raise GRPCError(Status.INTERNAL, "the disk does not answer")
                await stream.send_message(await asyncio.to_thread(call, asked))

            return f"/{service}/{name}", Handler(handle, Cardinality.UNARY_UNARY, request, reply)

        found = pb.DESCRIPTOR.services_by_name["Node"].methods
        node = [
            unary(
                "csi.v1.Node",
                m.name,
                getattr(self, m.name),
                getattr(pb, m.input_type.name),
                getattr(pb, m.output_type.name),
            )
            for m in found
            if hasattr(self, m.name)
        ]
        registration = [
            unary(
                "pluginregistration.Registration",
                "GetInfo",
                self.info,
                registration_pb.InfoRequest,
                registration_pb.PluginInfo,
            ),
            unary(
                "pluginregistration.Registration",
                "NotifyRegistrationStatus",
                self.registered,
                registration_pb.RegistrationStatus,
                registration_pb.RegistrationStatusResponse,
            ),
        ]
        return dict([*node, *registration])

    def info(self, _: Any) -> registration_pb.PluginInfo:
        return registration_pb.PluginInfo(
            type="CSIPlugin", name=NAME, endpoint=str(self.folder / "csi.sock"), supported_versions=["1.0.0"]
        )

    def registered(
        self, told: registration_pb.RegistrationStatus
    ) -> registration_pb.RegistrationStatusResponse:
        self.accepted.append(told.plugin_registered)
        return registration_pb.RegistrationStatusResponse()

    def NodeGetCapabilities(self, _: Any) -> pb.NodeGetCapabilitiesResponse:
        kinds = [pb.NodeServiceCapability.RPC(type="STAGE_UNSTAGE_VOLUME")]
        if self.expands:
            kinds.append(pb.NodeServiceCapability.RPC(type="EXPAND_VOLUME"))
        return pb.NodeGetCapabilitiesResponse(capabilities=[pb.NodeServiceCapability(rpc=k) for k in kinds])

    def NodeGetInfo(self, _: Any) -> pb.NodeGetInfoResponse:
        where = pb.Topology(segments={"topology.disks.example.com/rack": "r1"})
        return pb.NodeGetInfoResponse(node_id="machine-7", max_volumes_per_node=3, accessible_topology=where)

    def NodeStageVolume(self, asked: pb.NodeStageVolumeRequest) -> pb.NodeStageVolumeResponse:
        if not os.path.ismount(asked.staging_target_path):
            mount("-t", "tmpfs", "-o", "size=1m", "csi", asked.staging_target_path)
        return pb.NodeStageVolumeResponse()

    def NodePublishVolume(self, asked: pb.NodePublishVolumeRequest) -> pb.NodePublishVolumeResponse:
        os.makedirs(asked.target_path, exist_ok=True)
        if asked.staging_target_path:
            mount("--bind", asked.staging_target_path, asked.target_path)
        else:
            mount("-t", "tmpfs", "-o", "size=1m", "csi", asked.target_path)
        return pb.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, asked: pb.NodeUnpublishVolumeRequest) -> pb.NodeUnpublishVolumeResponse:
        if os.path.ismount(asked.target_path):
            subprocess.run(["umount", asked.target_path], check=True, capture_output=True)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(asked.target_path)
        return pb.NodeUnpublishVolumeResponse()

    def NodeUnstageVolume(self, asked: pb.NodeUnstageVolumeRequest) -> pb.NodeUnstageVolumeResponse:
        if os.path.ismount(asked.staging_target_path):
            subprocess.run(["umount", asked.staging_target_path], check=True, capture_output=True)
        return pb.NodeUnstageVolumeResponse()

    def NodeExpandVolume(self, asked: pb.NodeExpandVolumeRequest) -> pb.NodeExpandVolumeResponse:
        size = asked.capacity_range.required_bytes
        mount("-o", f"remount,size={size}", asked.staging_target_path)
        return pb.NodeExpandVolumeResponse(capacity_bytes=size)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        registry = self.folder / "plugins_registry"
        await asyncio.to_thread(registry.mkdir, parents=True, exist_ok=True)
        servers = []
        paths = (self.folder / "csi.sock", registry / "disks-reg.sock")
        for path in paths:
            server = Server([self])
            await server.start(path=str(path))
            servers.append(server)
        try:
            yield
        finally:
            for server in servers:
                server.close()
                await server.wait_closed()
            for path in paths:
                path.unlink(missing_ok=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where plugins look for a kubelet; the path of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="skc", dir="/tmp") as name:
        try:
            yield Path(name)
        finally:
            for point in tree.mounts_below(Path(name)):
                subprocess.run(["umount", "-l", point], check=False)


def put(b: Bench, kind: str, name: str, namespace: str = "", **fields: Any) -> None:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("meta", {})}
    b.objects.store[kind, namespace, name] = json.dumps({"metadata": meta, **fields}).encode()


def disk(b: Bench, *, attach: bool) -> None:
    """A claim `data` that is bound to a volume of the driver."""
    put(
        b,
        "csidriver",
        NAME,
        spec={
            "attachRequired": attach,
            "podInfoOnMount": True,
            "volumeLifecycleModes": ["Persistent", "Ephemeral"],
        },
    )
    put(
        b,
        "persistentvolumeclaim",
        "data",
        "default",
        meta={"uid": "u1"},
        spec={"volumeName": "disk"},
        status={"phase": "Bound"},
    )
    source = {
        "driver": NAME,
        "volumeHandle": "disk-7",
        "volumeAttributes": {"tier": "fast"},
        "nodeStageSecretRef": {"name": "login", "namespace": "default"},
    }
    ref = {"namespace": "default", "name": "data", "uid": "u1"}
    put(
        b,
        "persistentvolume",
        "disk",
        spec={"claimRef": ref, "csi": source, "accessModes": ["ReadWriteOnce"]},
    )
    put(b, "secret", "login", "default", data={"user": "bWU="})


def sized(b: Bench, *, volume: str, claim: str, wish: str) -> None:
    """The sizes of the volume, of its claim, and what that asks for."""
    for kind, namespace, name in (
        ("persistentvolume", "", "disk"),
        ("persistentvolumeclaim", "default", "data"),
    ):
        body = json.loads(b.objects.store[kind, namespace, name])
        if kind == "persistentvolume":
            body["spec"]["capacity"] = {"storage": volume}
        else:
            body["spec"]["resources"] = {"requests": {"storage": wish}}
            body["status"]["capacity"] = {"storage": claim}
        b.objects.store[kind, namespace, name] = json.dumps(body).encode()


def using(name: str, **volume: Any) -> dict[str, Any]:
    source = volume or {"persistentVolumeClaim": {"claimName": "data"}}
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/sub", "subPath": "sub"}]
    return pod(name, container(volumeMounts=mounts), volumes=[{"name": "v", **source}])


@pytest.mark.root
@pytest.mark.parametrize("kind", ["fake", "containerd"])
def test_volumes_of_a_driver(request: pytest.FixtureRequest, tmp_path: Path, folder: Path, kind: str) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None

    async def story(b: Bench) -> None:
        b.config = replace(b.config, plugin_dir=folder)
        driver = Driver(folder)
        disk(b, attach=True)
        one, two = using("one"), using("two")
        async with b.edged() as agent:
            first = b.want(one)
            # neither the driver nor the disk is there yet
            await b.until(lambda: "FailedMount" in b.reports.reasons(), "no driver")
            async with driver.serving():
                wanted = csi.Wanted(spec_name="disk", driver=NAME, handle="disk-7", ephemeral=False)
                name = csi.attachment_name(wanted, "edge-1")
                put(
                    b,
                    "volumeattachment",
                    name,
                    status={"attached": True, "attachmentMetadata": {"device": "sdx"}},
                )
                await b.until(lambda: driver.accepted == [True], "registered")
                await b.until(agent.storage_drivers, "known")
                assert agent.storage_drivers() == [
                    {
                        "name": NAME,
                        "nodeID": "machine-7",
                        "topologyKeys": ["topology.disks.example.com/rack"],
                        "allocatable": {"count": 3},
                    }
                ]
                labels = json.loads(await agent.node_object())["metadata"]["labels"]
                assert labels["topology.disks.example.com/rack"] == "r1"
                b.poke(first)
                await b.running(first)
                staged = driver.last["NodeStageVolume"]
                assert (staged.volume_id, dict(staged.secrets)) == ("disk-7", {"user": "me"})
                assert dict(staged.publish_context) == {"device": "sdx"}
                published = driver.last["NodePublishVolume"]
                assert published.volume_context["tier"] == "fast"
                assert published.volume_context["csi.storage.k8s.io/pod.name"] == "one"
                await b.exec(first, "touch", "/v/kept")
                # a second pod: it is staged already, and the data is the same
                second = b.want(two)
                await b.running(second)
                assert driver.calls.count("NodeStageVolume") == 1
                assert (await b.exec(second, "test", "-e", "/v/kept"))[0] == 0
                b.delete(one)
                await b.until(lambda: first in b.reports.gone, "first gone")
                assert "NodeUnstageVolume" not in driver.calls
        # an agent that starts anew finds what is mounted, and mounts nothing twice
        calls = list(driver.calls)
        async with driver.serving(), b.edged() as agent:
            await b.until(lambda: len(driver.accepted) == 2, "registered again")
            assert (await b.exec(second, "test", "-e", "/v/kept"))[0] == 0
            await b.until(agent.storage_drivers, "known again")
            assert [name for name in driver.calls[len(calls) :] if name != "NodeGetInfo"] == []
            # a pod is not gone before its volume is
            driver.broken = "NodeUnpublishVolume"
            b.delete(two)
            await b.until(lambda: "NodeUnpublishVolume" in driver.calls[len(calls) :], "asked")
            assert second not in b.reports.gone
            driver.broken = ""
            await b.until(lambda: second in b.reports.gone, "second gone")
            assert driver.calls[-1] == "NodeUnstageVolume"
            assert list(b.config.root_dir.iterdir()) == []
            assert tree.mounts_below(folder) == []

    async def scene() -> None:
        async with stage(kind, tmp_path, machine) as bench:
            await story(bench)

    asyncio.run(scene())


@pytest.mark.root
def test_a_volume_that_lives_as_long_as_its_pod(tmp_path: Path, folder: Path) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, plugin_dir=folder)
        driver = Driver(folder)
        disk(b, attach=True)
        inline = using("inline", csi={"driver": NAME, "volumeAttributes": {"a": "b"}, "readOnly": False})
        async with driver.serving(), b.edged():
            await b.until(lambda: driver.accepted == [True], "registered")
            uid = b.want(inline)
            await b.running(uid)
            asked = driver.last["NodePublishVolume"]
            assert asked.volume_context["csi.storage.k8s.io/ephemeral"] == "true"
            assert asked.volume_id.startswith("csi-")
            calls = [name for name in driver.calls if name != "NodeGetInfo"]
            assert calls == ["NodeGetCapabilities", "NodePublishVolume"]
            b.delete(inline)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert driver.calls[-1] == "NodeUnpublishVolume"
            assert list(b.config.root_dir.iterdir()) == []

    async def scene() -> None:
        async with stage("fake", tmp_path, None) as bench:
            await story(bench)

    asyncio.run(scene())


def size_of(b: Bench, uid: str) -> int:
    found = os.statvfs(b.config.root_dir / uid / "volumes/kubernetes.io~csi/disk/mount")
    return found.f_blocks * found.f_frsize


@pytest.mark.root
def test_a_volume_that_becomes_larger(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podvolumes, "SIZES_S", 0.3)

    async def story(b: Bench) -> None:
        b.config = replace(b.config, plugin_dir=folder)
        driver = Driver(folder)
        disk(b, attach=False)
        # it became larger before there was a pod
        sized(b, volume="2Mi", claim="1Mi", wish="2Mi")
        async with driver.serving(), b.edged():
            uid = b.want(using("one", persistentVolumeClaim={"claimName": "data"}))
            await b.running(uid)
            await b.until(lambda: b.objects.grown == [("default", "data", "u1")], "told")
            assert size_of(b, uid) == 2 << 20
            asked = driver.last["NodeExpandVolume"]
            assert asked.volume_id == "disk-7"
            assert asked.volume_path == str(b.config.root_dir / uid / "volumes/kubernetes.io~csi/disk/mount")
            assert asked.volume_capability.access_mode.mode == csi.SINGLE_NODE_WRITER
            assert "FileSystemResizeSuccessful" in b.reports.reasons()
            # and once more, while it runs; the driver fails at first
            driver.broken = "NodeExpandVolume"
            sized(b, volume="3Mi", claim="2Mi", wish="3Mi")
            await b.until(lambda: "VolumeResizeFailed" in b.reports.reasons(), "told that it failed")
            assert b.ready(uid)
            driver.broken = ""
            await b.until(lambda: len(b.objects.grown) == 2, "told again")
            assert size_of(b, uid) == 3 << 20
            calls = driver.calls.count("NodeExpandVolume")
            await asyncio.sleep(1)
            assert driver.calls.count("NodeExpandVolume") == calls
            # one that cannot is not asked, and nobody is told
            driver.expands = False
            sized(b, volume="4Mi", claim="3Mi", wish="4Mi")
            await asyncio.sleep(1)
            assert driver.calls.count("NodeExpandVolume") == calls
            assert len(b.objects.grown) == 2
            b.delete(using("one", persistentVolumeClaim={"claimName": "data"}))
            await b.until(lambda: uid in b.reports.gone, "gone")

    async def scene() -> None:
        async with stage("fake", tmp_path, None) as b:
            await story(b)

    asyncio.run(scene())


@pytest.mark.root
@pytest.mark.parametrize(
    ("policy", "groups"), [(None, [2000, 2000]), ("None", [0, 0]), ("File", [2000, 2000])]
)
def test_whose_the_files_of_a_volume_are(
    tmp_path: Path, folder: Path, policy: str | None, groups: list[int]
) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, plugin_dir=folder)
        driver = Driver(folder)
        disk(b, attach=False)
        told = json.loads(b.objects.store["csidriver", "", NAME])
        told["spec"] |= {"fsGroupPolicy": policy} if policy else {}
        b.objects.store["csidriver", "", NAME] = json.dumps(told).encode()
        volume = json.loads(b.objects.store["persistentvolume", "", "disk"])
        volume["spec"]["csi"]["fsType"] = "tmpfs"
        b.objects.store["persistentvolume", "", "disk"] = json.dumps(volume).encode()
        stage_volume = driver.NodeStageVolume

        def with_a_file(asked: pb.NodeStageVolumeRequest) -> pb.NodeStageVolumeResponse:
            done = stage_volume(asked)
            (Path(asked.staging_target_path) / "file").write_text("x")
            return done

        driver.NodeStageVolume = with_a_file  # type: ignore[method-assign]
        wanted = using("one", persistentVolumeClaim={"claimName": "data"})
        wanted["spec"]["securityContext"] = {"fsGroup": 2000}
        async with driver.serving(), b.edged():
            uid = b.want(wanted)
            await b.running(uid)
            top = b.config.root_dir / uid / "volumes/kubernetes.io~csi/disk/mount"
            assert [top.stat().st_gid, (top / "file").stat().st_gid] == groups
            b.delete(wanted)
            await b.until(lambda: uid in b.reports.gone, "gone")

    async def scene() -> None:
        async with stage("fake", tmp_path, None) as b:
            await story(b)

    asyncio.run(scene())
