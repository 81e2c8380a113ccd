"""Tables, and what an object that is not as it should be does to its row."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from beehive.printing import printed
from beehive.printing.custom import AGE, Column

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_what_goes_with_a_row() -> None:
    found = {"metadata": {"name": "a"}, "data": {"k": "v"}}
    assert printed.row(["a"], found, "Metadata")["object"]["kind"] == "PartialObjectMetadata"
    assert printed.row(["a"], found, "Object")["object"] == found
    assert printed.row(["a"], found, "None") == {"cells": ["a"]}


def test_each_kind_has_as_many_cells_as_columns() -> None:
    for key in printed.ROWS:
        assert len(printed.cells(key, {"metadata": {"name": "x"}}, NOW)) == len(printed.columns(key))


def test_one_bad_cell_spoils_no_other() -> None:
    found = {"metadata": {"name": "d"}, "spec": {"replicas": 2, "template": {"spec": {"containers": [1]}}}}
    cells = printed.cells(("apps", "deployments"), found, NOW)
    assert cells[:2] == ["d", "0/2"]
    assert cells[5] == "<invalid>"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["metadata", "status", "spec", "labels", "containerStatuses", "state", "name", "conditions",
                         "ports", "template", "selector", "subsets", "addresses", "creationTimestamp"]),
        inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
CUSTOM = (Column(name="A", type="date", json_path=".spec.ports[*].name"), AGE)


@given(st.dictionaries(st.sampled_from(["metadata", "status", "spec", "subsets", "ports"]), JSON))
def test_an_odd_object_is_a_row_all_the_same(found: dict[str, Any]) -> None:
    for key in printed.ROWS:
        printed.cells(key, found, NOW)
    printed.cells(("acme.io", "pumps"), found, NOW, CUSTOM)
