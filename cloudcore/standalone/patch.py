"""JSON merge patch and strategic merge patch.  Pure: values in, new values out, nothing shared is changed.

Sources: RFC 7386; apimachinery, pkg/util/strategicpatch/patch.go; the recordings in tests/vectors/apiserver."""

from __future__ import annotations

import copy
from typing import Any

from beehive.jsonpatch import PatchError
from cloudcore.standalone import coretypes
from cloudcore.standalone.mergekeys import MERGE_KEYS, PRIMITIVE_MERGE


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
ORDER = "$setElementOrder/"
DELETE = "$deleteFromPrimitiveList/"


def strategic_merge(target: Any, patch: Any, model: str | None) -> Any:
    """Strategic merge patch for an object of the core type `model`.  Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError("invalid JSON document: the patch must be an object")
    return _merge_map(target if isinstance(target, dict) else {}, patch, model)


def _merge_map(target: dict[str, Any], patch: dict[str, Any], model: str | None) -> dict[str, Any]:
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        replaced: dict[str, Any] = _strip(patch)
        return replaced
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown patch type: {directive} in map")
    result = dict(target)
    if RETAIN in patch:
        keep = patch[RETAIN]
        if not isinstance(keep, list) or any(name not in keep for name in patch if not name.startswith("$")):
            raise PatchError("invalid patch format of retainKeys")
        result = {name: value for name, value in result.items() if name in keep}
    orders: dict[str, list[Any]] = {}
    for name, value in patch.items():
        if name in (DIRECTIVE, RETAIN):
            continue
        if name.startswith(ORDER):
            if not isinstance(value, list):
                raise PatchError(f"invalid patch format of setElementOrder: {name}")
            orders[name.removeprefix(ORDER)] = value
        elif name.startswith(DELETE):
            field = name.removeprefix(DELETE)
            if not isinstance(value, list):
                raise PatchError(f"invalid patch format of deleteFromPrimitiveList: {name}")
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _merge_field(result.get(name), value, model, name)
    for name, value in patch.items():
        # without an order of its own, a patch's items come in the order it lists them
        if isinstance(value, list) and name not in orders and _merge_key(model, name) is not None:
            orders[name] = value
    for name, order in orders.items():
        if isinstance(result.get(name), list):
            result[name] = _reorder(result[name], target.get(name), order, _merge_key(model, name))
    return result


def _merge_field(old: Any, new: Any, model: str | None, name: str) -> Any:
    kind = coretypes.field_type(model, name) if model else None
    inner = kind.lstrip("[]{}") if kind else None
    child = inner if inner in coretypes.shapes() else None
    if isinstance(new, dict):
        if kind is not None and kind.startswith("{}"):
            return _merge_map(old if isinstance(old, dict) else {}, new, None)
        return _merge_map(old if isinstance(old, dict) else {}, new, child)
    if isinstance(new, list):
        key = _merge_key(model, name)
        if key is not None:
            return _merge_list(old if isinstance(old, list) else [], new, key, child)
        if model is not None and (model, name) in PRIMITIVE_MERGE:
            merged = list(old) if isinstance(old, list) else []
            return merged + [item for item in new if item not in merged]
        return _strip(new)
    return new


def _merge_key(model: str | None, name: str) -> str | None:
    return MERGE_KEYS.get((model, name)) if model else None


def _merge_list(old: list[Any], new: list[Any], key: str, model: str | None) -> list[Any]:
    if any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" for item in new):
        return [_strip(item) for item in new if item.get(DIRECTIVE) != "replace"]
    result = list(old)
    for item in new:
        if not isinstance(item, dict):
            raise PatchError(f"map: {item!r} does not contain declared merge key: {key}")
        if key not in item:
            raise PatchError(f"map: {_go_map(item)} does not contain declared merge key: {key}")
        at = next(
            (i for i, seen in enumerate(result) if isinstance(seen, dict) and seen.get(key) == item[key]),
            None,
        )
        if item.get(DIRECTIVE) == "delete":
            if at is not None:
                result = [
                    seen for seen in result if not (isinstance(seen, dict) and seen.get(key) == item[key])
                ]
        elif at is None:
            result.append(_merge_map({}, item, model))
        else:
            result[at] = _merge_map(result[at], item, model)
    return result


def _reorder(merged: list[Any], old: Any, order: list[Any], key: str | None) -> list[Any]:
    """Items named by `order` in that order; the others stay relative to what they followed before."""

    def name(item: Any) -> Any:
        return item.get(key) if key is not None and isinstance(item, dict) else item

    wanted = [name(item) for item in order]
    listed = sorted(
        (item for item in merged if name(item) in wanted), key=lambda item: wanted.index(name(item))
    )
    rest = [item for item in merged if name(item) not in wanted]
    before = [name(item) for item in old] if isinstance(old, list) else []
    found: list[Any] = []
    while listed and rest:
        # an unlisted item goes first only when it preceded the listed one on the server already
        ahead = (
            name(rest[0]) in before
            and name(listed[0]) in before
            and before.index(name(rest[0])) < before.index(name(listed[0]))
        )
        found.append(rest.pop(0) if ahead else listed.pop(0))
    return found + listed + rest


def _strip(value: Any) -> Any:
    """A copy without directives and without nulls in maps."""
    if isinstance(value, dict):
        return {
            name: _strip(item)
            for name, item in value.items()
            if item is not None and not name.startswith((DIRECTIVE, RETAIN, ORDER, DELETE))
        }
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return value


def _go_map(value: dict[str, Any]) -> str:
    return "map[" + " ".join(f"{name}:{item}" for name, item in sorted(value.items())) + "]"
