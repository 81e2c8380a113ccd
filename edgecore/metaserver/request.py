"""What an HTTP request asks of the API: verb, resource, namespace, name.  Pure.

Source: apiserver, pkg/endpoints/request/requestinfo.go.  Stricter than it in one point: every part of a path is checked to be a
possible name, since names become keys and paths further on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from beehive import resource
from beehive.application import is_segment
from beehive.errors import ProtocolError

MAX_TARGET = 8 * 1024
"""Bytes of path and query.  Selectors are the longest thing in them."""

_VERSION = re.compile(r"v[0-9][0-9a-z]{0,30}")
_PLURAL = re.compile(r"[a-z][a-z0-9]{0,252}")
_NAMESPACE_PARTS = frozenset({"status", "finalize"})
_TRUE = frozenset({"1", "true", "True", "TRUE", "t", "T"})

Query = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """`path` is set for requests that are about no resource; the rest is empty then but `verb`."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def split(target: str) -> tuple[str, Query]:
    """Path and query of a request line's target; of a parameter given twice the first counts.  Raises ProtocolError."""
    if len(target) > MAX_TARGET:
        raise ProtocolError(f"target of {len(target)} characters is too long")
    path, _, query = target.partition("?")
    try:
        found = parse_qs(query, keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError as error:
        raise ProtocolError("cannot read the query") from error
    return path, {key: values[0] for key, values in found.items()}


def flag(query: Query, name: str) -> bool:
    """A boolean parameter as Go reads it; present without a value counts as true."""
    value = query.get(name)
    return value is not None and (value == "" or value in _TRUE)


def parse(method: str, path: str, query: Query) -> Info:
    """Read a request.  Raises ProtocolError when a part of the path cannot be a name."""
    plain = _verb(method, named=True)
    parts = [unquote(part, errors="replace") for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return Info(verb=method.lower(), path=path)
    if (group and not resource.is_name(group)) or not _VERSION.fullmatch(version):
        raise ProtocolError("the path's group or version is not one")
    watched = False
    if rest[0] == "watch" and len(rest) > 1:
        watched, rest = True, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if not resource.is_name(namespace):
            raise ProtocolError("the path's namespace is not a name")
        if len(rest) > 2 and rest[2] not in _NAMESPACE_PARTS:
            rest = rest[2:]
    if len(rest) > 3 or not _PLURAL.fullmatch(rest[0]):
        raise ProtocolError("the path is not <resource>/<name>/<subresource>")
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if len(rest) > 1 and not is_segment(name):
        raise ProtocolError("the path's name is not one")
    if len(rest) > 2 and not _PLURAL.fullmatch(subresource):
        raise ProtocolError("the path's subresource is not one")
    verb = plain if name else _verb(method, named=False)
    if verb in ("get", "list") and (watched or (not subresource and flag(query, "watch"))):
        verb = "watch"
    if not name and verb in ("list", "watch", "deletecollection"):
        # RBAC may allow a list of exactly one name
        only = re.fullmatch(r"metadata\.name={1,2}([^,=!]+)", query.get("fieldSelector", ""))
        name = only[1] if only and is_segment(only[1]) else ""
    return Info(
        verb=verb,
        group=group,
        version=version,
        resource=rest[0],
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


def _verb(method: str, *, named: bool) -> str:
    match method:
        case "GET" | "HEAD":
            return "get" if named else "list"
        case "POST":
            return "create"
        case "PUT":
            return "update"
        case "PATCH":
            return "patch"
        case "DELETE":
            return "delete" if named else "deletecollection"
        case _:
            return method.lower()
