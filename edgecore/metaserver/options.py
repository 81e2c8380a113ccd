"""The options that a client puts into a query, as the objects that an Application carries.  Pure.

Source: Kubernetes, meta/v1 GetOptions, ListOptions, CreateOptions, UpdateOptions, PatchOptions, DeleteOptions."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from beehive.application import Verb
from beehive.message import UNREADABLE
from edgecore.metaserver import status
from edgecore.metaserver.request import Info, Query, flag

PATCH_TYPES = frozenset(
    {
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    }
)
_LIST = ("labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch", "continue")
_WRITE = ("fieldManager", "fieldValidation")

_INTEGER = re.compile(r"-?[0-9]{1,18}")


def read_integer(query: Query, name: str) -> int | None:
    """Raises ApiError 400."""
    text = query.get(name, "")
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise status.bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
    return int(text)


def read_version(query: Query) -> int | None:
    """The version to watch from; None for "whatever there is".  Raises ApiError 400."""
    text = query.get("resourceVersion", "")
    if text in ("", "0"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise status.bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text[:64]}": '
            f'strconv.ParseUint: parsing "{text[:64]}": invalid syntax'
        )
    return int(text)


def check_list(query: Query, *, watch: bool) -> None:
    """What of the versions asked for makes no sense together.  Raises ApiError 422, 400.

    Source: apimachinery, pkg/apis/meta/internalversion/validation."""
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    read_version(query)
    if "sendInitialEvents" in query:
        if not watch:
            raise status.bad_list_options(
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"
            )
        if match != "NotOlderThan":
            raise status.bad_list_options(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        return
    if not match:
        return
    if watch:
        raise status.bad_list_options(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    if not version:
        raise status.bad_list_options(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if query.get("continue"):
        raise status.bad_list_options(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
        )
    if match not in ("Exact", "NotOlderThan"):
        raise status.bad_list_options(
            f'resourceVersionMatch: Unsupported value: "{match[:64]}": supported values: "Exact", "NotOlderThan", ""'
        )
    if match == "Exact" and version == "0":
        raise status.bad_list_options(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        )


def check_held(query: Query, current: int) -> None:
    """Whether a list of what is here now is what was asked for.  Raises ApiError 410 (another state), 504 (a later one)."""
    wanted = read_version(query)
    if wanted is None:
        return
    if query.get("resourceVersionMatch") == "Exact" and wanted != current:
        raise (
            status.expired(str(wanted), max(1, current))
            if wanted < current
            else status.too_new(wanted, current)
        )
    if query.get("resourceVersionMatch") == "NotOlderThan" and wanted > current:
        raise status.too_new(wanted, current)


def for_get(query: Query) -> bytes:
    return _encode({key: query[key] for key in ("resourceVersion",) if query.get(key)})


def for_list(query: Query) -> bytes:
    """Raises ApiError 400."""
    found: dict[str, Any] = {key: query[key] for key in _LIST if query.get(key)}
    limit = read_integer(query, "limit")
    if limit:
        found["limit"] = limit
    return _encode(found)


def for_write(query: Query, kind: str) -> bytes:
    """`kind`: CreateOptions or UpdateOptions."""
    return _encode({"kind": kind, "apiVersion": "meta.k8s.io/v1"} | _written(query))


def for_delete(query: Query, body: bytes) -> bytes:
    """The body counts; without one the query does.  Raises ApiError 400."""
    if body:
        try:
            found = msgspec.json.decode(body, type=dict[str, Any])
        except UNREADABLE as error:
            raise status.bad_request(f"the delete options cannot be read: {error}") from error
        return _encode(found)
    made: dict[str, Any] = {}
    grace = read_integer(query, "gracePeriodSeconds")
    if grace is not None:
        made["gracePeriodSeconds"] = grace
    if query.get("propagationPolicy"):
        made["propagationPolicy"] = query["propagationPolicy"]
    if query.get("dryRun"):
        made["dryRun"] = [query["dryRun"]]
    return _encode(made)


def for_patch(info: Info, query: Query, content_type: str, body: bytes) -> bytes:
    """Raises ApiError 415."""
    form = content_type.partition(";")[0].strip().lower()
    if form not in PATCH_TYPES:
        raise status.ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
    more = _written(query)
    if "force" in query:
        more["force"] = flag(query, "force")
    return _encode(
        {
            "Name": info.name,
            "PatchType": form,
            "Data": base64.b64encode(body).decode(),
            "Options": more,
            "Subresources": [info.subresource] if info.subresource else [],
        }
    )


def update_verb(info: Info) -> tuple[str, str]:
    """The Application's verb for a PUT, and its subresource."""
    if info.subresource == "status":
        return Verb.UPDATE_STATUS, ""
    return Verb.UPDATE, info.subresource


def _written(query: Query) -> dict[str, Any]:
    found: dict[str, Any] = {key: query[key] for key in _WRITE if query.get(key)}
    if query.get("dryRun"):
        found["dryRun"] = [query["dryRun"]]
    return found


def _encode(found: dict[str, Any]) -> bytes:
    return msgspec.json.encode(found)
