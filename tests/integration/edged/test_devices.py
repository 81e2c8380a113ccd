"""A real device plugin beside edged: it registers, its devices go to containers, and it may come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server
from msgspec.structs import replace

from edgecore._generated import deviceplugin_pb2 as pb
from edgecore._generated import podresources_pb2 as resources_pb
from tests.integration.edged.bench import Bench, container, pod, stage

NAME = "example.com/dongle"
HOSTNAME = Path("/etc/hostname").read_text()


class _Mortal(Server):  # type: ignore[misc]
    """One that takes its connections with it, as a process does that ends."""

    def __init__(self, handlers: list[Any]) -> None:
        super().__init__(handlers)
        self._protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        self._protocols.append(super()._protocol_factory())
        return self._protocols[-1]

    def hang_up(self) -> None:
        for protocol in self._protocols:
            protocol.connection.close()


class Plugin:
    """Offers `devices` (id -> healthy) as device nodes of /dev/null."""

    def __init__(self, folder: Path, *devices: str) -> None:
        self.folder = folder
        self.devices = dict.fromkeys(devices, True)
        self.allocated: list[list[str]] = []
        self.prepared: list[list[str]] = []
        self._changed = asyncio.Event()

    def change(self, **devices: bool) -> None:
        self.devices.update(devices)
        self._changed.set()

    def __mapping__(self) -> dict[str, Handler]:
        def unary(call: Any, request: Any, reply: Any) -> Handler:
            async def handle(stream: Any) -> None:
                await stream.send_message(await call(await stream.recv_message()))

            return Handler(handle, Cardinality.UNARY_UNARY, request, reply)

        service = "/v1beta1.DevicePlugin"
        return {
            f"{service}/GetDevicePluginOptions": unary(self.options, pb.Empty, pb.DevicePluginOptions),
            f"{service}/ListAndWatch": Handler(
                self.watch, Cardinality.UNARY_STREAM, pb.Empty, pb.ListAndWatchResponse
            ),
            f"{service}/GetPreferredAllocation": unary(
                self.prefer, pb.PreferredAllocationRequest, pb.PreferredAllocationResponse
            ),
            f"{service}/Allocate": unary(self.allocate, pb.AllocateRequest, pb.AllocateResponse),
            f"{service}/PreStartContainer": unary(
                self.prepare, pb.PreStartContainerRequest, pb.PreStartContainerResponse
            ),
        }

    async def options(self, request: pb.Empty) -> pb.DevicePluginOptions:
        return pb.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)

    async def watch(self, stream: Any) -> None:
        await stream.recv_message()
        while True:
            self._changed.clear()
            listed = [
                pb.Device(ID=i, health="Healthy" if ok else "Unhealthy") for i, ok in self.devices.items()
            ]
            await stream.send_message(pb.ListAndWatchResponse(devices=listed))
            await self._changed.wait()

    async def prefer(self, request: pb.PreferredAllocationRequest) -> pb.PreferredAllocationResponse:
        asked = request.container_requests[0]
        last = sorted(asked.available_deviceIDs)[-asked.allocation_size :]
        answer = pb.ContainerPreferredAllocationResponse(deviceIDs=last)
        return pb.PreferredAllocationResponse(container_responses=[answer])

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        ids = list(request.container_requests[0].devices_ids)
        self.allocated.append(ids)
        given = pb.ContainerAllocateResponse(
            envs={"DONGLES": ",".join(ids), "MINE": "plugin"},
            mounts=[pb.Mount(container_path="/etc/dongle", host_path="/etc/hostname", read_only=True)],
            devices=[
                pb.DeviceSpec(container_path=f"/dev/{i}", host_path="/dev/null", permissions="rw")
                for i in ids
            ],
        )
        return pb.AllocateResponse(container_responses=[given])

    async def prepare(self, request: pb.PreStartContainerRequest) -> pb.PreStartContainerResponse:
        self.prepared.append(list(request.devices_ids))
        return pb.PreStartContainerResponse()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve the socket beside the kubelet's and register there."""
        server = _Mortal([self])
        path = self.folder / "dongle.sock"
        await there(self.folder / "kubelet.sock")
        await server.start(path=str(path))
        try:
            await call(
                self.folder / "kubelet.sock",
                "/v1beta1.Registration/Register",
                pb.RegisterRequest(version="v1beta1", endpoint=path.name, resource_name=NAME),
                pb.Empty,
            )
            yield
        finally:
            server.hang_up()
            server.close()
            await server.wait_closed()
            path.unlink(missing_ok=True)


async def there(path: Path) -> None:
    for _ in range(600):
        if os.path.exists(path):  # noqa: ASYNC240
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {path}")


async def call(path: Path, method: str, request: Any, reply: Any) -> Any:
    """One call of a socket that may have to appear first."""
    await there(path)
    channel = Channel(path=str(path))
    try:
        return await UnaryUnaryMethod(channel, method, type(request), reply)(request, timeout=30)
    finally:
        channel.close()


def wants(name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
    limits = {"limits": {NAME: str(count)}, "requests": {NAME: str(count)}}
    return pod(name, container(resources=limits, env=[{"name": "MINE", "value": "pod"}], **fields))


async def counted(b: Bench, capacity: str, allocatable: str) -> None:
    assert b.agent is not None
    for _ in range(600):
        status = json.loads(await b.agent.node_status())
        if (status["capacity"].get(NAME), status["allocatable"].get(NAME)) == (capacity, allocatable):
            return
        await asyncio.sleep(0.05)
    raise AssertionError((status["capacity"], status["allocatable"]))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where plugins look for a kubelet; the path of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="skd", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize("kind", ["fake", pytest.param("containerd", marks=pytest.mark.root)])
def test_a_plugins_devices_go_to_containers(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, kind: str
) -> None:
    machine = request.getfixturevalue("containerd") if kind == "containerd" else None

    async def story(b: Bench) -> None:
        b.config = replace(b.config, plugin_dir=folder)
        plugin = Plugin(folder / "device-plugins", "a", "b", "c")
        async with b.edged():
            async with plugin.serving():
                await counted(b, "3", "3")
                first = b.want(wants("first"))
                await b.running(first)
                assert plugin.allocated == [["c"]]
                assert plugin.prepared == [["c"]]
                env = await b.env(first)
                assert (env["DONGLES"], env["MINE"]) == ("c", "pod")
                if machine is not None:
                    assert (await b.exec(first, "test", "-c", "/dev/c"))[0] == 0
                    assert (await b.exec(first, "cat", "/etc/dongle"))[1] == HOSTNAME
                # one that is ill is counted and not given
                plugin.change(b=False)
                await counted(b, "3", "2")
                second = b.want(wants("second"))
                await b.running(second)
                assert plugin.allocated[-1] == ["a"]
                third = b.want(wants("third"))
                await b.until(lambda: b.status(third).get("reason") == f"OutOf{NAME}", "refused")
                listed = await call(
                    folder / "pod-resources" / "kubelet.sock",
                    "/v1.PodResourcesLister/List",
                    resources_pb.ListPodResourcesRequest(),
                    resources_pb.ListPodResourcesResponse,
                )
                told = {
                    p.name: [(d.resource_name, list(d.device_ids)) for c in p.containers for d in c.devices]
                    for p in listed.pod_resources
                }
                assert told == {"first": [(NAME, ["c"])], "second": [(NAME, ["a"])]}
            # the plugin dies: what runs goes on, and a container that restarts waits for it
            await counted(b, "3", "0")
            assert b.ready(first)
            await b.cri.stop_container(await b.container_id(second), 0)
            await b.until(
                lambda: "device" in b.container(second)["state"].get("waiting", {}).get("message", ""), "held"
            )
        # the agent is started again: it knows who has what
        async with b.edged(), plugin.serving():
            await b.until(lambda: b.ready(second), "its device is back")
            assert plugin.allocated[-1] == ["a"]
            assert b.container(first)["restartCount"] == 0
            b.delete(json.loads(b.objects.wanted[first]))
            await b.until(lambda: first in b.reports.gone, "gone")
            fourth = b.want(wants("fourth"))
            await b.running(fourth)
            assert plugin.allocated[-1] == ["c"]
        assert not (folder / "device-plugins" / "kubelet.sock").exists()

    async def scene() -> None:
        async with stage(kind, tmp_path, machine) as bench:
            await story(bench)

    asyncio.run(scene())
