"""The volumes of a pod: what files they hold (pure), and putting them on disk (`prepare`, blocking).

Layout, as a kubelet's:  <root_dir>/<uid>/volumes/kubernetes.io~<kind>/<name>,  .../volume-subpaths/<volume>/<container>/<n>,
.../containers/<name>/<restart>  (termination message),  .../etc-hosts.
Secrets lie on disk here as they do in edgecore's store, which must survive a power cut; the folders are root's only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from edgecore.edged import quantity, tree
from edgecore.edged.env import Facts, References, field_value, resource_value
from edgecore.edged.errors import Held, VolumeError
from edgecore.edged.persistent import Claim
from edgecore.edged.pod import (
    DownwardFile,
    KeyToPath,
    Pod,
    TokenProjection,
    Volume,
)
from edgecore.edged.resources import pod_limit
from edgecore.edged.runtime import DeviceMap, Mount
from edgecore.edged.tree import File

_KINDS = {
    "config_map": "configmap",
    "secret": "secret",
    "empty_dir": "empty-dir",
    "downward_api": "downward-api",
    "projected": "projected",
    "persistent_volume_claim": "local-volume",
    "csi": "csi",
    "image": "image",
}
# What the bytes of all files of one volume may add up to; an API object has at most 1 MiB, a projection a few of them.
MAX_VOLUME_BYTES = 16 * 1024 * 1024


class TokenKey(msgspec.Struct, frozen=True, kw_only=True):
    """One service account token that a pod needs."""

    audience: str
    expiration_s: int


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What volumes are made from: the objects a pod refers to, its tokens, and facts about where it runs.

    claims: by name, where the data is or why it cannot be used.  csi: by volume, why it is not there, or nothing.
    held: by volume, what a hostPath leads to, where only that may be used.
    """

    refs: References = msgspec.field(default_factory=References)
    tokens: Mapping[TokenKey, str] = msgspec.field(default_factory=dict)
    claims: Mapping[str, Claim | str] = msgspec.field(default_factory=dict)
    csi: Mapping[str, str] = msgspec.field(default_factory=dict)
    held: Mapping[str, str] = msgspec.field(default_factory=dict)
    facts: Facts = msgspec.field(default_factory=Facts)


def kind_of(volume: Volume) -> str:
    """The kubelet's name of a volume's kind; empty for hostPath, which has no folder of its own."""
    for attribute, kind in _KINDS.items():
        if getattr(volume, attribute) is not None:
            return kind
    return ""


def tokens_needed(pod: Pod) -> set[TokenKey]:
    """The tokens that a pod's projected volumes name."""
    return {
        _token_key(p.service_account_token)
        for v in pod.spec.volumes
        if v.projected is not None
        for p in v.projected.sources
        if p.service_account_token is not None
    }


def _token_key(projection: TokenProjection) -> TokenKey:
    return TokenKey(audience=projection.audience, expiration_s=projection.expiration_seconds)


def payload(pod: Pod, volume: Volume, sources: Sources) -> dict[str, File] | None:
    """The files of a volume; None for kinds that are not made of files.  Raises VolumeError."""
    gid = pod.spec.security_context.fs_group
    try:
        files = _payload(pod, volume, sources)
    except Held as err:
        raise VolumeError(str(err)) from err
    if files is None:
        return None
    if sum(len(f.data) for f in files.values()) > MAX_VOLUME_BYTES:
        raise VolumeError(f"more than {MAX_VOLUME_BYTES} bytes")
    if gid is None:
        return files
    # a pod with an fsGroup reads its files as that group
    return {
        path: File(data=f.data, mode=f.mode | 0o440 & ~0o007, gid=gid, uid=f.uid) for path, f in files.items()
    }


def _payload(pod: Pod, volume: Volume, sources: Sources) -> dict[str, File] | None:
    refs = sources.refs
    if volume.config_map is not None:
        cm = volume.config_map
        data = refs.config_maps.get(cm.name)
        return _keys("configmap", cm.name, data, cm.items, cm.default_mode, optional=cm.optional)
    if volume.secret is not None:
        sec = volume.secret
        data = refs.secrets.get(sec.secret_name)
        return _keys("secret", sec.secret_name, data, sec.items, sec.default_mode, optional=sec.optional)
    if volume.downward_api is not None:
        return _downward(pod, volume.downward_api.items, volume.downward_api.default_mode, sources.facts)
    if volume.projected is None:
        return None
    mode = volume.projected.default_mode
    files: dict[str, File] = {}
    for p in volume.projected.sources:
        if p.config_map is not None:
            c = p.config_map
            files |= _keys(
                "configmap", c.name, refs.config_maps.get(c.name), c.items, mode, optional=c.optional
            )
        if p.secret is not None:
            c = p.secret
            files |= _keys("secret", c.name, refs.secrets.get(c.name), c.items, mode, optional=c.optional)
        if p.downward_api is not None:
            files |= _downward(pod, p.downward_api.items, mode, sources.facts)
        if p.service_account_token is not None:
            files |= _token(pod, p.service_account_token, mode, sources)
        for kind, unserved in (
            ("clusterTrustBundle", p.cluster_trust_bundle),
            ("podCertificate", p.pod_certificate),
        ):
            if unserved is not None and not unserved.optional:
                raise VolumeError(f"projected source {kind} is not supported on this node")
    return files


def _keys(
    kind: str,
    name: str,
    data: Mapping[str, bytes] | None,
    items: list[KeyToPath],
    default_mode: int,
    *,
    optional: bool,
) -> dict[str, File]:
    if data is None:
        if optional:
            return {}
        raise VolumeError(f'{kind} "{name}" not found')
    if not items:
        return {
            key: File(data=value, mode=default_mode & 0o777) for key, value in data.items() if _plain(key)
        }
    files = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise VolumeError(f'{kind} "{name}" has no key {item.key[:64]!r}')
        mode = item.mode if item.mode is not None else default_mode
        files[os.path.normpath(item.path)] = File(data=data[item.key], mode=mode & 0o777)
    return files


def _plain(key: str) -> bool:
    return bool(key) and "/" not in key and not key.startswith("..") and key != "." and "\0" not in key


def _downward(pod: Pod, items: list[DownwardFile], default_mode: int, facts: Facts) -> dict[str, File]:
    files = {}
    for item in items:
        if item.field_ref is not None:
            text = field_value(pod, item.field_ref.field_path, facts)
        elif item.resource_field_ref is not None:
            text = resource_value(pod, None, item.resource_field_ref, facts)
        else:
            continue
        mode = item.mode if item.mode is not None else default_mode
        files[os.path.normpath(item.path)] = File(data=text.encode(), mode=mode & 0o777)
    return files


def _token(pod: Pod, projection: TokenProjection, default_mode: int, sources: Sources) -> dict[str, File]:
    token = sources.tokens.get(_token_key(projection))
    if token is None:
        raise VolumeError("no service account token yet")
    mode, uid = default_mode, None
    if pod.spec.security_context.fs_group is not None:
        mode = 0o600
    elif users := {
        c.security_context.run_as_user
        if c.security_context is not None and c.security_context.run_as_user is not None
        else pod.spec.security_context.run_as_user
        for c in pod.all_containers()
    }:
        user = next(iter(users))
        if len(users) == 1 and user is not None and 0 < user < 2**31:
            # all containers are one user: the token is that user's alone
            mode, uid = 0o600, user
    return {os.path.normpath(projection.path): File(data=token.encode(), mode=mode & 0o777, uid=uid)}


# -- on disk


def pod_dir(root: Path, uid: str) -> Path:
    return root / uid


def volume_dir(root: Path, uid: str, volume: Volume) -> Path:
    """Where a volume is on this machine."""
    if volume.host_path is not None:
        return Path(volume.host_path.path)
    folder = root / uid / "volumes" / f"kubernetes.io~{kind_of(volume)}" / volume.name
    return folder / "mount" if volume.csi is not None else folder


def held_path(root: Path, uid: str, volume: Volume) -> Path:
    """Where a hostPath is bound of which only what it led to when it was judged may be used."""
    return root / uid / "volumes" / "kubernetes.io~host-path" / volume.name


def hold(pod: Pod, held: Mapping[str, str], *, root: Path) -> None:
    """Bind what paths of this machine were judged as.  held: volume -> its path without links.  Raises VolumeError.

    Nothing that is exchanged for a link afterwards can get another part of the machine into the pod: the runtime is
    given what is bound here.  One that was plugged in anew is bound anew."""
    for volume in pod.spec.volumes:
        if volume.host_path is None or volume.name not in held:
            continue
        kind = volume.host_path.type
        if kind not in _HOST_KINDS:
            raise VolumeError(f'volume "{volume.name}" : hostPath type {kind[:32]!r} is not known')
        make, check = _HOST_KINDS[kind]
        try:
            tree.make_dirs(root, f"{pod.uid}/volumes/kubernetes.io~host-path")
            mode = tree.bind_path(held[volume.name], held_path(root, pod.uid, volume), make=make)
        except OSError as err:
            raise VolumeError(f'volume "{volume.name}" : {err}') from err
        if check is not None and not check(mode):
            text = f"hostPath type check failed: {held[volume.name]} is not a {kind}"
            raise VolumeError(f'volume "{volume.name}" : {text}')


_HOST_KINDS: Mapping[str, tuple[str, Callable[[int], bool] | None]] = {
    "": ("folder", None),
    "DirectoryOrCreate": ("folder", stat.S_ISDIR),
    "FileOrCreate": ("file", stat.S_ISREG),
    "Directory": ("", stat.S_ISDIR),
    "File": ("", stat.S_ISREG),
    "Socket": ("", stat.S_ISSOCK),
    "CharDevice": ("", stat.S_ISCHR),
    "BlockDevice": ("", stat.S_ISBLK),
}
"""By type: what is made when nothing is there, and what it must be."""


def prepare(pod: Pod, sources: Sources, *, root: Path, stamp: str) -> None:
    """Bring every volume of a pod to what it should hold.  Idempotent.  Raises VolumeError, which begins as in a kubelet."""
    hold(pod, sources.held, root=root)
    for volume in pod.spec.volumes:
        try:
            _prepare(pod, volume, sources, root, stamp)
        except (OSError, VolumeError) as err:
            raise VolumeError(f'volume "{volume.name}" : {err}') from err


def _prepare(pod: Pod, volume: Volume, sources: Sources, root: Path, stamp: str) -> None:
    if volume.host_path is not None:
        if volume.name not in sources.held:
            _host_path(volume)
        return
    if volume.persistent_volume_claim is not None:
        _claim(pod, volume, sources, root)
        return
    if volume.csi is not None:
        # its driver has put it there, or said why not
        fault = sources.csi.get(volume.name, "not published yet")
        if fault:
            raise VolumeError(fault)
        return
    if volume.image is not None:
        # it is the runtime that mounts it, into each container
        return
    files = payload(pod, volume, sources)
    relative = f"{pod.uid}/volumes/kubernetes.io~{kind_of(volume)}/{volume.name}"
    target = tree.make_dirs(root, relative)
    if files is not None:
        if _is_secret(volume) and not os.path.ismount(target) and not (target / tree.DATA).is_symlink():
            # a volume that an earlier edgecore wrote to the disk stays as its running containers see it
            tree.mount_tmpfs(target, None)
        target.chmod(0o755)
        tree.write_payload(target, files, stamp=stamp)
        return
    empty = volume.empty_dir
    if empty is None:
        return
    if empty.medium not in ("", "Memory"):
        raise VolumeError(f"emptyDir medium {empty.medium[:32]!r} is not supported on this node")
    if empty.medium == "Memory":
        tree.mount_tmpfs(target, memory_size(pod, volume, sources.facts.allocatable.get("memory", 0)))
    group = pod.spec.security_context.fs_group
    with tree.opened(target) as fd:
        mode = 0o777
        if group is not None:
            os.fchown(fd, -1, group)
            mode = 0o2777
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)


def memory_size(pod: Pod, volume: Volume, allocatable: int) -> int | None:
    """Bytes that an emptyDir in memory may hold: no more than its pod, which may hold no more than all pods; None when
    nothing is known.  allocatable: memory in nano-units, 0 when that is not known.

    Source: kubelet, volume/emptydir/empty_dir.go (calculateEmptyDirMemorySize)."""
    size = volume.empty_dir.size_limit if volume.empty_dir is not None else None
    bounds = [allocatable, pod_limit(pod, "memory") or 0, quantity.parse(size) if size is not None else 0]
    return min((quantity.units(b) for b in bounds if b > 0), default=None)


def _is_secret(volume: Volume) -> bool:
    """Whether what the volume holds must not get onto the disk."""
    if volume.projected is not None:
        return any(
            p.secret is not None or p.service_account_token is not None for p in volume.projected.sources
        )
    return volume.secret is not None


def claims_of(pod: Pod) -> list[str]:
    """Names of the claims that a pod's volumes are."""
    return sorted(
        {
            v.persistent_volume_claim.claim_name
            for v in pod.spec.volumes
            if v.persistent_volume_claim is not None
        }
    )


def is_own_claim(pod: Pod, name: str) -> bool:
    """Whether a claim was made for this pod alone: then it must not be another one's of that name."""
    return any(
        v.persistent_volume_claim.owned
        for v in pod.spec.volumes
        if v.persistent_volume_claim is not None and v.persistent_volume_claim.claim_name == name
    )


def _claim(pod: Pod, volume: Volume, sources: Sources, root: Path) -> None:
    """Bind the claim's data below the pod's folder, so that whatever is mounted is unmounted with the pod."""
    assert volume.persistent_volume_claim is not None
    name = volume.persistent_volume_claim.claim_name
    claim = sources.claims.get(name, f'persistentvolumeclaim "{name}" not found')
    if isinstance(claim, str):
        raise VolumeError(claim)
    path = Path(claim.path)
    is_of, where = ("Block", "volumeMounts") if claim.block else ("Filesystem", "volumeDevices")
    used = [
        entry.name
        for c in pod.every_container()
        for entry in (c.volume_mounts if claim.block else c.volume_devices)
    ]
    if volume.name in used:
        raise VolumeError(f"volume {volume.name} has volumeMode {is_of}, but is specified in {where}")
    if claim.block:
        info = os.lstat(path) if claim.held else os.stat(path)
        if not stat.S_ISBLK(info.st_mode):
            raise VolumeError(f"{claim.path} is no block device")
        return
    target = tree.make_dirs(root, f"{pod.uid}/volumes/kubernetes.io~local-volume/{volume.name}")
    first = not tree.mounts_below(target)
    if claim.held:
        mode = tree.bind_path(claim.path, target, make="folder" if claim.create else "")
        if not stat.S_ISDIR(mode):
            raise VolumeError(f"{claim.path} is no folder")
    else:
        if claim.create:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        tree.bind_sub_path(path, "", target, create=False)
    context = pod.spec.security_context
    if context.fs_group is not None and claim.own and not volume.persistent_volume_claim.read_only:
        always = first and context.fs_group_change_policy != "OnRootMismatch"
        try:
            tree.give_to_group(target, context.fs_group, deep=claim.deep, always=claim.deep and always)
        except OSError:
            if first:
                # so that all of it is done at the next try, too, where the folder itself was the group's before
                tree.unmount_below(target)
            raise


def _host_path(volume: Volume) -> None:
    assert volume.host_path is not None
    path, kind = Path(volume.host_path.path), volume.host_path.type
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }
    if kind and kind not in checks:
        raise VolumeError(f"hostPath type {kind[:32]!r} is not known")
    if kind and not checks[kind]():
        raise VolumeError(f"hostPath type check failed: {path} is not a {kind}")
    if not kind and not path.exists():
        # what a kubelet leaves to the runtime, which makes a folder
        path.mkdir(mode=0o755, parents=True, exist_ok=True)


def devices(pod: Pod, container_name: str, sources: Sources) -> list[DeviceMap]:
    """The volumes that a container is given as raw devices.  Raises VolumeError.

    Source: kubelet, kubelet_pods.go (makeBlockVolumes)."""
    by_name = {v.name: v.persistent_volume_claim for v in pod.spec.volumes}
    found = []
    for d in pod.container(container_name).volume_devices:
        volume = by_name[d.name]
        claim = sources.claims.get(volume.claim_name) if volume is not None else None
        if volume is None or claim is None or isinstance(claim, str) or not claim.block:
            raise VolumeError(f'volume "{d.name}" is no block volume')
        permissions = "mr" if volume.read_only else "mrw"
        # what the path leads to: the runtime looks at the device itself
        found.append(
            DeviceMap(
                container_path=d.device_path, host_path=os.path.realpath(claim.path), permissions=permissions
            )
        )
    return found


def mounts(
    pod: Pod,
    container_name: str,
    *,
    root: Path,
    sub_paths: Mapping[int, str],
    held: Collection[str] = (),
    images: Mapping[str, str] = MappingProxyType({}),
    image_paths: Mapping[int, str] = MappingProxyType({}),
) -> list[Mount]:
    """The volume mounts of a container.  Raises VolumeError.

    images: volume -> id of the image that it is; image_paths: index of a mount -> subPath in it.

    sub_paths: index of a mount -> where its subPath was bound (see bind_sub_paths).  held: the volumes that `hold` bound.
    """
    container = pod.container(container_name)
    by_name = {v.name: v for v in pod.spec.volumes}
    out = []
    for i, m in enumerate(container.volume_mounts):
        volume = by_name[m.name]
        if m.recursive_read_only == "Enabled":
            # what is mounted below it would stay writable
            raise VolumeError(
                f'volume "{m.name}" requested recursive read-only mode, which is not supported on this node'
            )
        if volume.image is not None:
            out.append(
                Mount(
                    container_path=m.mount_path if m.mount_path.startswith("/") else "/" + m.mount_path,
                    host_path="",
                    readonly=True,
                    image=images[m.name],
                    image_path=image_paths.get(i, ""),
                )
            )
            continue
        # files that the node writes are never a container's to change
        readonly = m.read_only or kind_of(volume) in ("configmap", "secret", "downward-api", "projected")
        if volume.persistent_volume_claim is not None:
            readonly = readonly or volume.persistent_volume_claim.read_only
        if volume.csi is not None:
            readonly = readonly or volume.csi.read_only
        out.append(
            Mount(
                container_path=m.mount_path if m.mount_path.startswith("/") else "/" + m.mount_path,
                host_path=sub_paths.get(i) or str(_source(root, pod.uid, volume, held)),
                readonly=readonly,
                propagation=m.mount_propagation,
            )
        )
    return out


def _source(root: Path, uid: str, volume: Volume, held: Collection[str]) -> Path:
    return held_path(root, uid, volume) if volume.name in held else volume_dir(root, uid, volume)


def bind_sub_paths(
    pod: Pod, container_name: str, relative: Mapping[int, str], *, root: Path, held: Collection[str] = ()
) -> dict[int, str]:
    """Bind each subPath (index of the mount -> path in the volume) below the pod's folder.  Raises VolumeError."""
    by_name = {v.name: v for v in pod.spec.volumes}
    container = pod.container(container_name)
    bound = {}
    for i, path in relative.items():
        volume = by_name[container.volume_mounts[i].name]
        target = root / pod.uid / "volume-subpaths" / volume.name / container_name / str(i)
        try:
            tree.make_dirs(root, f"{pod.uid}/volume-subpaths/{volume.name}/{container_name}")
            tree.bind_sub_path(
                _source(root, pod.uid, volume, held),
                path,
                target,
                create=kind_of(volume) in ("", "empty-dir", "local-volume", "csi"),
                # what the path leads to may be another since the container before this one
                renew=True,
            )
        except OSError as err:
            raise VolumeError(f'volume "{volume.name}": {err}') from err
        bound[i] = str(target)
    return bound
