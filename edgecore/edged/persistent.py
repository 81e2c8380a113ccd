"""Persistent volume claims on volumes of this machine (local and hostPath).  Pure.

Source: kubelet, volume/util/util.go; pkg/kubelet/volumemanager/populator (a claim is used only when bound both ways).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from edgecore.edged import quantity
from edgecore.edged.csi import Wanted
from edgecore.edged.errors import VolumeError
from edgecore.edged.pod import Quantity
from edgecore.edged.podread import is_name

RESIZE_PENDING = "FileSystemResizePending"
_S = TypeVar("_S", bound=msgspec.Struct)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Where a claim's data is on this machine.

    create: the folder is made when it is missing.  own: whether a pod's fsGroup becomes its group; deep: and that of all that
    is in it, which is not done to folders of the machine's own.
    held: the path has no links, and must be found without any.  block: it is a device, not a folder.
    """

    path: str
    create: bool = False
    own: bool = True
    deep: bool = False
    held: bool = False
    block: bool = False


class _Owner(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    owners: list[_Owner] = msgspec.field(name="ownerReferences", default_factory=list)
    name: str = ""
    namespace: str = ""
    uid: str = ""


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    requests: dict[str, Quantity] | None = None


class _ClaimSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    resources: _Asked | None = None
    volume_name: str = ""
    volume_mode: str | None = None


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""


class _ClaimStatus(msgspec.Struct, frozen=True, kw_only=True):
    phase: str = ""
    capacity: dict[str, Quantity] | None = None
    conditions: list[_Condition] | None = None


class _Pvc(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    type: str | None = None


class _SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class _Csi(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    driver: str
    volume_handle: str
    read_only: bool = False
    fs_type: str | None = None
    volume_attributes: dict[str, str] | None = None
    node_publish_secret_ref: _SecretRef | None = None
    node_stage_secret_ref: _SecretRef | None = None
    node_expand_secret_ref: _SecretRef | None = None


class _VolumeSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    capacity: dict[str, Quantity] | None = None
    claim_ref: _Meta | None = None
    csi: _Csi | None = None
    volume_mode: str | None = None
    access_modes: list[str] = []
    mount_options: list[str] = []
    local: _Place | None = None
    host_path: _Place | None = None


class _Pv(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    spec: _VolumeSpec = _VolumeSpec()


def volume_name(claim: str, raw: bytes | msgspec.Raw | None) -> str:
    """The volume that a claim is bound to.  Raises VolumeError."""
    if raw is None:
        raise VolumeError(f'persistentvolumeclaim "{claim}" not found')
    pvc = _read(raw, _Pvc, f'persistentvolumeclaim "{claim}"')
    if pvc.status.phase != "Bound" or not pvc.spec.volume_name:
        raise VolumeError(f'persistentvolumeclaim "{claim}" is not bound')
    return pvc.spec.volume_name


def growing(raw: bytes | msgspec.Raw | None) -> bool:
    """Whether a claim is to become larger, as far as it says so itself."""
    if raw is None:
        return False
    try:
        pvc = msgspec.json.decode(raw, type=_Pvc)
        asked = pvc.spec.resources.requests if pvc.spec.resources is not None else None
        return any(c.type == RESIZE_PENDING and c.status == "True" for c in pvc.status.conditions or ()) or (
            _storage(asked) > _storage(pvc.status.capacity)
        )
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False


def _storage(amounts: Mapping[str, Quantity] | None) -> int:
    """Bytes.  Raises ValueError."""
    return quantity.units(quantity.parse((amounts or {}).get("storage", 0)))


def resolve(
    claim: str, claim_raw: bytes | msgspec.Raw, volume_raw: bytes | msgspec.Raw | None, *, owner: str = ""
) -> Claim | Wanted:
    """Where the data of a bound claim is, or what to ask of which driver for it.  Raises VolumeError.

    owner: UID of the pod that the claim must have been made for, if it was made for one.
    """
    name = volume_name(claim, claim_raw)
    if volume_raw is None:
        raise VolumeError(f'persistentvolume "{name}" not found')
    what = f'persistentvolume "{name}"'
    pvc, pv = _read(claim_raw, _Pvc, f'persistentvolumeclaim "{claim}"'), _read(volume_raw, _Pv, what)
    if owner and not any(o.uid == owner and o.controller for o in pvc.metadata.owners):
        raise VolumeError(f'persistentvolumeclaim "{claim}" was not created for this pod')
    block = pvc.spec.volume_mode == "Block"
    if block != (pv.spec.volume_mode == "Block"):
        raise VolumeError(f'{what} is of another volumeMode than persistentvolumeclaim "{claim}"')
    ref = pv.spec.claim_ref
    if ref is None or (ref.namespace, ref.name, ref.uid) != (
        pvc.metadata.namespace,
        pvc.metadata.name,
        pvc.metadata.uid,
    ):
        # another claim's data must not be shown to this one
        raise VolumeError(f'{what} is bound to another claim than "{claim}"')
    if pv.spec.csi is not None:
        wanted = _of_driver(name, what, pv.spec, pv.spec.csi, block=block)
        return replace(wanted, grows_to=_grows_to(what, pvc, pv), claim_uid=pvc.metadata.uid)
    place = pv.spec.local or pv.spec.host_path
    if place is None:
        raise VolumeError(f"{what} is of a kind that is not supported here")
    if not place.path.startswith("/") or ".." in place.path.split("/") or "\0" in place.path:
        raise VolumeError(f"{what}: path cannot be used: {place.path[:64]!r}")
    if block and pv.spec.local is None:
        raise VolumeError(f"{what}: only local volumes and those of drivers can be block volumes here")
    kind = place.type or ""
    if pv.spec.host_path is not None and kind not in ("", "Directory", "DirectoryOrCreate"):
        raise VolumeError(f"{what}: hostPath type {kind[:32]!r} is not supported for claims")
    # a hostPath without a type is made when it is missing, as elsewhere; a local volume must be there: an empty folder
    # in place of a disk that is not mounted would take the data
    create = pv.spec.local is None and kind in ("", "DirectoryOrCreate")
    return Claim(path=place.path, create=create, deep=pv.spec.local is not None, block=block)


def _of_driver(name: str, what: str, spec: _VolumeSpec, source: _Csi, *, block: bool) -> Wanted:
    if not is_name(name) or not is_name(source.driver):
        raise VolumeError(f"{what}: its name or its driver cannot be used")

    def secret(ref: _SecretRef | None) -> tuple[str, str] | None:
        return (ref.namespace, ref.name) if ref is not None and ref.name else None

    return Wanted(
        spec_name=name,
        driver=source.driver,
        handle=source.volume_handle,
        ephemeral=False,
        block=block,
        read_only=source.read_only,
        fs_type=source.fs_type or "",
        mount_flags=tuple(spec.mount_options),
        modes=tuple(spec.access_modes),
        attributes=source.volume_attributes or {},
        publish_secret=secret(source.node_publish_secret_ref),
        stage_secret=secret(source.node_stage_secret_ref),
        expand_secret=secret(source.node_expand_secret_ref),
    )


def _grows_to(what: str, pvc: _Pvc, pv: _Pv) -> int:
    """The controller's side is done when the volume says so, the node's when the claim does."""
    if pvc.status.capacity is None:
        return 0
    try:
        size = _storage(pv.spec.capacity)
        return size if size > _storage(pvc.status.capacity) else 0
    except ValueError as err:
        raise VolumeError(f"{what}: its size cannot be read: {err}") from err


def _read(raw: bytes | msgspec.Raw, kind: type[_S], what: str) -> _S:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise VolumeError(f"{what} cannot be read: {err}") from err
