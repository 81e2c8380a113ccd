"""The frames that the node's parts send up of their own accord, as KubeEdge's cloud expects them.  Pure.

Source: protocol notes on the hub, 6.2."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive import clock, resource
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE, Group, Message, Op, Source, new, reply
from edgecore.metamanager.process import Object

# conditions of a pod that its node writes; those of the second line come and go
_PASSING = ("PodResizePending", "PodResizeInProgress")
OWN_CONDITIONS = frozenset(
    {
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
        "DisruptionTarget",
        "HeldUpgrade",
        "AllContainersRestarting",
        *_PASSING,
    }
)


def pod_key(uid: str) -> str:
    """What the statuses of a pod coalesce by, and its end replaces."""
    return f"pod/{uid}"


def pod_status(namespace: str, name: str, uid: str, status: bytes) -> Message:
    """A pod's whole status.  Raises: ProtocolError."""
    where = resource.parse(f"{namespace}/podpatch/{name}")
    return up(Op.PATCH, str(where), pod_patch(uid, status).decode())


def pod_gone(namespace: str, name: str, uid: str) -> Message:
    """A pod that ended and was cleaned up may go from the API.  Raises: ProtocolError."""
    where = resource.parse(f"{namespace}/pod/{name}")
    return up(Op.DELETE, str(where), {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})


def event_path(event: bytes) -> str:
    """Where a core/v1 Event belongs.  Raises: ProtocolError."""
    try:
        meta = msgspec.json.decode(event, type=Object).metadata
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the event: {error}") from error
    if not meta.name:
        raise ProtocolError("the event has no name")
    return str(resource.parse(f"{meta.namespace or 'default'}/event/{meta.name}"))


def pod_patch(uid: str, status: bytes) -> bytes:
    """The strategic merge patch that makes a pod's status this one.

    A merge keeps what the patch does not name.  So the two texts that come and go are named always, also those of each
    condition, and the addresses, which would be merged by address, are replaced.  Conditions that others write (readiness
    gates) are left to them: what this node last heard of them may be old.   Raises: ProtocolError."""
    try:
        fields = msgspec.json.decode(status, type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the pod's status: {error}") from error
    for key in ("reason", "message"):
        fields.setdefault(key, msgspec.Raw(b"null"))
    for key in ("podIPs", "hostIPs"):
        addresses = bytes(fields.get(key, b"")).strip()
        if addresses.startswith(b"["):
            inner = addresses[1:-1].strip()
            fields[key] = msgspec.Raw(b'[{"$patch":"replace"}' + (b"," + inner if inner else b"") + b"]")
    if "conditions" in fields:
        fields["conditions"] = msgspec.Raw(_conditions(fields["conditions"]))
    return msgspec.json.encode({"metadata": {"uid": uid}, "status": fields})


def _conditions(raw: msgspec.Raw) -> bytes:
    """A pod's conditions as elements of a patch.  Raises: ProtocolError."""
    try:
        found = msgspec.json.decode(raw, type=list[dict[str, Any]] | None) or []
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the pod's conditions: {error}") from error
    blank: dict[str, Any] = {"reason": None, "message": None}
    ours = [blank | one for one in found if one.get("type") in OWN_CONDITIONS]
    present = {one["type"] for one in ours}
    gone = [{"$patch": "delete", "type": kind} for kind in _PASSING if kind not in present]
    return msgspec.json.encode([*ours, *gone])


_VOLUME_OPS = frozenset(
    {"createvolume", "deletevolume", "controllerpublishvolume", "controllerunpublishvolume"}
)


def declined(part: str, message: Message, node: str) -> Message | None:
    """The answer to what this node does not do, so that whoever asked need not wait until he gives up; None: it has none.

    A node task is reported as failed in its first step; a volume that a CSI driver wants is answered with nothing, which is
    a failure there.   Source: KubeEdge, edge/pkg/taskmanager, metamanager/process.go."""
    if part == "taskmanager" and message.route.resource.endswith(f"/node/{node}"):
        return new(
            source=Source.WEBSOCKET,
            group=Group.HUB,
            operation="UpdateNodeActionStatus",
            resource=message.route.resource,
            content={
                "action": message.route.operation,
                "succ": False,
                "finishTime": clock.rfc3339(),
                "reason": "this node carries out no node tasks",
                "extend": "",
            },
        )
    if part == "metamanager" and message.route.operation in _VOLUME_OPS:
        return reply(message, None)
    return None


def up(operation: str, where: str, content: object) -> Message:
    """A frame of the kubelet's kind."""
    return new(source=Source.EDGED, group=Group.META, operation=operation, resource=where, content=content)
