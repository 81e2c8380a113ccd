"""JSON merge patch, for the control plane in the box and for an edge that keeps a write until the cloud is back.  Pure: nothing
shared is changed.

Source: RFC 7386."""

from __future__ import annotations

from typing import Any

from beehive.jsonpatch import PatchError

MAX_DEPTH = 200
"""Levels of a patch: what is deeper would end in Python's own limit."""


def merge_patch(target: Any, patch: Any, *, keep_nulls: bool = False, depth: int = 0) -> Any:
    """`patch` applied to `target`.   keep_nulls: `target` is a patch itself, and what is removed stays said.

    Raises PatchError: too deep."""
    if depth > MAX_DEPTH:
        raise PatchError(f"the patch has more than {MAX_DEPTH} levels")
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None and not keep_nulls:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value, keep_nulls=keep_nulls, depth=depth + 1)
    return merged
