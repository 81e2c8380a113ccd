"""CSI node plugins: programs on this machine that mount the volumes of storage systems.

A plugin is found by its socket in `plugins_registry`.  For a volume it is asked to stage it once on this machine, where it can,
and to publish it in each pod's folder; both are undone in the opposite order, by what was written beside the mounts, so that a
restart of the agent in between loses nothing.  A pod is not gone before its volumes are: data may still be on its way.

Source: kubelet, pluginmanager, volume/csi; plugin registration API v1, CSI 1.x.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from beehive import dmi
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from edgecore._generated import csi_pb2 as pb
from edgecore._generated import pluginregistration_pb2 as registration_pb
from edgecore.edged import csi, env, tree
from edgecore.edged.errors import VolumeError
from edgecore.edged.pod import Pod
from edgecore.edged.ports import Objects

log = logging.getLogger(__name__)

# The kubelet's; a driver may have to wait for a disk.
CALL_TIMEOUT_S = 120.0
INFO_TIMEOUT_S = 10.0
SCAN_S, UNUSED_S = 2.0, 60.0
MAX_PLUGINS, MAX_DATA_BYTES = 64, 16 * 1024


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


_REGISTRATION = _methods(registration_pb, "pluginregistration", "Registration")
_NODE = _methods(pb, "csi.v1", "Node")


class CsiPlugins:
    """A part of edged.  `publish` and `unpublish` are the workers'; both may be repeated."""

    def __init__(self, folder: Path, root: Path, objects: Objects, node_name: str) -> None:
        """folder: /var/lib/kubelet, where plugins look for a kubelet.  root: what holds the folders of pods."""
        self._registry = folder / "plugins_registry"
        self._staging = folder / "plugins" / "kubernetes.io" / "csi"
        self._roots = {root}
        self._objects = objects
        self._node_name = node_name
        self._drivers: dict[str, dmi.Client] = {}
        self._infos: dict[str, csi.NodeInfo] = {}
        # of drivers that have not said yet what they call this machine
        self._unasked: set[str] = set()
        self.changed: list[Callable[[], None]] = []
        """Called when what `nodes` says is another."""
        # socket's path -> (its inode, the driver)
        self._sockets: dict[Path, tuple[int, str]] = {}
        self._refused: dict[Path, int] = {}
        # by this agent: one that starts anew asks once more, which a driver must bear
        self._staged: set[tuple[str, str]] = set()
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Notice plugins that come and go, for ever, and unstage what nobody uses."""
        with contextlib.suppress(OSError):
            self._registry.mkdir(mode=0o750, parents=True, exist_ok=True)
        since = 0.0
        try:
            while True:
                await self.scan()
                since += SCAN_S
                if since >= UNUSED_S:
                    since = 0.0
                    await self._unstage_unused()
                await asyncio.sleep(SCAN_S)
        finally:
            self._sockets.clear()
            while self._drivers:
                self._drivers.popitem()[1].close()

    # -- registration

    async def scan(self) -> None:
        """One look at the folder of sockets."""
        found = await asyncio.to_thread(_sockets, self._registry)
        for path, (inode, name) in list(self._sockets.items()):
            if found.get(path) != inode:
                del self._sockets[path]
                self._drivers.pop(name).close()
                self._unasked.discard(name)
                if self._infos.pop(name, None) is not None:
                    self._tell()
                self._staged = {(d, handle) for d, handle in self._staged if d != name}
                log.info("CSI driver %s is away", name)
        self._refused = {p: i for p, i in self._refused.items() if found.get(p) == i}
        for path, inode in found.items():
            if path not in self._sockets and path not in self._refused and len(self._sockets) < MAX_PLUGINS:
                await self._register(path, inode)
        for name in sorted(self._unasked):
            await self._ask_node(name)

    @property
    def nodes(self) -> Mapping[str, csi.NodeInfo]:
        """What each driver says of this machine, by driver."""
        return self._infos

    async def _ask_node(self, name: str) -> None:
        """What the driver calls this machine, once it says so; one that does not know the question is not in the CSINode."""
        try:
            told = await self._drivers[name].call(
                _NODE["NodeGetInfo"], pb.NodeGetInfoRequest(), timeout_s=INFO_TIMEOUT_S
            )
        except Unavailable as err:
            log.debug("Driver %s does not answer: %s", name, str(err)[:256])
            return
        except SkerryError as err:
            self._unasked.discard(name)
            log.warning("Driver %s does not say what it calls this machine: %s", name, str(err)[:256])
            return
        self._unasked.discard(name)
        fault = csi.node_fault(told.node_id, dict(told.accessible_topology.segments))
        if fault:
            log.warning("What driver %s says of this machine is not used: %s", name, fault)
            return
        self._infos[name] = csi.NodeInfo(
            node_id=told.node_id,
            most=told.max_volumes_per_node,
            topology=dict(told.accessible_topology.segments),
        )
        self._tell()

    def _tell(self) -> None:
        for told in self.changed:
            told()

    async def _register(self, path: Path, inode: int) -> None:
        with dmi.Client(str(path)) as client:
            try:
                info = await client.call(
                    _REGISTRATION["GetInfo"], registration_pb.InfoRequest(), timeout_s=INFO_TIMEOUT_S
                )
                fault = self._fault(info)
                if fault:
                    self._refused[path] = inode
                else:
                    self._sockets[path] = (inode, info.name)
                    self._drivers[info.name] = dmi.Client(info.endpoint)
                    self._unasked.add(info.name)
                await client.call(
                    _REGISTRATION["NotifyRegistrationStatus"],
                    registration_pb.RegistrationStatus(plugin_registered=not fault, error=fault),
                    timeout_s=INFO_TIMEOUT_S,
                )
            except Unavailable as err:
                # its socket is there before it serves, or after it died
                log.debug("Plugin %s does not answer: %s", path, str(err)[:256])
                return
            except SkerryError as err:
                self._refused[path] = inode
                fault = str(err)
        if fault:
            log.warning("Plugin %s is not used: %s", path, fault[:256])
        else:
            log.info("CSI driver %s registered", info.name)

    def _fault(self, info: registration_pb.PluginInfo) -> str:
        if info.type != "CSIPlugin":
            return f"plugins of type {info.type[:32]!r} are not supported here"
        if not 0 < len(info.name) <= 63 or "/" in info.name or info.name.startswith("."):
            return f"{info.name[:64]!r} is not the name of a driver"
        if not info.endpoint.startswith("/") or len(info.endpoint) > 107:
            return f"endpoint {info.endpoint[:64]!r} is not the path of a socket"
        if not any(v.startswith("1.") or v in ("1", "v1") for v in info.supported_versions):
            return f"none of its versions is supported: {', '.join(info.supported_versions)[:64]}"
        if info.name in self._drivers:
            return f"driver {info.name} is registered by another socket"
        return ""

    # -- for workers

    async def publish(self, pod: Pod, root: Path, wanted: csi.Wanted) -> csi.Published:
        """Where the volume is mounted for this pod.  Raises VolumeError while it cannot be."""
        self._roots.add(root)
        target = _target(root, pod, wanted)
        data = csi.Data(
            driver_name=wanted.driver,
            volume_handle=wanted.handle,
            spec_vol_id=wanted.spec_name,
            volume_lifecycle_mode="Ephemeral" if wanted.ephemeral else "Persistent",
        )
        async with self._locks[wanted.driver, wanted.handle]:
            held = await asyncio.to_thread(_published, target, data)
            if held is not None:
                return csi.Published(path=str(target), own=held.own)
            try:
                own = await self._publish(pod, root, wanted, target, data)
            except VolumeError:
                raise
            except (SkerryError, OSError, UnicodeDecodeError) as err:
                raise VolumeError(f"driver {wanted.driver}: {str(err)[:512]}") from err
        return csi.Published(path=str(target), own=own)

    async def _publish(self, pod: Pod, root: Path, wanted: csi.Wanted, target: Path, data: csi.Data) -> bool:
        """Whether the pod's group is to be given what is in it."""
        client = self._client(wanted.driver)
        told = await self._told(wanted)
        if not told.serves(ephemeral=wanted.ephemeral):
            kind = "Ephemeral" if wanted.ephemeral else "Persistent"
            raise VolumeError(f"driver {wanted.driver} does not support {kind} mode")
        publish_context = {}
        if told.attach_required and not wanted.ephemeral:
            publish_context = await self._attached(wanted)
        can = await self._capabilities(client)
        capability = _capability(wanted, can)
        group = pod.spec.security_context.fs_group
        # the driver does it itself, where it can
        mounts_group = group is not None and csi.CAN_MOUNT_GROUP in can and not wanted.block
        if mounts_group:
            capability.mount.volume_mount_group = str(group)
        own = csi.group_applies(wanted, told.group_policy) and not mounts_group
        data = msgspec.structs.replace(data, own=own)
        # first what tells a later agent to undo it
        await asyncio.to_thread(_note, root, target.parent, data)
        staging = ""
        if csi.CAN_STAGE in can and not wanted.ephemeral:
            staging = await self._stage(client, wanted, data, capability, publish_context)
        request = pb.NodePublishVolumeRequest(
            volume_id=wanted.handle,
            publish_context=publish_context,
            staging_target_path=staging,
            target_path=str(target),
            volume_capability=capability,
            readonly=wanted.read_only,
            secrets=await self._secret(wanted.publish_secret),
            volume_context=csi.context(pod, wanted, pod_info=told.pod_info),
        )
        await client.call(_NODE["NodePublishVolume"], request, timeout_s=CALL_TIMEOUT_S)
        there = target.is_block_device if wanted.block else target.is_dir
        if not await asyncio.to_thread(there):
            raise VolumeError(f"driver {wanted.driver} published nothing at {target}")
        log.info("Volume %s of driver %s is there for pod %s/%s", wanted.spec_name, wanted.driver, *_who(pod))
        return own

    async def _stage(
        self,
        client: dmi.Client,
        wanted: csi.Wanted,
        data: csi.Data,
        capability: pb.VolumeCapability,
        publish_context: dict[str, str],
    ) -> str:
        folder = self._staging / wanted.driver / csi.staging_folder(wanted.handle)
        await asyncio.to_thread(_note, self._staging, folder, data)
        path = folder / "globalmount"
        await asyncio.to_thread(path.mkdir, 0o750, parents=True, exist_ok=True)
        request = pb.NodeStageVolumeRequest(
            volume_id=wanted.handle,
            publish_context=publish_context,
            staging_target_path=str(path),
            volume_capability=capability,
            secrets=await self._secret(wanted.stage_secret),
            volume_context=dict(wanted.attributes),
        )
        if (wanted.driver, wanted.handle) not in self._staged:
            await client.call(_NODE["NodeStageVolume"], request, timeout_s=CALL_TIMEOUT_S)
            self._staged.add((wanted.driver, wanted.handle))
        return str(path)

    async def expand(self, pod: Pod, root: Path, wanted: csi.Wanted) -> bool:
        """Let what is published for a pod, and its file system, have the size of the volume; False when the driver cannot.

        Raises VolumeError.  Source: kubelet, volume/csi/expander.go."""
        async with self._locks[wanted.driver, wanted.handle]:
            try:
                return await self._expand(pod, root, wanted)
            except VolumeError:
                raise
            except (SkerryError, OSError, UnicodeDecodeError) as err:
                raise VolumeError(f"driver {wanted.driver}: {str(err)[:512]}") from err

    async def _expand(self, pod: Pod, root: Path, wanted: csi.Wanted) -> bool:
        client = self._client(wanted.driver)
        can = await self._capabilities(client)
        if csi.CAN_EXPAND not in can:
            return False
        staging = self._staging / wanted.driver / csi.staging_folder(wanted.handle) / "globalmount"
        request = pb.NodeExpandVolumeRequest(
            volume_id=wanted.handle,
            volume_path=str(_target(root, pod, wanted)),
            capacity_range=pb.CapacityRange(required_bytes=wanted.grows_to),
            staging_target_path=str(staging) if csi.CAN_STAGE in can else "",
            volume_capability=_capability(wanted, can),
            secrets=await self._secret(wanted.expand_secret),
        )
        await client.call(_NODE["NodeExpandVolume"], request, timeout_s=CALL_TIMEOUT_S)
        log.info("Volume %s of driver %s has %d bytes now", wanted.spec_name, wanted.driver, wanted.grows_to)
        return True

    async def unpublish(self, uid: str, root: Path) -> None:
        """Take all volumes of a pod away.  Raises VolumeError while a driver has not done so."""
        folder = root / uid / "volumes" / csi.KIND
        for name, data in (await asyncio.to_thread(_noted, folder)).items():
            async with self._locks[data.driver_name, data.volume_handle]:
                try:
                    await self._unpublish(uid, root, folder / name, data)
                except (SkerryError, OSError) as err:
                    raise VolumeError(f'volume "{name}" is still there: {str(err)[:512]}') from err

    async def _unpublish(self, uid: str, root: Path, folder: Path, data: csi.Data) -> None:
        # our own binds of it first: what is bound cannot be let go of
        await asyncio.to_thread(_unbind, root / uid)
        request = pb.NodeUnpublishVolumeRequest(
            volume_id=data.volume_handle, target_path=str(folder / "mount")
        )
        client = self._client(data.driver_name)
        with contextlib.suppress(NotFound):
            await client.call(_NODE["NodeUnpublishVolume"], request, timeout_s=CALL_TIMEOUT_S)
        await asyncio.to_thread(tree.remove_tree, folder.parent, folder.name)
        if data.volume_lifecycle_mode == "Persistent":
            await self._unstage(client, data)

    async def _unstage(self, client: dmi.Client, data: csi.Data) -> None:
        """Once no pod has it any more.  Its lock is held."""
        folder = self._staging / data.driver_name / csi.staging_folder(data.volume_handle)
        if not await asyncio.to_thread(folder.is_dir):
            return
        if await asyncio.to_thread(_used, self._roots, data):
            return
        request = pb.NodeUnstageVolumeRequest(
            volume_id=data.volume_handle, staging_target_path=str(folder / "globalmount")
        )
        self._staged.discard((data.driver_name, data.volume_handle))
        with contextlib.suppress(NotFound):
            await client.call(_NODE["NodeUnstageVolume"], request, timeout_s=CALL_TIMEOUT_S)
        await asyncio.to_thread(tree.remove_tree, folder.parent, folder.name)

    async def _unstage_unused(self) -> None:
        """What an agent left that died between the last pod's volume and this one."""
        for name in list(self._drivers):
            for folder, data in (await asyncio.to_thread(_noted, self._staging / name)).items():
                if data.driver_name != name or csi.staging_folder(data.volume_handle) != folder:
                    continue
                async with self._locks[name, data.volume_handle]:
                    try:
                        await self._unstage(self._client(name), data)
                    except (SkerryError, OSError) as err:
                        log.warning("Cannot unstage a volume of %s: %s", name, str(err)[:256])

    # -- what is asked for them

    def _client(self, driver: str) -> dmi.Client:
        client = self._drivers.get(driver)
        if client is None:
            raise VolumeError(f"driver name {driver} not found in the list of registered CSI drivers")
        return client

    async def _told(self, wanted: csi.Wanted) -> csi.Driver:
        """What the cluster says of the driver."""
        try:
            # nobody tells the node when it changes
            raw = await self._objects.fetch("csidriver", "", wanted.driver, fresh=True)
        except Refused:
            # there is none, or a cloud that shows none to nodes
            raw = await self._objects.get("csidriver", "", wanted.driver)
        if raw is None:
            return csi.Driver()
        return msgspec.json.decode(raw, type=csi.Driver)

    async def _attached(self, wanted: csi.Wanted) -> dict[str, str]:
        name = csi.attachment_name(wanted, self._node_name)
        raw = await self._objects.fetch("volumeattachment", "", name)
        found = msgspec.json.decode(raw, type=csi.Attachment) if raw is not None else csi.Attachment()
        if not found.status.attached:
            raise VolumeError(f"volume {wanted.spec_name} is not attached to this node yet ({name})")
        return found.status.attachment_metadata

    async def _capabilities(self, client: dmi.Client) -> set[int]:
        answer = await client.call(
            _NODE["NodeGetCapabilities"], pb.NodeGetCapabilitiesRequest(), timeout_s=INFO_TIMEOUT_S
        )
        return {int(c.rpc.type) for c in answer.capabilities}

    async def _secret(self, where: tuple[str, str] | None) -> dict[str, str]:
        if where is None:
            return {}
        raw = await self._objects.fetch("secret", *where)
        if raw is None:
            raise VolumeError(f'secret "{where[1]}" not found')
        return {key: value.decode() for key, value in env.secret_data(msgspec.json.decode(raw)).items()}


def _capability(wanted: csi.Wanted, can: Collection[int]) -> pb.VolumeCapability:
    mode = pb.VolumeCapability.AccessMode(mode=csi.access_mode(wanted, can))  # type: ignore[arg-type]
    if wanted.block:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=mode)
    mount = pb.VolumeCapability.MountVolume(fs_type=wanted.fs_type, mount_flags=wanted.mount_flags)
    return pb.VolumeCapability(mount=mount, access_mode=mode)


def _target(root: Path, pod: Pod, wanted: csi.Wanted) -> Path:
    return root / pod.uid / "volumes" / csi.KIND / wanted.spec_name / "mount"


def _who(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.name


def _sockets(folder: Path) -> dict[Path, int]:
    """Sockets in a folder, with the inodes that tell a new one from the one before."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(info.st_mode):
                    found[Path(entry.path)] = info.st_ino
    except OSError:
        return {}
    return found


def _note(root: Path, folder: Path, data: csi.Data) -> None:
    made = tree.make_dirs(root, str(folder.relative_to(root)))
    tree.write_file(made, csi.DATA, tree.File(data=msgspec.json.encode(data), mode=0o600))


def _noted(folder: Path) -> dict[str, csi.Data]:
    """By folder, what is written in those below."""
    found = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    for name in names:
        text = tree.read_bounded(folder / name / csi.DATA, MAX_DATA_BYTES)
        try:
            found[name] = msgspec.json.decode(text, type=csi.Data)
        except msgspec.MsgspecError:
            continue
    return found


def _published(target: Path, data: csi.Data) -> csi.Data | None:
    """What was noted of the volume when it was published, if it is the one and is there still."""
    held = _noted(target.parent.parent).get(target.parent.name)
    if held is None or msgspec.structs.replace(held, own=data.own) != data or not tree.mounts_below(target):
        return None
    return held


def _used(roots: set[Path], data: csi.Data) -> bool:
    """Whether a pod has the volume still."""
    for root in roots:
        try:
            uids = os.listdir(root)
        except OSError:
            continue
        for uid in uids:
            for other in _noted(root / uid / "volumes" / csi.KIND).values():
                if (other.driver_name, other.volume_handle) == (data.driver_name, data.volume_handle):
                    return True
    return False


def _unbind(pod_dir: Path) -> None:
    """Undo our own binds below a pod's folder: subpaths, and claims."""
    for part in ("volume-subpaths", "volumes/kubernetes.io~local-volume"):
        tree.unmount_below(pod_dir / part)
