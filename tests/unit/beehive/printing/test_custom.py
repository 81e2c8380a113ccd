"""Printer columns of custom kinds."""

from datetime import UTC, datetime
from typing import Any

import pytest

from beehive.printing.custom import AGE, custom_cell, json_path, read_columns

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BODY = {
    "spec": {"list": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "a.b": "dotted", "on": False},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.list[0].name", ["a"]),
        (".spec.list[-1].v", [2]),
        (".spec.list[*].name", ["a", "b"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".spec['a.b']", ["dotted"]),
        (".spec.a\\.b", ["dotted"]),
        (".spec.none.there", []),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert json_path(BODY, path) == found


def test_cells_by_their_type() -> None:
    assert custom_cell(BODY, ".spec.list[*].name", "string", NOW) == "a,b"
    assert custom_cell(BODY, ".spec.on", "boolean", NOW) is False
    assert custom_cell(BODY, ".spec.none", "string", NOW) is None
    assert custom_cell({"t": "2029-12-31T23:59:00Z"}, ".t", "date", NOW) == "60s"


def test_without_columns_there_is_an_age() -> None:
    assert read_columns({"name": "v1"}) == (AGE,)
