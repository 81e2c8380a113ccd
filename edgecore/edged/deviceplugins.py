"""Device plugins: programs on this machine that offer its hardware to containers.

A plugin registers at `device-plugins/kubelet.sock` and serves a socket beside it; from then on its list of devices is watched
and it is asked before a container gets one.  Who has what is kept over restarts of the agent, and told to whoever asks at
`pod-resources/kubelet.sock`.  A plugin that hangs or dies holds up only containers that want its devices.

Source: kubelet, cm/devicemanager; device plugin API v1beta1, pod resources API v1.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from beehive import dmi
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from edgecore._generated import deviceplugin_pb2 as pb
from edgecore._generated import podresources_pb2 as resources_pb
from edgecore.edged import devices
from edgecore.edged.errors import Held
from edgecore.edged.pod import Container, Pod
from edgecore.edged.ports import State
from edgecore.edged.runtime import DeviceMap, Given, Mount

log = logging.getLogger(__name__)

VERSION = "v1beta1"
KEY = "devices"
CALL_TIMEOUT_S = 30.0
# The kubelet's grace for a plugin that is being replaced, before its resource counts as none.
AWAY_S = 300.0
MAX_ENV = 1024


class House(Protocol):
    """edged, as far as devices are concerned."""

    def pods_with_devices(self) -> Iterable[Pod]:
        """Pods that run here or should."""
        ...

    def may_hold_devices(self) -> Collection[str]:
        """UIDs of pods of which anything may still run."""
        ...

    def devices_changed(self) -> None:
        """Counts or health changed, or something was given back."""
        ...


def _methods(module: Any, package: str, service: str) -> dict[str, dmi.Method]:
    found = module.DESCRIPTOR.services_by_name[service]
    return {
        m.name: dmi.Method(
            path=f"/{package}.{service}/{m.name}",
            request=getattr(module, m.input_type.name),
            reply=getattr(module, m.output_type.name),
        )
        for m in found.methods
    }


_REGISTER = _methods(pb, VERSION, "Registration")["Register"]
_PLUGIN = _methods(pb, VERSION, "DevicePlugin")
_LISTER = _methods(resources_pb, "v1", "PodResourcesLister")


class _Plugin(msgspec.Struct):
    endpoint: str
    client: dmi.Client
    options: pb.DevicePluginOptions
    task: asyncio.Task[None] | None = None


class DevicePlugins:
    """A part of edged.  Only `allocate` and `counts` are for others."""

    def __init__(self, folder: Path, state: State, house: House, monotonic: Callable[[], float]) -> None:
        """folder: where plugins look for a kubelet, /var/lib/kubelet."""
        self._folder = folder
        self._sockets = folder / "device-plugins"
        self._state = state
        self._house = house
        self._monotonic = monotonic
        self._book = devices.Book()
        self._kept = b""
        self._plugins: dict[str, _Plugin] = {}
        self._away: dict[str, float] = {}
        self._lock = asyncio.Lock()
        self._loaded = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Serve plugins for ever.  What cannot be served is said and tried again: pods without devices do not care."""
        while not await self._load():  # noqa: ASYNC110  # nothing tells when a store works again
            await asyncio.sleep(5.0)
        calls = [(_REGISTER, self._register)]
        lister = [
            (_LISTER["List"], self._list),
            (_LISTER["GetAllocatableResources"], self._allocatable),
            (_LISTER["Get"], self._get),
        ]
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.to_thread(_remove_sockets, self._sockets)
            for path, served in (
                (self._sockets / "kubelet.sock", calls),
                (self._folder / "pod-resources" / "kubelet.sock", lister),
            ):
                group.create_task(self._serve(path, served), name=f"serve {path.parent.name}")
            group.create_task(self._forget_for_ever(), name="device plugins that are away")

    async def _serve(self, path: Path, calls: list[Any]) -> None:
        trouble = ""
        while True:
            try:
                await dmi.Server(path, calls, mode=0o600).serve()
            except Unavailable as err:
                if str(err) != trouble:
                    log.warning("Cannot serve device plugins: %s", err)
                trouble = str(err)
            await asyncio.sleep(10.0)

    async def _load(self) -> bool:
        try:
            row = await self._state.load(KEY)
        except SkerryError as err:
            log.warning("Cannot read which devices are given to whom: %s", err)
            return False
        self._book = devices.decode(row)
        now = self._monotonic()
        self._away = dict.fromkeys(self._book.resources, now)
        self._loaded.set()
        return True

    async def _save(self) -> None:
        row = devices.encode(self._book)
        if row != self._kept:
            await self._state.save(KEY, row)
            self._kept = row

    # -- plugins

    async def _register(self, request: pb.RegisterRequest, peer: dmi.Peer) -> pb.Empty:
        name, endpoint = request.resource_name, request.endpoint
        if peer.uid != 0:
            raise Refused("only root's programs may offer devices", reason="Forbidden")
        if request.version != VERSION:
            raise Refused(f"version {request.version[:32]!r} is not supported, {VERSION} is")
        if not devices.valid_name(name):
            raise Refused(f"{name[:64]!r} is not the name of an extended resource", reason="InvalidValue")
        if not endpoint or "/" in endpoint or endpoint in (".", "..", "kubelet.sock") or "\0" in endpoint:
            raise Refused(
                f"endpoint {endpoint[:64]!r} is not the name of a socket here", reason="InvalidValue"
            )
        if name not in self._plugins and len(self._plugins) >= devices.MAX_RESOURCES:
            raise Refused(f"more than {devices.MAX_RESOURCES} resources", reason="TooManyRequests")
        assert self._group is not None
        before = self._plugins.pop(name, None)
        if before is not None and before.task is not None:
            before.task.cancel()
        options = pb.DevicePluginOptions()
        options.CopyFrom(request.options)
        plugin = _Plugin(endpoint, dmi.Client(str(self._sockets / endpoint)), options)
        self._plugins[name] = plugin
        plugin.task = self._group.create_task(self._watch(name, plugin), name=f"device plugin {name}")
        log.info("Device plugin for %s registered", name)
        return pb.Empty()

    async def _watch(self, name: str, plugin: _Plugin) -> None:
        """Follow one plugin's list until it ends."""
        try:
            options = await plugin.client.call(
                _PLUGIN["GetDevicePluginOptions"], pb.Empty(), timeout_s=CALL_TIMEOUT_S
            )
            plugin.options.CopyFrom(options)
        except SkerryError:
            pass  # an old plugin: what it registered with holds
        try:
            async for answer in plugin.client.watch(_PLUGIN["ListAndWatch"], pb.Empty()):
                if not self._learn(name, answer):
                    break
                await self._save()
            text = "its list ended"
        except SkerryError as err:
            text = str(err)[:256]
        finally:
            plugin.client.close()
            if self._plugins.get(name) is plugin:
                del self._plugins[name]
                self._book.lost(name)
                self._away[name] = self._monotonic()
                self._house.devices_changed()
        log.warning("Device plugin for %s is away: %s", name, text)

    def _learn(self, name: str, answer: pb.ListAndWatchResponse) -> bool:
        if len(answer.devices) > devices.MAX_DEVICES or any(
            len(d.ID) > devices.MAX_ID for d in answer.devices
        ):
            log.warning("Device plugin for %s lists too much: it is not heard any more", name)
            return False
        found = {
            d.ID: devices.Device(
                healthy=d.health == "Healthy", numa=tuple(n.ID for n in d.topology.nodes)[:64]
            )
            for d in answer.devices
        }
        before = self._book.counts().get(name)
        self._book.learn(name, found)
        self._away.pop(name, None)
        if before != self._book.counts()[name]:
            log.info("%s: %d devices, %d of them healthy", name, *self._book.counts()[name])
        self._house.devices_changed()
        return True

    async def _forget_for_ever(self) -> None:
        while True:
            await asyncio.sleep(10.0)
            now = self._monotonic()
            for name, since in list(self._away.items()):
                if now - since >= AWAY_S:
                    del self._away[name]
                    self._book.forget(name)
                    self._house.devices_changed()

    # -- for edged

    def counts(self) -> dict[str, tuple[int, int]]:
        """Capacity and allocatable by resource, for the node's status."""
        return self._book.counts()

    async def allocate(self, pod: Pod, container: Container) -> Given:
        """The devices that a container asks for.  Raises Held while it cannot have them."""
        asked = devices.wanted(container)
        if not asked:
            return Given()
        await self._loaded.wait()
        given = Given()
        for name, count in sorted(asked.items()):
            try:
                given = _merge(given, await self._one(pod, container, name, count))
            except SkerryError as err:
                if isinstance(err, Held):
                    raise
                raise Held(devices.HELD, f"Allocate failed for {name}: {err}"[:1024]) from err
        return given

    async def _one(self, pod: Pod, container: Container, name: str, count: int) -> Given:
        async with self._lock:
            active = self._house.may_hold_devices()
            if self._book.keep_only({*active, pod.uid}):
                await self._save()
            choice = self._book.choose(pod, container, name, count)
            if choice is None:
                return Given()
            plugin = self._plugins.get(name)
            if plugin is None:
                raise Held(devices.HELD, f"no device plugin for {name} is registered")
            ids = choice.has or await self._preferred(plugin, choice)
            if not choice.has:
                self._book.take(pod.uid, container.name, name, ids)
                try:
                    await self._save()
                except SkerryError:
                    self._book.give_back(pod.uid, container.name, name)
                    raise
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        try:
            answer = await plugin.client.call(_PLUGIN["Allocate"], request, timeout_s=CALL_TIMEOUT_S)
            if len(answer.container_responses) != 1:
                raise Refused(f"{len(answer.container_responses)} answers for one container")
            if plugin.options.pre_start_required:
                await plugin.client.call(
                    _PLUGIN["PreStartContainer"],
                    pb.PreStartContainerRequest(devices_ids=ids),
                    timeout_s=CALL_TIMEOUT_S,
                )
            return _given(answer.container_responses[0])
        except SkerryError:
            if not choice.has:
                self._book.give_back(pod.uid, container.name, name)
            raise

    async def _preferred(self, plugin: _Plugin, choice: devices.Choice) -> tuple[str, ...]:
        """Ask a plugin that has a preference; one that answers nonsense has none."""
        usual = choice.by_order()
        available = (*choice.first, *choice.free)
        if not plugin.options.get_preferred_allocation_available or len(available) == choice.count:
            return usual
        must = choice.first[: choice.count]
        request = pb.PreferredAllocationRequest(
            container_requests=[
                pb.ContainerPreferredAllocationRequest(
                    available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=choice.count
                )
            ]
        )
        try:
            answer = await plugin.client.call(
                _PLUGIN["GetPreferredAllocation"], request, timeout_s=CALL_TIMEOUT_S
            )
        except SkerryError as err:
            log.warning("Device plugin has no preference: %s", str(err)[:256])
            return usual
        told = answer.container_responses[0].deviceIDs if answer.container_responses else ()
        ids = tuple(dict.fromkeys(i for i in told if i in available))
        return ids if len(ids) == choice.count and set(must) <= set(ids) else usual

    # -- pod resources

    async def _list(
        self, request: resources_pb.ListPodResourcesRequest, peer: dmi.Peer
    ) -> resources_pb.ListPodResourcesResponse:
        del request, peer
        return resources_pb.ListPodResourcesResponse(
            pod_resources=[self._of_pod(pod) for pod in self._house.pods_with_devices()]
        )

    async def _get(
        self, request: resources_pb.GetPodResourcesRequest, peer: dmi.Peer
    ) -> resources_pb.GetPodResourcesResponse:
        del peer
        for pod in self._house.pods_with_devices():
            if (pod.namespace, pod.name) == (request.pod_namespace, request.pod_name):
                return resources_pb.GetPodResourcesResponse(pod_resources=self._of_pod(pod))
        raise NotFound(f"pod {request.pod_name[:64]} in namespace {request.pod_namespace[:64]} not found")

    async def _allocatable(
        self, request: resources_pb.AllocatableResourcesRequest, peer: dmi.Peer
    ) -> resources_pb.AllocatableResourcesResponse:
        del request, peer
        return resources_pb.AllocatableResourcesResponse(
            devices=[
                self._named(name, [i for i, d in found.items() if d.healthy])
                for name, found in sorted(self._book.resources.items())
                if any(d.healthy for d in found.values())
            ]
        )

    def _of_pod(self, pod: Pod) -> resources_pb.PodResources:
        grants = self._book.grants.get(pod.uid, {})
        return resources_pb.PodResources(
            name=pod.name,
            namespace=pod.namespace,
            containers=[
                resources_pb.ContainerResources(
                    name=c.name,
                    devices=[self._named(n, ids) for n, ids in sorted(grants.get(c.name, {}).items())],
                )
                for c in pod.spec.containers
            ],
        )

    def _named(self, name: str, ids: Iterable[str]) -> resources_pb.ContainerDevices:
        ids = list(ids)
        known = self._book.resources.get(name, {})
        numa = sorted({n for i in ids if i in known for n in known[i].numa})
        found = resources_pb.ContainerDevices(resource_name=name, device_ids=ids)
        if numa:
            found.topology.nodes.extend(resources_pb.NUMANode(ID=n) for n in numa)
        return found


def _given(answer: pb.ContainerAllocateResponse) -> Given:
    if len(answer.envs) + len(answer.mounts) + len(answer.devices) + len(answer.annotations) > MAX_ENV:
        raise Refused("the plugin gives too much with its devices")
    return Given(
        env=dict(answer.envs),
        mounts=tuple(
            Mount(container_path=m.container_path, host_path=m.host_path, readonly=m.read_only)
            for m in answer.mounts
        ),
        devices=tuple(
            DeviceMap(
                container_path=d.container_path, host_path=d.host_path, permissions=d.permissions or "mrw"
            )
            for d in answer.devices
        ),
        annotations=dict(answer.annotations),
        cdi=tuple(d.name for d in answer.cdi_devices),
    )


def _merge(a: Given, b: Given) -> Given:
    return Given(
        env={**a.env, **b.env},
        mounts=tuple(dict.fromkeys((*a.mounts, *b.mounts))),
        devices=tuple(dict.fromkeys((*a.devices, *b.devices))),
        annotations={**a.annotations, **b.annotations},
        cdi=tuple(dict.fromkeys((*a.cdi, *b.cdi))),
    )


def _remove_sockets(folder: Path) -> None:
    """As a kubelet does when it starts: by this plugins notice that they have to register again."""
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        except OSError as err:
            log.warning("Cannot remove %s: %s", path, err)
