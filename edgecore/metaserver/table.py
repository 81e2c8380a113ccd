"""Objects as the table that kubectl prints.  Pure; the time is given.

A kubectl asks for a table first and prints what it gets; without one it shows names and ages only.  What is printed of each
kind is the same with and without the cloud: see `beehive.printing`, which is loaded when somebody asks for a table.

Source: Kubernetes, meta/v1 Table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from beehive import kinds
from beehive.message import UNREADABLE
from edgecore.metaserver.objects import Gvr

if TYPE_CHECKING:
    from beehive.printing.custom import Column

Json = dict[str, Any]
DEFINITIONS = Gvr("apiextensions.k8s.io", "v1", "customresourcedefinitions")


def wanted(accept: str) -> bool:
    """Whether a client would rather have a table than anything else."""
    first = accept.split(",")[0].replace(" ", "").lower()
    parts = first.split(";")
    return parts[0] == "application/json" and {"as=table", "v=v1", "g=meta.k8s.io"} <= set(parts[1:])


def table(
    gvr: Gvr,
    values: Iterable[bytes],
    *,
    version: int,
    now: float,
    more: str = "",
    include: str = "Metadata",
    head: bool = True,
    custom: Sequence[Column] | None = None,
) -> bytes:
    """more: the token that continues the list.   include: what of each object goes with its row, as `includeObject` says.
    head: with the columns' definitions, which a watch sends once only.   custom: the columns of a kind that is not built in;
    without them those of our own kinds are known, and others have a name and an age."""
    from beehive.printing import ours, printed

    key = ("", gvr.plural) if gvr.group == "events.k8s.io" else (gvr.group, gvr.plural)
    if custom is None:
        custom = ours.COLUMNS.get((gvr.group, gvr.version, gvr.plural))
    at = datetime.fromtimestamp(now, UTC)
    rows = []
    for value in values:
        found: Json = msgspec.json.decode(value)
        rows.append(printed.row(printed.cells(key, found, at, custom), found, include))
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return msgspec.json.encode(printed.table(printed.columns(key, custom) if head else [], rows, metadata))


def definition_of(gvr: Gvr) -> str:
    """The name of the definition that says how `gvr` is printed; empty when nobody has to be asked."""
    if not kinds.is_custom(gvr.group):
        return ""
    return "" if gvr.group.endswith((".kubeedge.io", "skerry.dev")) else f"{gvr.plural}.{gvr.group}"


def keep_columns(definition: bytes, gvr: Gvr) -> bytes | None:
    """What a CustomResourceDefinition says of printing `gvr`, as it is kept; None when it says nothing that can be used."""
    try:
        versions = msgspec.json.decode(definition)["spec"]["versions"]
        found = next((item for item in versions if item["name"] == gvr.version), None)
        kept = msgspec.json.encode(
            {"additionalPrinterColumns": (found or {}).get("additionalPrinterColumns")}
        )
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return None
    return kept if found is not None and kept_columns(kept) is not None else None


def kept_columns(kept: bytes) -> Sequence[Column] | None:
    from beehive.printing import custom

    try:
        return custom.read_columns(msgspec.json.decode(kept))
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return None
