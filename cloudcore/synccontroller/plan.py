"""What a stock edge is known to hold, as KubeEdge's cloud writes it down: one record per node and object.  Pure.

    ObjectSync          for an object in a namespace, in that namespace
    ClusterObjectSync   for one in none
    name                <node>.<uid of the object>; a node's name may have dots, so the last one parts them
    status.objectResourceVersion   the newest version that was acknowledged; "0" before the first

An edge of ours says what it holds when it connects, and needs none of these.
Source: KubeEdge, synccontroller and cloudhub/dispatcher (what is written when)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from beehive import resource
from beehive.delivery import Item
from beehive.errors import ProtocolError
from beehive.message import Group, Inventory, InventoryEntry
from cloudcore.objects import Kind, Object, number

OBJECTSYNC = Kind("ObjectSync", "objectsyncs", "reliablesyncs.kubeedge.io", "v1alpha1")
CLUSTEROBJECTSYNC = Kind(
    "ClusterObjectSync", "clusterobjectsyncs", "reliablesyncs.kubeedge.io", "v1alpha1", namespaced=False
)
NEVER = "0"
"""The version of what was sent and not acknowledged yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One object at one node.   namespace: the object's, empty for none.   version: acknowledged."""

    node: str
    uid: str
    namespace: str
    api_version: str
    kind: str
    name: str
    version: str = NEVER

    @property
    def sync_kind(self) -> Kind:
        return OBJECTSYNC if self.namespace else CLUSTEROBJECTSYNC

    @property
    def sync_name(self) -> str:
        return f"{self.node}.{self.uid}"

    @property
    def key(self) -> tuple[str, str]:
        return (self.node, self.uid)

    @property
    def path(self) -> str:
        """The object's path on the wire."""
        return str(resource.make(self.kind.lower(), self.name, self.namespace))

    def body(self) -> bytes:
        """The whole object, for a create.  An API with a status subresource takes the status from `status` only."""
        metadata = {"name": self.sync_name}
        if self.namespace:
            metadata["namespace"] = self.namespace
        return msgspec.json.encode(
            {
                "apiVersion": self.sync_kind.api_version,
                "kind": self.sync_kind.kind,
                "metadata": metadata,
                "spec": {
                    "objectAPIVersion": self.api_version,
                    "objectKind": self.kind,
                    "objectName": self.name,
                },
                "status": {"objectResourceVersion": self.version},
            }
        )

    def status(self) -> bytes:
        """A merge patch of the status."""
        return msgspec.json.encode({"status": {"objectResourceVersion": self.version}})


class _Spec(msgspec.Struct, frozen=True, kw_only=True):
    objectAPIVersion: str = ""
    objectKind: str = ""
    objectName: str = ""


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    objectResourceVersion: str = ""


class _Sync(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()
    status: _Status | None = None


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""
    name: str = ""
    namespace: str = ""


class _Sent(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    apiVersion: str = ""
    kind: str = ""


def read(sync: Object) -> Record | None:
    """The record in an (Cluster)ObjectSync; None for one that says nothing.  Raises ProtocolError."""
    node, dot, uid = sync.name.rpartition(".")
    found = sync.decode(_Sync)
    if not dot or not node or not uid or not found.spec.objectKind:
        return None
    return Record(
        node=node,
        uid=uid,
        namespace=sync.namespace,
        api_version=found.spec.objectAPIVersion,
        kind=found.spec.objectKind,
        name=found.spec.objectName,
        version=(found.status.objectResourceVersion if found.status else "") or NEVER,
    )


def acknowledged(node: str, item: Item) -> Record | None:
    """What is to be written down when `node` acknowledged `item`, be it news or a delete; None for what is not kept.

    KubeEdge keeps no record of what goes to the twins (its group), nor of what has no kind."""
    if item.message.route.group != Group.RESOURCE:
        return None
    try:
        target = resource.parse(item.message.route.resource)
        sent = item.message.decode(_Sent)
    except ProtocolError:
        return None
    if not sent.metadata.uid or not (sent.kind or item.delete):
        return None
    return Record(
        node=node,
        uid=sent.metadata.uid,
        namespace="" if target.namespace == resource.CLUSTER else target.namespace,
        api_version=sent.apiVersion or "v1",
        kind=sent.kind or target.type,
        name=target.name,
        version=str(item.version),
    )


def newer(held: Record | None, seen: Record) -> bool:
    """Whether `seen` is worth writing over `held`."""
    return held is None or number(seen.version) > number(held.version)


def inventory(records: Iterable[Record]) -> Inventory:
    """What a node holds by these records, as an edge of ours would say it."""
    return Inventory(objects={record.uid: InventoryEntry(record.path, record.version) for record in records})
