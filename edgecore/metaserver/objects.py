"""Objects as bytes, with what selecting and comparing them needs read out.  Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from beehive import kinds, selectors
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE
from beehive.selectors import FieldSelector, LabelSelector

MAX_VERSION = 2**63 - 1
PIECE = 64 * 1024


class _Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None


class _Object(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    metadata: _Meta = _Meta()


class _ListMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    kind: str = ""
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


_decoder = msgspec.json.Decoder(_Object)
_list_decoder = msgspec.json.Decoder(_List)


@dataclass(frozen=True, slots=True)
class Gvr:
    """A resource in one version.  `group` is empty for core."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.group or 'core'}/{self.version}/{self.plural}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def kind(self) -> str:
        """From the table, or a guess."""
        return kinds.kind_name(self.group, self.plural)

    @property
    def wires(self) -> frozenset[str]:
        """How a message's path may spell the kind."""
        return frozenset({self.kind.lower(), kinds.wire_kind(self.plural)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """`namespace` is empty for a cluster-scoped one; `version` is 0 for one without; `value` says its kind and apiVersion."""

    namespace: str
    name: str
    uid: str
    version: int
    labels: Mapping[str, str]
    value: bytes

    def newer_than(self, other: Object | None) -> bool:
        return other is None or self.version > other.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer to a list.  `more`: the token to go on with; empty when this is the end.   left: how many come after it."""

    objects: list[Object]
    version: int
    more: str
    left: int = 0


def read(value: bytes, gvr: Gvr) -> Object | None:
    """An object of `gvr`, or None when it is one of another group or version.

    Items of a list carry no kind: it is put in front.  Raises ProtocolError: not an object, or one without a name."""
    try:
        # the decoder looks only at the texts that it wants: whoever reads all of it later must not be the first to see
        value.decode()
        found = _decoder.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read an object of {gvr}: {error}") from error
    if found.api_version and found.api_version != gvr.api_version:
        return None
    if not found.api_version:
        row = kinds.known(gvr.group, gvr.plural)
        if row is not None and row.version != gvr.version:
            return None
    if not found.metadata.name:
        raise ProtocolError(f"an object of {gvr} has no name")
    if not (found.kind and found.api_version):
        value = _named(value, found, gvr)
    return Object(
        namespace=found.metadata.namespace,
        name=found.metadata.name,
        uid=found.metadata.uid,
        version=read_version(found.metadata.resource_version),
        labels=found.metadata.labels or {},
        value=value,
    )


def is_named(value: bytes) -> bool:
    """Whether this is an object that can be kept: a review or a Status has no name.  Raises ProtocolError."""
    try:
        value.decode()
        return bool(_decoder.decode(value).metadata.name)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the object: {error}") from error


def _named(value: bytes, found: _Object, gvr: Gvr) -> bytes:
    head = b""
    if not found.kind:
        head += b'"kind":' + msgspec.json.encode(gvr.kind) + b","
    if not found.api_version:
        head += b'"apiVersion":' + msgspec.json.encode(gvr.api_version) + b","
    rest = value.lstrip()[1:]
    if rest.lstrip()[:1] == b"}":
        head = head[:-1]
    return b"{" + head + rest


def read_version(text: str) -> int:
    """A resourceVersion as a number; 0 when there is none or it is not one that etcd gives."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return min(int(text), MAX_VERSION)
    return 0


def read_list(body: bytes, gvr: Gvr) -> Page:
    """A list as the API server answers it.  Raises ProtocolError."""
    try:
        found = _list_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the list of {gvr}: {error}") from error
    objects = [item for raw in found.items or () if (item := read(bytes(raw), gvr)) is not None]
    return Page(
        objects=objects,
        version=read_version(found.metadata.resource_version),
        more=found.metadata.continue_,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list or watch selects.  `raw_labels` and `raw_fields` are the texts it was made from."""

    gvr: Gvr
    namespace: str = ""
    labels: LabelSelector = selectors.EVERYTHING
    fields: FieldSelector = selectors.ANY_FIELD
    raw_labels: str = ""
    raw_fields: str = ""

    @classmethod
    def parse(cls, gvr: Gvr, namespace: str, labels: str, fields: str) -> Filter:
        """Raises BadSelector."""
        return cls(
            gvr=gvr,
            namespace=namespace,
            labels=selectors.parse_labels(labels),
            fields=selectors.parse_fields(fields, selectors.supported_fields((gvr.group, gvr.plural))),
            raw_labels=labels,
            raw_fields=fields,
        )

    @property
    def narrow(self) -> bool:
        """Whether more is asked for than a namespace."""
        return bool(self.labels or self.fields)

    def matches(self, found: Object) -> bool:
        if self.namespace and found.namespace != self.namespace:
            return False
        if not self.labels.matches(found.labels):
            return False
        if not self.fields:
            return True
        values = {"metadata.name": found.name, "metadata.namespace": found.namespace}
        if any(path not in values for path, _, _ in self.fields.terms):
            body: dict[str, Any] = msgspec.json.decode(found.value)
            values |= selectors.field_values((self.gvr.group, self.gvr.plural), body)
        return self.fields.matches(values)


def with_status(found: Object, status: bytes, version: int) -> Object:
    """The same object with another status, in at least that version.  Raises ProtocolError."""
    version = max(found.version, version)
    try:
        whole = msgspec.json.decode(found.value, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(whole["metadata"], type=dict[str, msgspec.Raw])
    except (*UNREADABLE, KeyError) as error:
        raise ProtocolError(f"cannot read {found.namespace}/{found.name}: {error}") from error
    metadata["resourceVersion"] = msgspec.Raw(msgspec.json.encode(str(version)))
    whole["metadata"] = msgspec.Raw(msgspec.json.encode(metadata))
    whole["status"] = msgspec.Raw(status)
    return replace(found, version=version, value=msgspec.json.encode(whole))


def tombstone(gvr: Gvr, namespace: str, name: str, uid: str, version: int) -> bytes:
    """What can be said of an object of which nothing is left but its name."""
    metadata: dict[str, str] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if uid:
        metadata["uid"] = uid
    if version > 0:
        metadata["resourceVersion"] = str(version)
    return msgspec.json.encode({"kind": gvr.kind, "apiVersion": gvr.api_version, "metadata": metadata})


class _Where(msgspec.Struct, frozen=True, kw_only=True):
    """What the token of a list says: the state of the mirror that it is of, and the last object that was sent."""

    at: tuple[int, int]
    last: tuple[str, str]


def page(found: list[Object], version: int, *, state: int, limit: int, token: str = "") -> Page:
    """The next `limit` of what was found here (0: all), after those that `token` says were sent.

    state: changes whenever something here does.  Raises ProtocolError: the token is of another state, or of the cloud."""
    at = (state, version)
    rest = sorted(found, key=lambda item: (item.namespace, item.name))
    if token:
        try:
            said = msgspec.json.decode(base64.urlsafe_b64decode(token), type=_Where)
        except (*UNREADABLE, ValueError) as error:
            raise ProtocolError("the continue token is not of this node") from error
        if said.at != at:
            raise ProtocolError("what is here has changed since the list began")
        rest = [item for item in rest if (item.namespace, item.name) > said.last]
    if not limit or len(rest) <= limit:
        return Page(objects=rest, version=version, more="")
    sent = rest[:limit]
    where = _Where(at=at, last=(sent[-1].namespace, sent[-1].name))
    more = base64.urlsafe_b64encode(msgspec.json.encode(where)).decode()
    return Page(objects=sent, version=version, more=more, left=len(rest) - limit)


def list_body(gvr: Gvr, found: Page) -> Iterator[bytes]:
    """A list as an API server answers it, in pieces of about PIECE bytes: the whole may be larger than everything else here."""
    head = msgspec.json.encode(
        {
            "kind": f"{gvr.kind}List",
            "apiVersion": gvr.api_version,
            "metadata": {"resourceVersion": str(found.version)}
            | ({"continue": found.more, "remainingItemCount": found.left} if found.more else {}),
        }
    )
    piece = bytearray(head[:-1] + b',"items":[')
    for number, item in enumerate(found.objects):
        if number:
            piece += b","
        piece += item.value
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece + b"]}\n")


def event(kind: str, value: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"' + kind.encode() + b'","object":' + value + b"}\n"


def bookmark(gvr: Gvr, version: int, *, initial_end: bool = False) -> bytes:
    """The line that says how far a watch has come.  `initial_end`: everything that there is has been sent."""
    metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    body = {"kind": gvr.kind, "apiVersion": gvr.api_version, "metadata": metadata}
    return event("BOOKMARK", msgspec.json.encode(body))
