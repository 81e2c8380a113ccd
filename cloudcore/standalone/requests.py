"""Read a request line: which verb on which resource, and with which options.  Pure.

Source: apiserver, pkg/endpoints/request/requestinfo.go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloudcore.standalone.status import bad_request, invalid, invalid_value, unsupported

_WHOLE = re.compile(r"-?[0-9]{1,18}")
"""Of 64 bits, as the API server reads them."""
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_METHODS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a path under /api or /apis names.  `verb` is the one authorization is asked about."""

    verb: str
    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """The path after the subresource (proxy)."""


def parse_target(method: str, path: str, query: Mapping[str, str]) -> Target | None:
    """None when the path is not about a resource."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    verb = _METHODS.get(method, "")
    watch = False
    if rest[0] == "watch" and len(rest) > 1:
        watch, rest = True, rest[1:]
    namespace = ""
    if (
        rest[0] == "namespaces"
        and len(rest) > 2
        and not (group == "" and len(rest) == 3 and rest[2] in NAMESPACE_SUBRESOURCES)
    ):
        namespace, rest = rest[1], rest[2:]
    plural, rest = rest[0], rest[1:]
    name, rest = (rest[0], rest[1:]) if rest else ("", [])
    subresource, rest = (rest[0], rest[1:]) if rest else ("", [])
    if plural == "namespaces" and group == "" and name:
        namespace = name
    if not name and verb == "get":
        verb = "watch" if watch or _truth(query.get("watch")) else "list"
    elif name and verb == "get" and not subresource and (watch or _truth(query.get("watch"))):
        verb = "watch"
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Target(
        verb=verb,
        group=group,
        version=version,
        plural=plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
        rest="/".join(rest),
    )


def _truth(value: str | None) -> bool:
    return value is not None and value.lower() not in ("0", "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """Options of create, update, patch and delete."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool = False


def write_options(query: Mapping[str, str], user_agent: str) -> WriteOptions:
    """Raises ApiError."""
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise invalid("CreateOptions", "meta.k8s.io", "", [unsupported("dryRun", dry, ("All",))])
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise invalid(
            "CreateOptions",
            "meta.k8s.io",
            "",
            [unsupported("fieldValidation", validation, ("Ignore", "Strict", "Warn"))],
        )
    manager = query.get("fieldManager", "")
    if len(manager) > 128 or not manager.isprintable():
        raise invalid(
            "CreateOptions",
            "meta.k8s.io",
            "",
            [invalid_value("fieldManager", manager, "should be printable and at most 128 characters long")],
        )
    return WriteOptions(
        dry_run=dry == "All",
        field_manager=manager or user_agent.split("/")[0][:128] or "unknown",
        field_validation=validation,
        force=_truth(query.get("force")),
    )


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """An optional count.  Raises ApiError."""
    text = query.get(name, "")
    if not text:
        return None
    if not _WHOLE.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
    return int(text)
