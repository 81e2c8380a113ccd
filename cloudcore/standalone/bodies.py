"""Reads what a client sends: options of a write, objects, patches, options of a delete.  Bounded before memory is taken."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.negotiation import MAX_BODY_BYTES, PATCH_TYPES, load_json, load_object, load_yaml
from cloudcore.standalone.requests import WriteOptions, whole_number, write_options
from cloudcore.standalone.status import (
    ApiError,
    bad_request,
    invalid,
    required,
    too_large,
    unsupported_media_type,
)

Json = dict[str, Any]


async def read(request: web.Request) -> bytes:
    """The body, refused before more than the limit is in memory."""
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    parts, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
        parts.append(chunk)
    return b"".join(parts)


def options_of(request: web.Request) -> WriteOptions:
    """Of a write, from the query.  Raises ApiError."""
    return write_options(request.query, request.headers.get("User-Agent", ""))


async def load(request: web.Request, kind: str, options: WriteOptions) -> tuple[Json, list[str]]:
    """The object that was sent, and the fields that it had twice.  Raises ApiError."""
    data = await read(request)
    content_type = request.headers.get("Content-Type", "")
    return load_object(data, content_type, kind, duplicates=options.field_validation != "Ignore")


def check_duplicates(kind: Kind, faults: list[str], options: WriteOptions) -> None:
    """Refuse fields that were given twice where the client wants that.  Raises ApiError."""
    if faults and options.field_validation == "Strict":
        listed = ", ".join(f'duplicate field "{item}"' for item in faults)
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {listed}"
        )


async def load_patch(request: web.Request, kind: Kind) -> tuple[WriteOptions, str, Any]:
    """Options, type (json, merge, strategic or apply) and body of a patch.  Raises ApiError."""
    media = request.headers.get("Content-Type", "").partition(";")[0].strip()
    patch_type = PATCH_TYPES.get(media)
    if patch_type is None:
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
    if patch_type == "strategic" and kind.custom:
        raise unsupported_media_type([name for name, short in PATCH_TYPES.items() if short != "strategic"])
    options = options_of(request)
    data = await read(request)
    if patch_type != "apply":
        return options, patch_type, load_json(data)
    if not request.query.get("fieldManager"):
        raise invalid(
            "PatchOptions", "meta.k8s.io", "", [required("fieldManager", "is required for apply patch")]
        )
    text = data.lstrip()
    return options, patch_type, load_json(data) if text[:1] == b"{" else load_yaml(data)


async def load_delete_options(request: web.Request) -> DeleteOptions:
    """From the body, or else from the query.  Raises ApiError."""
    data = await read(request)
    body: Json = {}
    if data.strip():
        body, _ = load_object(
            data, request.headers.get("Content-Type", ""), "DeleteOptions", duplicates=False
        )
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        grace = whole_number(request.query, "gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool) or grace < 0):
        raise bad_request("gracePeriodSeconds must be a whole number of at least 0")
    propagation = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents")
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise bad_request(f'invalid propagationPolicy "{propagation}"')
    preconditions = body.get("preconditions") or {}
    dry = body.get("dryRun") or request.query.getall("dryRun", [])
    if dry not in ([], ["All"]):
        raise bad_request("dryRun must be All")
    return DeleteOptions(
        grace_s=grace,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        propagation=propagation,
        dry_run=bool(dry),
    )
