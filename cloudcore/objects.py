"""Kubernetes objects as bytes with just enough read out of them to route by.  Pure.

An object crosses cloudcore undecoded: `read` looks at its metadata and node name and keeps the rest as it came.  Also here: the
table of kinds that cloudcore handles, and their API paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from beehive import resource
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE

T = TypeVar("T")

EDGE_LABEL = "node-role.kubernetes.io/edge"
"""A node with this label belongs to cloudcore."""
SESSION_ANNOTATION = "skerry.dev/session"
"""On a Node: the number of the newest session that a hub opened for it."""
CLOUDCORE_ANNOTATION = "cloudcore"
"""On a Node: the address of the hub that holds its link.  KubeEdge's router reads it."""
HUB_ANNOTATION = "skerry.dev/hub"
"""On a Node: where other cloudcores reach the one that holds its link, <address>:<port>."""
AUTHORITY_ANNOTATION = "skerry.dev/authority"
"""On a Node: the hashes of the newest authority that it trusts, and of the one that signed the certificate it showed last; -
for one that is not known, as with a stock edge."""
HUB_ANNOTATIONS = frozenset({SESSION_ANNOTATION, CLOUDCORE_ANNOTATION, HUB_ANNOTATION, AUTHORITY_ANNOTATION})
"""What hubs write on a Node, and nobody else may."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.  `wire` is its type in a message's resource path."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def wire(self) -> str:
        return self.kind.lower()

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path below the API server's address.  Names are checked, since peers chose them."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(_segment(name))
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(parts)


def _segment(text: str) -> str:
    if (
        "/" in text
        or "%" in text
        or "?" in text
        or "#" in text
        or text in (".", "..")
        or not text.isprintable()
    ):
        raise ProtocolError(f"{text[:64]!r} is not a name")
    return text


POD = Kind("Pod", "pods")
NODE = Kind("Node", "nodes", namespaced=False)
NAMESPACE = Kind("Namespace", "namespaces", namespaced=False)
CONFIGMAP = Kind("ConfigMap", "configmaps")
SECRET = Kind("Secret", "secrets")
SERVICEACCOUNT = Kind("ServiceAccount", "serviceaccounts")
SERVICE = Kind("Service", "services")
EVENT = Kind("Event", "events")
PERSISTENTVOLUME = Kind("PersistentVolume", "persistentvolumes", namespaced=False)
PERSISTENTVOLUMECLAIM = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
VOLUMEATTACHMENT = Kind("VolumeAttachment", "volumeattachments", "storage.k8s.io", namespaced=False)
CSIDRIVER = Kind("CSIDriver", "csidrivers", "storage.k8s.io", namespaced=False)
CSINODE = Kind("CSINode", "csinodes", "storage.k8s.io", namespaced=False)
RUNTIMECLASS = Kind("RuntimeClass", "runtimeclasses", "node.k8s.io", namespaced=False)
LEASE = Kind("Lease", "leases", "coordination.k8s.io")
CSR = Kind("CertificateSigningRequest", "certificatesigningrequests", "certificates.k8s.io", namespaced=False)
DEVICE = Kind("Device", "devices", "devices.kubeedge.io", "v1beta1")
DEVICEMODEL = Kind("DeviceModel", "devicemodels", "devices.kubeedge.io", "v1beta1")
DEVICESTATUS = Kind("DeviceStatus", "devicestatuses", "devices.kubeedge.io", "v1beta1")

HARDWARERULE = Kind("HardwareRule", "hardwarerules", "skerry.dev", "v1alpha1")
DEVICECALL = Kind("DeviceCall", "devicecalls", "skerry.dev", "v1alpha1")
DEVICECANDIDATE = Kind("DeviceCandidate", "devicecandidates", "skerry.dev", "v1alpha1")


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of every object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    deletionTimestamp: str | None = None
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True, kw_only=True):
    nodeName: str | None = None


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata
    kind: str = ""
    spec: msgspec.Raw = msgspec.Raw(b"null")


_head = msgspec.json.Decoder(_Head)
_spec = msgspec.json.Decoder(_Spec)
_NODE_BOUND = frozenset({"Pod", "Device"})


@dataclass(frozen=True, slots=True)
class Object:
    """One object as it came, always with kind and apiVersion.  `node`: spec.nodeName of kinds that hang on a node."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    raw: bytes
    node: str = ""
    deleting: bool = False
    labels: dict[str, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    @property
    def number(self) -> int:
        """The resourceVersion as a number; 0 if it is none (a server other than etcd's may use any text)."""
        return number(self.version)

    @property
    def path(self) -> str:
        """Its path on the wire."""
        return str(resource.make(self.kind.wire, self.name, self.namespace))

    def decode(self, as_type: type[T]) -> T:
        """The part of it that `as_type` names.  Raises ProtocolError."""
        return decode(self.raw, as_type)

    def gone(self) -> bytes:
        """The content of a delete: what is needed to know which one went."""
        return msgspec.json.encode(
            {"metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid}}
        )


def number(version: str) -> int:
    """A resourceVersion for comparing; 0 if it is no number."""
    return int(version) if version.isdecimal() and len(version) < 40 else 0


def decode(data: bytes | msgspec.Raw, as_type: type[T]) -> T:
    """Raises ProtocolError."""
    try:
        return msgspec.json.decode(data, type=as_type)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the object: {error}") from error


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that is there and cannot be read: what could be made out of it, empty where nothing could.

    node: the node that it hangs on; empty for none, None when that cannot be made out.   why: for the log."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    node: str | None
    why: str

    @property
    def key(self) -> tuple[str, str] | None:
        """Which object it is; None when nobody can say: then it may be any."""
        known = self.name and bool(self.namespace) == self.kind.namespaced
        return (self.namespace, self.name) if known else None

    def tombstone(self) -> Object | None:
        """It as an object of which nothing but its identity is known; None when not even that is."""
        if self.key is None or not self.uid:
            return None
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "resourceVersion": self.version,
        }
        body = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": metadata}
        raw = msgspec.json.encode(body)
        return Object(self.kind, self.namespace, self.name, self.uid, self.version, raw, self.node or "")

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind.kind} {where}" if self.name else f"one {self.kind.kind} whose name is not known"


def sketch(kind: Kind, data: bytes, why: str) -> Unread:
    """What can be made out of an object that `read` could not read."""
    parts = _members(data)
    meta = _members(parts.get("metadata"))
    name, namespace, uid, version = (
        _text(meta.get(key)) for key in ("name", "namespace", "uid", "resourceVersion")
    )
    node: str | None = ""
    if kind.kind in _NODE_BOUND and "metadata" in parts:
        spec = parts.get("spec", b"null")
        bound = _members(spec).get("nodeName", b'""')
        node = "" if bytes(spec) == b"null" else _text(bound) or (None if bytes(bound) != b'""' else "")
    elif kind.kind in _NODE_BOUND:
        node = None
    return Unread(kind, namespace, name, uid, version, node, why)


def _members(data: bytes | msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(data, type=dict[str, msgspec.Raw]) if data is not None else {}
    except UNREADABLE:
        return {}


def _text(data: bytes | msgspec.Raw | None) -> str:
    try:
        return msgspec.json.decode(data, type=str) if data is not None else ""
    except UNREADABLE:
        return ""


def read(kind: Kind, data: bytes) -> Object:
    """Raises ProtocolError when this is no object of any kind.  An item of a list gets the kind that lists leave out."""
    try:
        head = _head.decode(data)
        node = ""
        if kind.kind in _NODE_BOUND and head.spec != b"null":
            node = _spec.decode(head.spec).nodeName or ""
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read a {kind.kind}: {error}") from error
    meta = head.metadata
    if not head.kind:
        rest = data.lstrip()[1:]
        data = b'{"kind":"%s","apiVersion":"%s",%s' % (kind.kind.encode(), kind.api_version.encode(), rest)
    return Object(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        version=meta.resourceVersion,
        raw=data,
        node=node,
        deleting=meta.deletionTimestamp is not None,
        labels=meta.labels or None,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to an object: `old` is None for a new one, `new` is None for one that is gone."""

    old: Object | None
    new: Object | None

    @property
    def back(self) -> bool:
        """Whether the API went back: the same object has an older version now."""
        return (
            self.old is not None
            and self.new is not None
            and self.old.uid == self.new.uid
            and self.new.number < self.old.number
        )

    @property
    def newest(self) -> Object:
        found = self.new or self.old
        assert found is not None, "a change without an object"
        return found


class Annotated(msgspec.Struct, frozen=True, kw_only=True):
    annotations: dict[str, str] | None = None


class _WithAnnotations(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Annotated = Annotated()


def annotation(thing: Object, name: str) -> str:
    """One annotation, or an empty string."""
    found = thing.decode(_WithAnnotations).metadata.annotations or {}
    return found.get(name, "")


class _Comparable(msgspec.Struct, frozen=True, kw_only=True):
    labels: Any = None
    annotations: Any = None
    deletionTimestamp: Any = None
    deletionGracePeriodSeconds: Any = None
    finalizers: Any = None
    ownerReferences: Any = None


class _Substance(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Comparable = _Comparable()
    spec: Any = None


class _Gate(msgspec.Struct, frozen=True, kw_only=True):
    conditionType: str = ""


class _GatedSpec(msgspec.Struct, frozen=True, kw_only=True):
    readinessGates: list[_Gate] = []


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""


class _GatedStatus(msgspec.Struct, frozen=True, kw_only=True):
    conditions: list[_Condition] | None = None


class _Gated(msgspec.Struct, frozen=True, kw_only=True):
    spec: _GatedSpec = _GatedSpec()
    status: _GatedStatus = _GatedStatus()


def same_substance(old: Object, new: Object) -> bool:
    """Whether only status and bookkeeping changed: what an edge need not be told."""
    return old.uid == new.uid and _substance(old) == _substance(new)


def _substance(thing: Object) -> tuple[object, ...]:
    found = thing.decode(_Substance)
    meta = found.metadata
    annotations = meta.annotations
    if isinstance(annotations, dict):
        # written at each connect: told to the edge they would be news each time
        annotations = {key: value for key, value in annotations.items() if key not in HUB_ANNOTATIONS}
    return (
        meta.labels or None,
        annotations or None,
        meta.deletionTimestamp,
        meta.deletionGracePeriodSeconds,
        meta.finalizers,
        meta.ownerReferences,
        found.spec,
        _gates(thing),
    )


def _gates(thing: Object) -> tuple[tuple[str, str], ...]:
    """What others say of a pod's readiness gates, in its status: all of a status that its node goes by."""
    if b'"readinessGates"' not in thing.raw:
        return ()
    try:
        found = thing.decode(_Gated)
    except ProtocolError:
        return ()
    kinds = {gate.conditionType for gate in found.spec.readinessGates}
    return tuple((one.type, one.status) for one in found.status.conditions or () if one.type in kinds)
