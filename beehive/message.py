"""The message that crosses the link, in both directions.

The JSON is KubeEdge's message model: a header, a route and a content.  `content` stays raw bytes until its owner decodes
it, so that the hub can pass an object on without building it.  Pure; ids and times come from the caller or `new`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from beehive import clock
from beehive.errors import ProtocolError

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)
"""What msgspec raises for JSON that it cannot read: bytes that are no UTF-8 in a value that was only skipped before are found
when it is decoded, and depth is measured from where the decoder is called."""

OK = msgspec.Raw(b'"OK"')
"""The content of a plain acknowledgement: the JSON string OK."""

NULL = msgspec.Raw(b"null")


class Op:
    """Operations on the wire.  Those after `ACK` are ours, used only with a peer that announced our protocol."""

    INSERT = "insert"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    QUERY = "query"
    RESPONSE = "response"
    ERROR = "error"
    UPLOAD = "upload"
    GET = "get"
    KEEPALIVE = "keepalive"
    ACK = "ack"
    """content: JSON array of message ids that are committed at the sender."""
    INVENTORY = "inventory"
    """Up: an `Inventory`; the edge's first frame.   Down: no content; the edge is asked for one more."""
    DIGEST = "digest"
    """content: a `Digest`; sent now and then, so that a silent difference is found without a reconnect."""
    JOIN = "join"
    """content: a `JoinRequest`; the only frame a connection without certificate may send."""
    RENEW = "renew"
    """content: a `RenewRequest` on an identified connection."""
    SUCCESSION = "succession"
    """Down: a `succession.Chain`.   Up: a JSON string, the text of the `succession.Trust` that the edge has now."""


class Source:
    """Who speaks.  The hub routes by it, so these strings are part of the wire."""

    EDGECONTROLLER = "edgecontroller"
    DEVICECONTROLLER = "devicecontroller"
    DYNAMICCONTROLLER = "dynamiccontroller"
    POLICYCONTROLLER = "policycontroller"
    CLOUDHUB = "cloudhub"
    WEBSOCKET = "websocket"
    EDGED = "edged"
    METAMANAGER = "metamanager"
    METASERVER = "metaserver"
    TWIN = "twin"
    BUS = "bus"


class Group:
    """To whom.  The edge routes by it."""

    RESOURCE = "resource"
    TWIN = "twin"
    META = "meta"
    USER = "user"
    HUB = "hub"
    TASKMANAGER = "taskmanager"


RESTORED = "restored"
"""header.type of a push to an edge of ours: the API went back to an older state, so an older version is right."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """`timestamp` is in milliseconds; `resourceversion` is a decimal string or empty."""

    msg_id: str
    timestamp: int
    parent_msg_id: str | msgspec.UnsetType = msgspec.UNSET
    resourceversion: str | msgspec.UnsetType = msgspec.UNSET
    sync: bool | msgspec.UnsetType = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a message comes from, where it goes, and what about.  `resource` is parsed by beehive.resource."""

    source: str = ""
    destination: str = ""
    group: str = ""
    operation: str = ""
    resource: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One frame.  `content` is any JSON value, undecoded; absent counts as null."""

    header: Header
    route: Route
    content: msgspec.Raw = NULL

    @property
    def id(self) -> str:
        return self.header.msg_id

    @property
    def parent(self) -> str:
        """The id of the message that this one answers, or an empty string."""
        return self.header.parent_msg_id or ""

    @property
    def version(self) -> str:
        """The resourceVersion it carries, or an empty string."""
        return self.header.resourceversion or ""

    def decode(self, as_type: type[T]) -> T:
        """The content as `as_type`.  Raises ProtocolError naming the path of the first wrong value."""
        try:
            return msgspec.json.decode(self.content, type=as_type)
        except UNREADABLE as error:
            raise ProtocolError(
                f"cannot read the content of {self.route.resource or self.route.operation!r}: {error}"
            ) from error

    def text(self) -> str:
        """The content if it is a JSON string, unquoted; otherwise its JSON text (Go's GetContentData)."""
        raw = bytes(self.content)
        if raw.lstrip()[:1] == b'"':
            return self.decode(str)
        return raw.decode("utf-8", "replace")

    @property
    def is_restored(self) -> bool:
        """Whether it carries an older version on purpose."""
        return self.header.type == RESTORED

    def restored(self) -> Message:
        """The same, said to be older on purpose."""
        return msgspec.structs.replace(self, header=msgspec.structs.replace(self.header, type=RESTORED))

    @property
    def is_ok(self) -> bool:
        return bytes(self.content).strip() == b'"OK"'


def raw(value: Any) -> msgspec.Raw:
    """Any JSON-able value as undecoded content; bytes are taken as JSON already."""
    if isinstance(value, msgspec.Raw):
        return value
    if isinstance(value, bytes):
        return msgspec.Raw(value)
    return msgspec.Raw(msgspec.json.encode(value))


def new(
    *,
    source: str,
    group: str,
    operation: str,
    resource: str,
    content: Any = NULL,
    version: str = "",
    parent: str = "",
    msg_id: str | None = None,
) -> Message:
    """A message with a fresh id and the time of now.  `content`: a value, or JSON as bytes or Raw."""
    header = Header(
        msg_id=msg_id or str(uuid.uuid4()),
        timestamp=clock.wall_ms(),
        parent_msg_id=parent or msgspec.UNSET,
        resourceversion=version or msgspec.UNSET,
    )
    route = Route(source=source, group=group, operation=operation, resource=resource)
    return Message(header=header, route=route, content=raw(content))


def reply(
    to: Message,
    content: Any = OK,
    *,
    source: str | None = None,
    group: str | None = None,
    operation: str = Op.RESPONSE,
    version: str = "",
) -> Message:
    """An answer to `to`: same resource, its id as parent.  An edge's acknowledgement copies source and group too."""
    return new(
        source=to.route.source if source is None else source,
        group=to.route.group if group is None else group,
        operation=operation,
        resource=to.route.resource,
        content=content,
        version=version,
        parent=to.header.msg_id,
    )


class InventoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """One object that the edge holds: its resource path on the wire and the resourceVersion applied."""

    resource: str
    version: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What the edge holds when it connects: uid → entry.  `session` is the last session number it knew."""

    objects: dict[str, InventoryEntry]
    session: int = 0


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge holds, in short: how many objects, and a hash over their uids and versions."""

    count: int
    sum: str


def digest(held: Mapping[str, int]) -> Digest:
    """Of uid → version; -1 and 0 are both a version that is not known."""
    lines = "\n".join(f"{uid} {max(0, version)}" for uid, version in sorted(held.items()))
    return Digest(count=len(held), sum=hashlib.sha256(lines.encode()).hexdigest()[:32])


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is the id and secret, without the CA hash; `csr` is PEM."""

    node: str
    token: str
    csr: str


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """PEM texts."""

    certificate: str
    ca: str


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    csr: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The content of our own `error` answers: `reason` CamelCase, `message` for people.  With another reason than one of
    FINAL_REASONS the same may be tried again."""

    reason: str
    message: str


FINAL_REASONS = frozenset(
    {
        "NotFound",
        "Conflict",
        "Forbidden",
        "Invalid",
        "BadRequest",
        "Unauthorized",
        "Refused",
        "ProtocolError",
        "InternalError",
    }
)
"""Reasons of a Failure after which sending the same again cannot help."""
