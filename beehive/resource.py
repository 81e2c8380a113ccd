"""The resource path in a message's route: parse it, format it, check its parts.  Pure.

Inside the cloud a path reads `node/<node>/<namespace>/<type>[/<name>]`; on the wire the first two elements are cut.
Cluster-scoped objects use the literal namespace `null`.  Source: KubeEdge's hub, see its TrimMessage."""

from __future__ import annotations

import re
from typing import NamedTuple

from beehive.errors import ProtocolError

CLUSTER = "null"
"""The namespace of objects that have none."""

MAX_NAME = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_EVENT_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?")
_TYPE = re.compile(r"[a-z][a-z0-9]*")


class Resource(NamedTuple):
    """`namespace` is `null` for cluster-scoped objects; `name` is empty where the path names a kind."""

    namespace: str
    type: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.type}/{self.name}" if self.name else f"{self.namespace}/{self.type}"

    @property
    def key(self) -> str:
        """How the edge's store knows the object."""
        return str(self)


def parse(path: str) -> Resource:
    """Read `<ns>/<type>[/<name>]`.  Raises ProtocolError: every part is checked, since names become file paths.

    RBAC names may hold colons, so `:` is let through in names; slashes, dots alone and control characters are not."""
    if len(path) > 2 * MAX_NAME + 80:
        raise ProtocolError(f"resource path of {len(path)} characters is too long")
    parts = path.split("/")
    if len(parts) not in (2, 3):
        raise ProtocolError(f"resource {path!r} is not <namespace>/<type>/<name>")
    namespace, kind = parts[0], parts[1]
    name = parts[2] if len(parts) == 3 else ""
    if not is_name(namespace):
        raise ProtocolError(f"resource {path!r} has a bad namespace")
    if not _TYPE.fullmatch(kind):
        raise ProtocolError(f"resource {path!r} has a bad type")
    if name and not (len(name) <= MAX_NAME and _EVENT_NAME.fullmatch(name) and ".." not in name):
        raise ProtocolError(f"resource {path!r} has a bad name")
    return Resource(namespace, kind, name)


def make(kind: str, name: str = "", namespace: str = "") -> Resource:
    """A path from parts; an empty namespace means cluster-scoped."""
    return Resource(namespace or CLUSTER, kind, name)


def is_name(text: str) -> bool:
    """Whether `text` is a DNS-1123 subdomain of at most 253 characters."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None and ".." not in text


def for_node(node: str, path: str) -> str:
    """The cloud-internal form of a wire path."""
    return f"node/{node}/{path}"


def trim(path: str) -> str:
    """The wire form of a cloud-internal path.  Only a full `node/<node>/…` is cut, never a namespace that begins so."""
    parts = path.split("/", 2)
    return parts[2] if len(parts) == 3 and parts[0] == "node" else path
