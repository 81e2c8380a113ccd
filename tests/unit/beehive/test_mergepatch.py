"""Merge patches."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.jsonpatch import PatchError
from beehive.mergepatch import merge_patch

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def test_merge_patch_of_rfc_7386() -> None:
    cases: list[tuple[Any, Any, Any]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for target, change, want in cases:
        assert merge_patch(target, change) == want


@given(VALUES, VALUES)
def test_merge_patch_changes_neither_side_and_is_idempotent(target: Any, change: Any) -> None:
    kept = copy.deepcopy((target, change))
    once = merge_patch(target, change)
    assert (target, change) == kept
    assert merge_patch(once, change) == once


def test_one_that_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(PatchError, match="levels"):
        merge_patch({}, deep)
