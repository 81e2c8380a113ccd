"""An object as a client is shown it, as it is stored, and as a client gives it.  Pure."""

from __future__ import annotations

from typing import Any

from cloudcore.standalone import shapes
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.status import bad_request

Json = dict[str, Any]


def ordered(kind: Kind, body: Json) -> Json:
    """The same object with kind and apiVersion first, which lists rely on."""
    rest = {name: value for name, value in body.items() if name not in ("kind", "apiVersion")}
    return {"kind": kind.kind, "apiVersion": kind.api_version, **rest}


def stored_form(kind: Kind, body: Json) -> Json:
    """What goes into the store for an object in `kind`'s version: the storage version of it."""
    if kind.views is not None:
        made = shapes.STORED[kind.key](body)
        first = {"kind": made["kind"], "apiVersion": made["apiVersion"]}
        return {**first, **{n: v for n, v in made.items() if n not in first}}
    body = ordered(kind, body)
    if kind.storage_version and kind.storage_version != kind.version:
        body["apiVersion"] = f"{kind.group}/{kind.storage_version}"
    return body


def present(kind: Kind, body: Json) -> Json:
    """A stored object in `kind`'s version."""
    if kind.views is not None:
        body = shapes.SHOWN[kind.key](body)
    return ordered(kind, body)


def check_type(kind: Kind, body: Json) -> None:
    """apiVersion and kind, where given, must be those of the URL.  Raises ApiError."""
    given_kind, given_version = body.get("kind"), body.get("apiVersion")
    if given_kind in (None, "") and given_version in (None, ""):
        return
    given_kind = given_kind or kind.kind
    given_version = given_version or kind.api_version
    if given_kind == kind.kind and given_version == kind.api_version:
        return
    short = str(given_version).rpartition("/")[2]
    if given_kind != kind.kind:
        internal_group = kind.group.partition(".")[0] or "core"
        raise bad_request(
            f'{given_kind} in version "{short}" cannot be handled as a {kind.kind}: converting '
            f"({short}.{given_kind}) to ({internal_group}.{kind.kind}): unknown conversion"
        )
    raise bad_request(
        f'{given_kind} in version "{short}" cannot be handled as a {kind.kind}: no kind "{given_kind}" is registered '
        f'for version "{given_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    )
