"""Volumes of CSI drivers: what is asked of a driver for one volume of one pod.  Pure.

Source: kubelet, volume/csi/csi_mounter.go, csi_attacher.go, csi_util.go; CSI 1.x.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

import msgspec

from edgecore.edged.pod import Pod, Volume
from edgecore.edged.podread import is_name

# CSI's VolumeCapability.AccessMode.Mode and NodeServiceCapability.RPC.Type
SINGLE_NODE_WRITER, SINGLE_NODE_READER_ONLY, MULTI_NODE_READER_ONLY = 1, 2, 3
MULTI_NODE_MULTI_WRITER, SINGLE_NODE_SINGLE_WRITER, SINGLE_NODE_MULTI_WRITER = 5, 6, 7
CAN_STAGE, CAN_EXPAND, CAN_SINGLE_NODE_MULTI_WRITER, CAN_MOUNT_GROUP = 1, 3, 5, 6
MOST_VOLUMES = 2**31 - 1
# Kubernetes' bound on a nodeID, and a sane one
MAX_NODE_ID, MAX_TOPOLOGY = 192, 32
_OPEN_LABELS = frozenset({"topology.kubernetes.io/zone", "topology.kubernetes.io/region"})
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
GROUP_POLICY = "ReadWriteOnceWithFSType"
KIND = "kubernetes.io~csi"
DATA = "vol_data.json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One volume for one pod.

    spec_name: of the volume in the pod, or of the PersistentVolume.  handle: the driver's name for it.
    block: as a device, without a file system.
    secrets are (namespace, name), for publishing, for staging and for expanding.  modes: as the PersistentVolume says.
    grows_to: bytes that the volume has and its claim does not know of, 0 if there is nothing to do.  claim_uid: of that.
    """

    spec_name: str
    driver: str
    handle: str
    ephemeral: bool
    block: bool = False
    read_only: bool = False
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    publish_secret: tuple[str, str] | None = None
    stage_secret: tuple[str, str] | None = None
    expand_secret: tuple[str, str] | None = None
    grows_to: int = 0
    claim_uid: str = ""


def inline(pod: Pod, volume: Volume) -> Wanted:
    """A volume that lives as long as its pod."""
    source = volume.csi
    assert source is not None
    secret = source.node_publish_secret_ref
    return Wanted(
        spec_name=volume.name,
        driver=source.driver,
        handle="csi-" + hashlib.sha256(f"{pod.uid}{volume.name}".encode()).hexdigest(),
        ephemeral=True,
        read_only=source.read_only,
        fs_type=source.fs_type,
        attributes=source.volume_attributes,
        publish_secret=(pod.namespace, secret.name) if secret is not None and secret.name else None,
    )


def access_mode(wanted: Wanted, capabilities: Collection[int]) -> int:
    """CSI's access mode for what Kubernetes calls ReadWriteOnce and so on."""
    fine = CAN_SINGLE_NODE_MULTI_WRITER in capabilities
    writer = SINGLE_NODE_MULTI_WRITER if fine else SINGLE_NODE_WRITER
    if not wanted.modes:
        return SINGLE_NODE_WRITER
    table = {
        "ReadWriteMany": MULTI_NODE_MULTI_WRITER,
        "ReadOnlyMany": MULTI_NODE_READER_ONLY,
        "ReadWriteOncePod": SINGLE_NODE_SINGLE_WRITER if fine else SINGLE_NODE_WRITER,
        "ReadWriteOnce": writer,
    }
    return next((table[m] for m in table if m in wanted.modes), SINGLE_NODE_WRITER)


def group_applies(wanted: Wanted, policy: str = GROUP_POLICY) -> bool:
    """Whether a pod's group is to be given the files of a volume.

    policy: the driver's fsGroupPolicy.  Its default: where one node writes to a file system of a known type.
    Source: kubelet, volume/csi/csi_mounter.go (supportsFSGroup)."""
    if wanted.block or wanted.read_only or policy == "None":
        return False
    return policy == "File" or (bool(wanted.fs_type) and "ReadWriteOnce" in wanted.modes)


def context(pod: Pod, wanted: Wanted, *, pod_info: bool) -> dict[str, str]:
    """The volume's attributes, and whose it is for a driver that wants to know."""
    if not pod_info:
        return dict(wanted.attributes)
    return {
        **wanted.attributes,
        "csi.storage.k8s.io/pod.name": pod.name,
        "csi.storage.k8s.io/pod.namespace": pod.namespace,
        "csi.storage.k8s.io/pod.uid": pod.uid,
        "csi.storage.k8s.io/serviceAccount.name": pod.spec.service_account_name or "default",
        "csi.storage.k8s.io/ephemeral": "true" if wanted.ephemeral else "false",
    }


def attachment_name(wanted: Wanted, node_name: str) -> str:
    """What the attacher calls the VolumeAttachment of a volume to a node."""
    text = f"{wanted.handle}{wanted.driver}{node_name}"
    return "csi-" + hashlib.sha256(text.encode()).hexdigest()


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver says of this machine.

    node_id: its name for it; most: how many of its volumes may be here, 0 for any number; topology: where it is."""

    node_id: str
    most: int = 0
    topology: Mapping[str, str] = msgspec.field(default_factory=dict)


def node_fault(node_id: str, topology: Mapping[str, str]) -> str:
    """Why what a driver says of this machine cannot become a CSINode and labels; empty when it can."""
    if not 0 < len(node_id) <= MAX_NODE_ID:
        return f"its name for it has {len(node_id)} characters"
    if len(topology) > MAX_TOPOLOGY:
        return f"more than {MAX_TOPOLOGY} places"
    for key, value in topology.items():
        prefix, slash, name = key.rpartition("/")
        if not _LABEL_NAME.match(name) or (slash and not is_name(prefix)) or not _LABEL_VALUE.match(value):
            return f"{key[:64]!r}: {value[:64]!r} is no label"
        if f".{prefix}".endswith((".kubernetes.io", ".k8s.io")) and key not in _OPEN_LABELS:
            # the API lets no node set it, and would refuse all others with it
            return f"label {key[:64]!r} is not a driver's to set"
    return ""


def node_drivers(found: Mapping[str, NodeInfo]) -> list[dict[str, object]]:
    """spec.drivers of a CSINode.  Source: kubelet, volume/csi/nodeinfomanager."""
    return [
        {
            "name": name,
            "nodeID": info.node_id,
            "topologyKeys": sorted(info.topology),
            **({"allocatable": {"count": min(info.most, MOST_VOLUMES)}} if info.most > 0 else {}),
        }
        for name, info in sorted(found.items())
    ]


def topology_labels(found: Mapping[str, NodeInfo]) -> dict[str, str]:
    """The labels by which volumes and nodes are matched."""
    return {key: value for _, info in sorted(found.items()) for key, value in sorted(info.topology.items())}


def staging_folder(handle: str) -> str:
    return hashlib.sha256(handle.encode()).hexdigest()


class Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is written beside a mount, so that it can be undone by who does not know the pod any more."""

    driver_name: str
    volume_handle: str
    spec_vol_id: str = msgspec.field(name="specVolID", default="")
    volume_lifecycle_mode: str = "Persistent"
    # ours: whether the pod's group is given what is in it
    own: bool = False


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Where a volume is for a pod.  own: whether the pod's group is to be given what is in it."""

    path: str
    own: bool


class _DriverSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    attach_required: bool | None = None
    pod_info_on_mount: bool | None = None
    volume_lifecycle_modes: list[str] | None = None
    fs_group_policy: str | None = None


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """storage.k8s.io/v1 CSIDriver, as far as a node needs it; without one a driver is as this says."""

    spec: _DriverSpec = _DriverSpec()

    @property
    def attach_required(self) -> bool:
        return self.spec.attach_required is not False

    @property
    def pod_info(self) -> bool:
        return bool(self.spec.pod_info_on_mount)

    @property
    def group_policy(self) -> str:
        return self.spec.fs_group_policy or GROUP_POLICY

    def serves(self, *, ephemeral: bool) -> bool:
        """Whether it has volumes that live as long as this one should."""
        modes = self.spec.volume_lifecycle_modes or ["Persistent"]
        return ("Ephemeral" if ephemeral else "Persistent") in modes


class _AttachmentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    attached: bool = False
    attachment_metadata: dict[str, str] = {}


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """storage.k8s.io/v1 VolumeAttachment."""

    status: _AttachmentStatus = _AttachmentStatus()
