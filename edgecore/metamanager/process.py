"""What a frame pushed by the cloud does to the stored objects.  Pure.

The rules are KubeEdge's (metamanager's insert, update and delete), with three of ours on top: a resourceVersion never goes
back for one UID (but where a hub of ours says that the API itself did, restored from a backup), a name whose object is of a
newer life is not taken over by an older one, and a path or an object that does not say what it claims is refused before
anything is stored.

Theory of operation.  `target` reads where the frame points; `decide` is given what is stored there and says what to do.  Both
run inside the store's transaction, so that two frames for one object cannot pass each other."""

from __future__ import annotations

import msgspec

from beehive import resource
from beehive.errors import ProtocolError
from beehive.message import Message, Op
from beehive.resource import Resource
from edgecore.metamanager.records import Row

MAX_VERSION = 2**63 - 1
"""etcd's revision, and what a column holds."""

TWIN_TYPES = frozenset({"device", "devicemodel"})
"""Kinds that devicetwin acts on, once stored."""


class Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The few members of metadata that storing needs."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """Any Kubernetes object, as far as storing it is concerned."""

    metadata: Meta = Meta()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one object, for the parts of this node.  `uid` is of the object that came or went."""

    resource: Resource
    uid: str
    gone: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to store and whom to tell.  An empty one still means: acknowledge, for the peer has nothing better."""

    put: Row | None = None
    delete: str = ""
    change: Change | None = None


NOTHING = Verdict()


def target(message: Message) -> Resource:
    """The object that a pushed frame is about.  Raises: ProtocolError (bad path, or nothing that can be pushed)."""
    where = resource.parse(message.route.resource)
    if message.route.operation not in (Op.INSERT, Op.UPDATE, Op.DELETE):
        raise ProtocolError(f"operation {message.route.operation!r} on {where} is not known here")
    if not where.name:
        raise ProtocolError(f"resource {where} names no object")
    return where


def decide(message: Message, where: Resource, stored: Row | None) -> Verdict:
    """What `message` does to `stored`, the object at `where`.

    Raises: ProtocolError (the content is not the object that the path names).
    Source: KubeEdge, metamanager/process.go; the edge's obligations in protocol notes on the hub, 6.1 and 7.6."""
    if message.route.operation == Op.DELETE:
        return _decide_delete(message, where, stored)
    meta = read_meta(message, where)
    version = read_version(message, meta)
    if stored is not None and stored.version >= 0 and not message.is_restored:
        if version < 0 and stored.uid == meta.uid:
            # KubeEdge exempts objects that are being deleted from carrying one: keep the order of what did
            version = stored.version
        elif version < stored.version:
            return NOTHING  # an older state, or an older object of the same name: what we hold is newer
        elif version == stored.version and stored.uid == meta.uid:
            return NOTHING
    row = Row(
        key=where.key,
        type=where.type,
        namespace=where.namespace,
        name=where.name,
        uid=meta.uid,
        version=version,
        value=bytes(message.content),
    )
    return Verdict(put=row, change=Change(resource=where, uid=meta.uid, gone=False))


def _decide_delete(message: Message, where: Resource, stored: Row | None) -> Verdict:
    uid = ""
    if bytes(message.content).lstrip()[:1] == b"{":
        uid = message.decode(Object).metadata.uid
    # an empty UID matches everything, as at a stock edge
    if stored is not None and uid and stored.uid != uid:
        return NOTHING
    if stored is None:
        # not ours to know: but the parts may still run it, if the store was lost
        return Verdict(change=Change(resource=where, uid=uid, gone=True)) if uid else NOTHING
    return Verdict(delete=where.key, change=Change(resource=where, uid=stored.uid, gone=True))


def read_meta(message: Message, where: Resource) -> Meta:
    """The object's metadata.  Raises: ProtocolError, also when it is not the object that the path names."""
    if bytes(message.content).lstrip()[:1] != b"{":
        raise ProtocolError(f"the content for {where} is not an object")
    meta = message.decode(Object).metadata
    if meta.name and meta.name != where.name:
        raise ProtocolError(f"the content for {where} is an object named {meta.name[:64]!r}")
    if meta.namespace and meta.namespace != where.namespace:
        raise ProtocolError(f"the content for {where} is an object in namespace {meta.namespace[:64]!r}")
    if len(meta.uid) > resource.MAX_NAME:
        raise ProtocolError(f"the content for {where} has a UID of {len(meta.uid)} characters")
    if where.type == "pod" and not resource.is_name(meta.uid):
        # a pod's UID becomes a folder's name
        raise ProtocolError(f"the content for {where} has a bad UID")
    return meta


def read_version(message: Message, meta: Meta) -> int:
    """The resourceVersion, or -1 if there is none.  Raises: ProtocolError (not a number that etcd could have given)."""
    text = message.version or meta.resource_version
    if not text:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) > MAX_VERSION:
        raise ProtocolError(f"{text[:32]!r} is not a resourceVersion")
    return int(text)
