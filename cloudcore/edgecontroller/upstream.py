"""The kubelet-side requests of an edge, done against the API and answered as KubeEdge's hub answers them.

Each request is judged by the authorizer first.  The forms of answers: `ObjectResp` for what creates and patches, the object
itself for queries, `"OK"` for deletes, and nothing for events.

Source: KubeEdge, cloud/pkg/edgecontroller/controller/upstream.go."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from beehive import resource
from beehive.errors import Conflict, NotFound, ProtocolError, Refused
from beehive.message import UNREADABLE, Group, Message, Op, Source, reply
from beehive.resource import Resource
from cloudcore.cache import Cache
from cloudcore.cloudhub.dispatch import FINISHED, Done, Outcome, answer
from cloudcore.cloudhub.nodes import Link
from cloudcore.cloudstream.endpoints import told_port
from cloudcore.edgecontroller.downstream import Push, tombstone
from cloudcore.errors import ApiError, ApiExists, ApiNotFound, Forbidden, Status, forbidden
from cloudcore.identity import authorizer
from cloudcore.kube import STRATEGIC, Kube
from cloudcore.objects import (
    AUTHORITY_ANNOTATION,
    CLOUDCORE_ANNOTATION,
    CONFIGMAP,
    CSIDRIVER,
    CSINODE,
    CSR,
    EVENT,
    HUB_ANNOTATION,
    HUB_ANNOTATIONS,
    LEASE,
    NODE,
    PERSISTENTVOLUME,
    PERSISTENTVOLUMECLAIM,
    POD,
    RUNTIMECLASS,
    SECRET,
    SERVICEACCOUNT,
    SESSION_ANNOTATION,
    VOLUMEATTACHMENT,
    Kind,
    Object,
    decode,
)

log = logging.getLogger(__name__)

EVENTS_PER_S, EVENTS_BURST = 20.0, 200.0
"""Of one node.  More are dropped and counted: a fault in a loop must not fill the API."""

_QUERIED: dict[str, Kind] = {
    "configmap": CONFIGMAP,
    "secret": SECRET,
    "persistentvolume": PERSISTENTVOLUME,
    "persistentvolumeclaim": PERSISTENTVOLUMECLAIM,
    "volumeattachment": VOLUMEATTACHMENT,
    "runtimeclass": RUNTIMECLASS,
    "csidriver": CSIDRIVER,
    "node": NODE,
    "certificatesigningrequest": CSR,
}

OBJECT_RESP = frozenset(
    {
        ("node", Op.INSERT),
        ("nodepatch", Op.PATCH),
        ("lease", Op.INSERT),
        ("lease", Op.UPDATE),
        ("lease", Op.QUERY),
        ("pod", Op.INSERT),
        ("podpatch", Op.PATCH),
        ("certificatesigningrequest", Op.INSERT),
        ("csinode", Op.UPDATE),
        ("claimstatus", Op.UPDATE),
    }
)
"""Requests whose answer, errors included, has the form of `ObjectResp`."""

SILENT = frozenset({("event", Op.INSERT), ("event", Op.UPDATE), ("event", Op.PATCH)})


class _ErrStatus(msgspec.Struct, frozen=True, kw_only=True):
    ErrStatus: Status


class ObjectResp(msgspec.Struct, frozen=True, kw_only=True):
    """Both keys are always there; a stock edge knows the form by that."""

    Object: msgspec.Raw | None = None
    Err: _ErrStatus | None = None


class _Uid(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Uid = _Uid()


class _ClaimSpec(msgspec.Struct, frozen=True, kw_only=True):
    volumeName: str = ""


class _ClaimStatus(msgspec.Struct, frozen=True, kw_only=True):
    conditions: list[dict[str, Any]] | None = None
    allocatedResourceStatuses: dict[str, str] | None = None


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


class _VolumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    capacity: dict[str, str] = {}


class _Volume(msgspec.Struct, frozen=True, kw_only=True):
    spec: _VolumeSpec = _VolumeSpec()


class _PodStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of the old form of status reports."""

    UID: str = ""
    Name: str = ""
    Namespace: str = ""
    Status: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(slots=True)
class _Bucket:
    level: float = EVENTS_BURST
    at: float = 0.0
    dropped: int = 0

    def take(self, now: float) -> bool:
        self.level = min(EVENTS_BURST, self.level + (now - self.at) * EVENTS_PER_S)
        self.at = now
        if self.level < 1:
            self.dropped += 1
            return False
        self.level -= 1
        return True


@dataclass(slots=True)
class Upstream:
    """The part `edgecontroller` of the dispatcher.   now: the hub's clock."""

    kube: Kube
    view: authorizer.View
    caches: dict[str, Cache]
    now: Callable[[], float]
    address: str = ""
    where: str = ""
    """As other cloudcores reach this one; see objects.HUB_ANNOTATION."""
    node_endpoint: Callable[[str, bytes, int], Awaitable[bytes]] | None = None
    """Rewrites a node's status patch to where its kubelet can be reached; given the port its Node names now."""
    started: Callable[[Link], None] | None = None
    """Told when a node that exists registers again: its edge has just started."""
    denied: int = 0
    """Requests that the authorizer refused."""
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    @property
    def events_dropped(self) -> int:
        return sum(bucket.dropped for bucket in self._buckets.values())

    async def handle(self, link: Link, message: Message) -> Outcome:
        """Raises Unavailable for what should be sent again, Refused for a frame without an answer that may not be."""
        target = resource.parse(message.route.resource)
        request = (target.type, message.route.operation)
        try:
            authorizer.check(link.node, message, target, self.view)
            return await self._do(link, message, target)
        except Forbidden as error:
            self.denied += 1
            log.warning("Denied node %s: %s", link.node, error)
            if request in SILENT:
                link.refuse(message, error)
            return _failed(message, request, forbidden(str(error), kind=target.type, name=target.name))
        except ProtocolError as error:
            if request in SILENT:
                raise
            status = Status(message=str(error), reason="BadRequest", code=400)
            return _failed(message, request, status)
        except ApiError as error:
            if request in SILENT:
                raise
            return _failed(message, request, error.status)

    async def _do(self, link: Link, message: Message, target: Resource) -> Outcome:
        match target.type, message.route.operation:
            case "node", Op.INSERT:
                return await self._register(link, message)
            case "node", Op.UPDATE:
                return await self._update_node(link, message)
            case "nodepatch", Op.PATCH:
                return _object(message, await self._patch_node_status(message, target))
            case "csinode", Op.UPDATE:
                return _object(message, await self._storage(link, message))
            case "claimstatus", Op.UPDATE:
                return _object(message, await self._claim_grown(message, target))
            case "podpatch", Op.PATCH:
                uid = await self._pod_of(link, target)
                patch = _with_uid(message.text().encode(), uid)
                return _object(message, await self._patch_pod_status(target.namespace, target.name, patch))
            case "pod", Op.INSERT:
                created = await self.kube.create(POD, bytes(message.content), target.namespace)
                return _object(message, created)
            case "pod", Op.DELETE:
                return await self._delete_pod(link, message, target)
            case "podstatus", Op.UPDATE:
                return await self._old_status(link, message, target)
            case "lease", operation:
                return await self._lease(message, target, operation)
            case "serviceaccounttoken", Op.QUERY:
                token = await self.kube.request(
                    "POST",
                    SERVICEACCOUNT.path(target.namespace, target.name, "token"),
                    body=bytes(message.content),
                )
                return _answer(message, token)
            case "certificatesigningrequest", Op.INSERT:
                return _object(message, await self.kube.create(CSR, bytes(message.content)))
            case "event", operation:
                return await self._event(link, message, target, operation)
            case kind, Op.QUERY if kind in _QUERIED:
                return await self._query(link, message, target)
        raise Forbidden(f"node {link.node} may not {message.route.operation} {target.type}")

    # -- node ----------------------------------------------------------------------------------------------------

    async def _register(self, link: Link, message: Message) -> Outcome:
        """Create the Node.  One that exists is answered with AlreadyExists, and pushed, so that an edge with an empty store
        can go on from it."""
        body = _mapping(message)
        meta = body["metadata"]
        meta["annotations"] = {
            **_strings(meta, "annotations"),
            SESSION_ANNOTATION: str(link.session.number),
            CLOUDCORE_ANNOTATION: self.address,
            HUB_ANNOTATION: self.where,
            AUTHORITY_ANNOTATION: link.authority,
        }
        meta.pop("resourceVersion", None)
        try:
            created = await self.kube.create(NODE, msgspec.json.encode(body))
        except ApiExists as error:
            held = await self.kube.get(NODE, link.node)
            if self.started is not None:
                self.started(link)
            link.offer(Push(link.node, held).delivery())
            return _failed(message, ("node", Op.INSERT), error.status)
        log.info("Registered node %s", link.node)
        return _object(message, created)

    async def _update_node(self, link: Link, message: Message) -> Outcome:
        """Labels and annotations; our own annotations stay what they are, whatever the edge remembers of them."""
        body = _mapping(message)
        meta = body["metadata"]
        annotations = {
            key: value for key, value in _strings(meta, "annotations").items() if key not in HUB_ANNOTATIONS
        }
        patch = {"metadata": {"labels": _strings(meta, "labels"), "annotations": annotations}}
        updated = await self.kube.patch(NODE, link.node, msgspec.json.encode(patch))
        return answer(
            reply(message, source=Source.EDGECONTROLLER, group=Group.RESOURCE, version=updated.version)
        )

    async def _patch_node_status(self, message: Message, target: Resource) -> Object:
        patch = _without_ours(message.text().encode())
        if self.node_endpoint is not None:
            held = self.caches["node"].get("", target.name)
            patch = await self.node_endpoint(target.name, patch, told_port(held.raw) if held else 0)
        return await self.kube.patch(NODE, target.name, patch, form=STRATEGIC, subresource="status")

    async def _storage(self, link: Link, message: Message) -> Object:
        """Which storage drivers the node has, as its CSINode, which goes with the Node.  Ours only: no stock edge asks."""
        drivers = _mapping(message).get("spec", {}).get("drivers") or []
        spec = {"spec": {"drivers": drivers}}
        try:
            return await self.kube.patch(CSINODE, link.node, msgspec.json.encode(spec))
        except ApiNotFound:
            owner = {"apiVersion": "v1", "kind": "Node", "name": link.node}
            owner["uid"] = (await self.kube.get(NODE, link.node)).uid
            meta = {"name": link.node, "ownerReferences": [owner]}
            whole = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": meta, **spec}
            return await self.kube.create(CSINODE, msgspec.json.encode(whole))

    async def _claim_grown(self, message: Message, target: Resource) -> Object:
        """A claim's volume has its size on the node by now: then the claim has it.  Ours only: no stock edge asks.

        How much that is the volume says, not the node.  Source: kubelet, volume/util/resize_util.go (MarkFSResizeFinished).
        """
        claim = await self.kube.get(PERSISTENTVOLUMECLAIM, target.name, target.namespace)
        if claim.uid != decode(bytes(message.content), _Named).metadata.uid:
            raise Forbidden(f"claim {target.namespace}/{target.name} is another one by now")
        held = decode(claim.raw, _Claim)
        volume = decode((await self.kube.get(PERSISTENTVOLUME, held.spec.volumeName)).raw, _Volume)
        over, waits = ("FileSystemResizePending", "Resizing"), held.status.allocatedResourceStatuses
        patch = {
            "metadata": {"uid": claim.uid, "resourceVersion": claim.version},
            "status": {
                "capacity": {"storage": volume.spec.capacity.get("storage")},
                "conditions": [c for c in held.status.conditions or () if c.get("type") not in over],
                **({"allocatedResourceStatuses": {"storage": None}} if waits else {}),
            },
        }
        return await self.kube.patch(
            PERSISTENTVOLUMECLAIM,
            target.name,
            msgspec.json.encode(patch),
            target.namespace,
            subresource="status",
        )

    # -- pods ----------------------------------------------------------------------------------------------------

    async def _patch_pod_status(self, namespace: str, name: str, patch: bytes) -> Object:
        return await self.kube.patch(POD, name, patch, namespace, form=STRATEGIC, subresource="status")

    async def _pod_of(self, link: Link, target: Resource) -> str:
        """The uid of a pod on this node.  One that the authorizer did not know is gone, was bound a moment ago, or is bound to
        no node.

        The request is then held to that uid: by the time that it gets to the API, the name can be that of a pod elsewhere.
        Raises Forbidden, and ApiNotFound."""
        held = self.view.pod(target.namespace, target.name)
        found = held or await self.kube.get(POD, target.name, target.namespace)
        if found.node != link.node:
            raise Forbidden(f"pod {target.namespace}/{target.name} is not on node {link.node}")
        return found.uid

    async def _delete_pod(self, link: Link, message: Message, target: Resource) -> Outcome:
        """Gone, or a new pod of that name: what was asked for is so, and the answer is OK."""
        try:
            ours = await self._pod_of(link, target)
        except ApiNotFound:
            return _answer(message, b'"OK"')
        options = bytes(message.content)
        if options.lstrip()[:1] == b'"' or options.strip() in (b"null", b""):
            # an old edge sends the uid alone
            uid = message.text() if options.strip() not in (b"null", b"") else ""
            asked: dict[str, Any] = {"gracePeriodSeconds": 0}
            if uid:
                asked["preconditions"] = {"uid": uid}
            options = msgspec.json.encode(asked)
        if not decode(options, _DeleteOptions).preconditions.uid:
            options = _held_to(options, "preconditions", ours)
        try:
            await self.kube.delete(POD, target.name, target.namespace, options=options)
        except NotFound:
            pass
        except Conflict:
            wanted = decode(options, _DeleteOptions).preconditions.uid
            held = await self._pod_uid(target)
            if not wanted or held == wanted:
                raise
        return _answer(message, b'"OK"')

    async def _pod_uid(self, target: Resource) -> str:
        try:
            return (await self.kube.get(POD, target.name, target.namespace)).uid
        except ApiNotFound:
            return ""

    async def _old_status(self, link: Link, message: Message, target: Resource) -> Outcome:
        """KubeEdge's form before patches: one status, or a list of them when the request names no pod."""
        items = [message.decode(_PodStatus)] if target.name else message.decode(list[_PodStatus])
        for item in items:
            namespace = item.Namespace or target.namespace
            name = item.Name or target.name
            try:
                # not known here is not the same as not there: on the word that it is gone, the edge ends it
                uid = await self._pod_of(link, Resource(namespace, "pod", name))
            except ApiNotFound:
                uid = ""
            if uid != item.UID:
                gone = tombstone(POD, namespace, name, item.UID)
                link.offer(Push(link.node, gone, deleted=True).delivery())
                continue
            patch = msgspec.json.encode({"metadata": {"uid": item.UID}, "status": item.Status})
            await self._patch_pod_status(namespace, name, patch)
        return _answer(message, b'"OK"')

    # -- the rest ------------------------------------------------------------------------------------------------

    async def _lease(self, message: Message, target: Resource, operation: str) -> Outcome:
        if operation == Op.QUERY:
            return _object(message, await self.kube.get(LEASE, target.name, target.namespace))
        body = bytes(message.content)
        if operation == Op.INSERT:
            return _object(message, await self.kube.create(LEASE, body, target.namespace))
        return _object(message, await self.kube.replace(LEASE, target.name, body, target.namespace))

    async def _query(self, link: Link, message: Message, target: Resource) -> Outcome:
        kind = _QUERIED[target.type]
        namespace = target.namespace if kind.namespaced else ""
        cache = self.caches.get(target.type)
        found = cache.get(namespace, target.name) if cache is not None else None
        if found is None:
            # not known yet is not the same as not there
            found = await self.kube.get(kind, target.name, namespace)
        if target.type == "persistentvolume":
            authorizer.check_volume(link.node, found.raw, self.view)
        elif target.type == "volumeattachment":
            authorizer.check_attachment(link.node, found.raw)
        return _answer(message, found.raw, version=found.version)

    async def _event(self, link: Link, message: Message, target: Resource, operation: str) -> Outcome:
        bucket = self._buckets.setdefault(link.node, _Bucket(at=self.now()))
        if not bucket.take(self.now()):
            if bucket.dropped % 1000 == 1:
                log.warning("Node %s sends too many events; %d dropped so far", link.node, bucket.dropped)
            link.refuse(message, Refused("the node sends too many events"))
            return FINISHED
        if operation == Op.PATCH:
            patch = message.decode(authorizer.EventPatch)
            try:
                await self._check_event(link, target)
                await self.kube.patch(
                    EVENT, target.name, patch.patchData.encode(), target.namespace, form=STRATEGIC
                )
            except ApiNotFound:
                # it expired meanwhile: the whole event goes instead
                await self._create_event(bytes(patch.event), target.namespace)
            return FINISHED
        if operation == Op.UPDATE:
            try:
                await self._check_event(link, target)
                await self.kube.replace(EVENT, target.name, bytes(message.content), target.namespace)
            except ApiNotFound:
                await self._create_event(bytes(message.content), target.namespace)
            return FINISHED
        await self._create_event(bytes(message.content), target.namespace)
        return FINISHED

    async def _check_event(self, link: Link, target: Resource) -> None:
        """The event that is there must be this node's, too, not only what it is to become.  Raises Forbidden, ApiNotFound."""
        found = await self.kube.get(EVENT, target.name, target.namespace)
        authorizer.check_event(link.node, found.raw, self.view)

    async def _create_event(self, body: bytes, namespace: str) -> None:
        content = decode(body, dict[str, Any])
        meta = content.get("metadata")
        if not isinstance(meta, dict):
            raise ProtocolError("cannot read the event: it has no metadata")
        for key in ("resourceVersion", "uid"):
            meta.pop(key, None)
        try:
            await self.kube.create(EVENT, msgspec.json.encode({**content, "metadata": meta}), namespace)
        except ApiExists:
            return  # the edge repeated it, since our acknowledgement was lost


class _Preconditions(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""


class _DeleteOptions(msgspec.Struct, frozen=True, kw_only=True):
    preconditions: _Preconditions = _Preconditions()


def _with_uid(patch: bytes, uid: str) -> bytes:
    """A patch that holds only for the pod with this uid, if it does not say for which one."""
    if _dict(decode(patch, dict[str, Any]), "metadata").get("uid"):
        return patch
    return _held_to(patch, "metadata", uid)


def _held_to(body: bytes, where: str, uid: str) -> bytes:
    content = decode(body, dict[str, Any])
    return msgspec.json.encode({**content, where: {**_dict(content, where), "uid": uid}})


def _dict(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise ProtocolError(f"cannot read the request: {key} is no object")
    return found


def _without_ours(patch: bytes) -> bytes:
    """A node's patch of its status without the annotations that only hubs write.  What is no such patch stays as it is."""
    try:
        body = msgspec.json.decode(patch)
    except UNREADABLE:
        return patch  # the API says what is wrong with it
    metadata = body.get("metadata") if isinstance(body, dict) else None
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if isinstance(annotations, dict):
        for name in HUB_ANNOTATIONS:
            annotations.pop(name, None)
    # encoded anew even then: a key that stood twice would be read otherwise elsewhere
    return msgspec.json.encode(body)


def _mapping(message: Message) -> dict[str, Any]:
    """An object with its metadata.  Raises ProtocolError."""
    body = message.decode(dict[str, Any])
    if not isinstance(body.setdefault("metadata", {}), dict):
        raise ProtocolError("cannot read the object: its metadata is none")
    return body


def _strings(meta: dict[str, Any], key: str) -> dict[str, Any]:
    """Labels or annotations.  Raises ProtocolError."""
    found = meta.get(key) or {}
    if not isinstance(found, dict):
        raise ProtocolError(f"cannot read the object: {key} is no object")
    return found


def _answer(message: Message, content: bytes, *, version: str = "") -> Done:
    return answer(
        reply(message, content, source=Source.EDGECONTROLLER, group=Group.RESOURCE, version=version)
    )


def _object(message: Message, found: Object) -> Done:
    content = msgspec.json.encode(ObjectResp(Object=msgspec.Raw(found.raw)))
    return _answer(message, content, version=found.version)


def _failed(message: Message, request: tuple[str, str], status: Status) -> Done:
    """The failure in the form that the edge expects for its request."""
    if request in SILENT:
        return FINISHED
    if request in OBJECT_RESP:
        return _answer(message, msgspec.json.encode(ObjectResp(Err=_ErrStatus(ErrStatus=status))))
    return _answer(message, msgspec.json.encode(_ErrStatus(ErrStatus=status)))
