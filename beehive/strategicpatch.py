"""Strategic merge patch, for the control plane in the box and for an edge that keeps a write until the cloud is back.  Pure:
values in, new values out, nothing shared is changed.

Sources: apimachinery, pkg/util/strategicpatch/patch.go; the recordings in tests/vectors/apiserver."""

from __future__ import annotations

from typing import Any

from beehive.jsonpatch import PatchError
from beehive.mergekeys import child, is_set, merge_key

MAX_DEPTH = 200
"""Levels of a patch: what is deeper would end in Python's own limit."""
DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
ORDER = "$setElementOrder/"
DELETE = "$deleteFromPrimitiveList/"


Json = dict[str, Any]


def strategic_merge(target: Any, patch: Any, model: str | None) -> Json:
    """Strategic merge patch for an object of the core type `model`.  Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError("invalid JSON document: the patch must be an object")
    return _merge_map(target if isinstance(target, dict) else {}, patch, model, 0)


def _merge_map(target: Json, patch: Json, model: str | None, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise PatchError(f"the patch has more than {MAX_DEPTH} levels")
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        replaced: Json = plain(patch)
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
            gone = {mark(item) for item in value}
            result[field] = [item for item in listed(result.get(field)) if mark(item) not in gone]
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _merge_field(result.get(name), value, model, name, depth)
    for name, value in patch.items():
        # without an order of its own, a patch's items come in the order it lists them
        if isinstance(value, list) and name not in orders and merge_key(model, name) is not None:
            orders[name] = value
    for name, order in orders.items():
        if isinstance(result.get(name), list):
            result[name] = _reorder(result[name], target.get(name), order, merge_key(model, name))
    return result


def _merge_field(old: Any, new: Any, model: str | None, name: str, depth: int) -> Any:
    below = child(model, name)
    if isinstance(new, dict):
        return _merge_map(old if isinstance(old, dict) else {}, new, below, depth + 1)
    if isinstance(new, list):
        key = merge_key(model, name)
        if key is not None:
            return _merge_list(listed(old), new, key, below, depth + 1)
        if is_set(model, name):
            merged = list(listed(old))
            seen = {mark(item) for item in merged}
            return merged + [item for item in new if mark(item) not in seen]
        return plain(new)
    return new


def _merge_list(old: list[Any], new: list[Any], key: str, model: str | None, depth: int) -> list[Any]:
    if replaces(new):
        return [
            plain(item) for item in new if not (isinstance(item, dict) and item.get(DIRECTIVE) == "replace")
        ]
    result: list[Any] = list(old)
    # a key may be there twice (a port for TCP and for UDP): the first is merged into, and a delete takes both
    first = {name: at for at, name in reversed(list(enumerate(names(old, key))))}
    gone: set[Any] = set()
    for item in new:
        if not isinstance(item, dict):
            raise PatchError(f"map: {item!r} does not contain declared merge key: {key}")
        if key not in item:
            raise PatchError(f"map: {_go_map(item)} does not contain declared merge key: {key}")
        name = mark(item[key])
        if item.get(DIRECTIVE) == "delete":
            gone.add(name)
            first.pop(name, None)
        elif (at := first.get(name)) is not None and isinstance(result[at], dict):
            result[at] = _merge_map(result[at], item, model, depth + 1)
        else:
            first[name] = len(result)
            result.append(_merge_map({}, item, model, depth + 1))
    if not gone:
        return result
    there = set(first.values())
    return [
        item
        for at, (name, item) in enumerate(zip(names(result, key), result, strict=True))
        if name not in gone or at in there
    ]


def replaces(items: list[Any]) -> bool:
    """Whether a patch's list says that it is all there is."""
    return any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" for item in items)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mark(value: Any) -> Any:
    """What tells one key or member of a set from another."""
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def names(items: list[Any], key: str | None) -> list[Any]:
    """The marks of the items of a list, or of an order of them."""
    return [
        mark(item.get(key)) if key is not None and isinstance(item, dict) else mark(item) for item in items
    ]


def _reorder(merged: list[Any], old: Any, order: list[Any], key: str | None) -> list[Any]:
    """Items named by `order` in that order; the others stay relative to what they followed before."""
    wanted = {name: at for at, name in reversed(list(enumerate(names(order, key))))}
    before = {name: at for at, name in reversed(list(enumerate(names(listed(old), key))))}
    named = list(zip(names(merged, key), merged, strict=True))
    first = sorted((pair for pair in named if pair[0] in wanted), key=lambda pair: wanted[pair[0]])
    rest = [pair for pair in named if pair[0] not in wanted]
    found: list[Any] = []
    one = other = 0
    while one < len(first) and other < len(rest):
        # an unlisted item goes first only when it preceded the listed one on the server already
        here, there = before.get(rest[other][0]), before.get(first[one][0])
        if here is not None and there is not None and here < there:
            found.append(rest[other][1])
            other += 1
        else:
            found.append(first[one][1])
            one += 1
    return found + [item for _, item in first[one:]] + [item for _, item in rest[other:]]


def plain(value: Any, depth: int = 0) -> Any:
    """A copy without directives and without nulls in maps.  Raises PatchError: too deep."""
    if depth > MAX_DEPTH:
        raise PatchError(f"the patch has more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {
            name: plain(item, depth + 1)
            for name, item in value.items()
            if item is not None and not name.startswith((DIRECTIVE, RETAIN, ORDER, DELETE))
        }
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    return value


def _go_map(value: dict[str, Any]) -> str:
    return "map[" + " ".join(f"{name}:{item}" for name, item in sorted(value.items())) + "]"
