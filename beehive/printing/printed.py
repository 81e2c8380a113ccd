"""The table that an API server answers when `kubectl get` asks for one.  Pure; the time is given.

Both ends print: the standalone control plane with a kind's row at hand, an edge without a link with what it has.

Source: Kubernetes, meta/v1 Table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from beehive.printing import core, groups, pods, workloads
from beehive.printing.cells import AGE, NAME, Json, Row
from beehive.printing.custom import Column, custom_cell

ROWS: dict[tuple[str, str], tuple[Row, ...]] = {**pods.ROWS, **core.ROWS, **workloads.ROWS, **groups.ROWS}
"""(group, plural) to what is printed of that kind."""
DEFAULT: tuple[Row, ...] = (NAME, AGE)
"""What is printed of a built-in kind that is not in `ROWS`."""
INVALID = "<invalid>"
_MALFORMED = (AttributeError, KeyError, IndexError, TypeError, ValueError)

Custom = Sequence[Column] | None
"""The printer columns of a custom kind; None for a built-in one."""


def columns(key: tuple[str, str], custom: Custom = None) -> list[Json]:
    """The column definitions.   key: group and plural."""
    if custom is None:
        return [
            _column(name, kind, priority, "name" if name == "Name" else "")
            for name, kind, priority, _ in ROWS.get(key, DEFAULT)
        ]
    found = [_column("Name", "string", 0, "name")]
    for column in custom:
        text = (
            column.description
            or f"Custom resource definition column (in JSONPath format): {column.json_path}"
        )
        found.append(_column(column.name, column.type, column.priority, column.format, text))
    return found


def _column(name: str, kind: str, priority: int, form: str = "", text: str = "") -> Json:
    return {"name": name, "type": kind, "format": form, "description": text or name, "priority": priority}


def cells(key: tuple[str, str], body: Json, now: datetime, custom: Custom = None) -> list[Any]:
    """The row of one object.  A cell of an object that is not as its kind should be says so; the others are printed."""
    if custom is None:
        return [_cell(row, body, now) for row in ROWS.get(key, DEFAULT)]
    found = [_cell(NAME, body, now)]
    for column in custom:
        try:
            found.append(custom_cell(body, column.json_path, column.type, now))
        except _MALFORMED:
            found.append(INVALID)
    return found


def _cell(row: Row, body: Json, now: datetime) -> Any:
    try:
        return row[3](body, now)
    except _MALFORMED:
        return INVALID


def row(found: list[Any], body: Json, include: str) -> Json:
    """include: what of the object goes with its cells, as `includeObject` says: None, Metadata or Object."""
    made: Json = {"cells": found}
    if include == "Object":
        made["object"] = body
    elif include != "None":
        made["object"] = partial(body)
    return made


def partial(body: Json) -> Json:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": body.get("metadata") or {},
    }


def table(definitions: list[Json], rows: list[Json], metadata: Json) -> Json:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }
