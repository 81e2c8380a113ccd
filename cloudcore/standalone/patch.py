"""JSON patch, JSON merge patch and strategic merge patch.  Pure: values in, new values out, nothing shared is changed.

Sources: RFC 6902, RFC 7386; apimachinery, pkg/util/strategicpatch/patch.go; the recordings in tests/vectors/apiserver."""

from __future__ import annotations

import copy
from typing import Any

from cloudcore.standalone import coretypes
from cloudcore.standalone.mergekeys import MERGE_KEYS, PRIMITIVE_MERGE

MAX_OPERATIONS = 10_000
"""As in the API server: a patch of more operations is refused."""


class PatchError(ValueError):
    """The patch has a form that cannot be applied (400)."""


class PatchFailed(ValueError):
    """The patch is well formed but does not fit the object (422)."""


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


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902.  Raises PatchError for a malformed patch, PatchFailed when a test fails or a path is absent."""
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise PatchError("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        raise PatchError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    document = copy.deepcopy(target)
    for operation in operations:
        document = _operate(document, operation)
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    name = operation.get("op")
    path = _pointer(operation.get("path"))
    if name in ("add", "replace", "test") and "value" not in operation:
        raise PatchFailed(f"{name} without a value")
    if name == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if name == "remove":
        return _remove(document, path)[0]
    if name == "replace":
        if not path:
            return copy.deepcopy(operation["value"])
        _lookup(document, path)
        return _replace(document, path, copy.deepcopy(operation["value"]))
    if name == "move":
        document, value = _remove(document, _pointer(operation.get("from")))
        return _add(document, path, value)
    if name == "copy":
        return _add(document, path, copy.deepcopy(_lookup(document, _pointer(operation.get("from")))))
    if name == "test":
        try:
            found = _lookup(document, path)
        except PatchFailed:
            found = None
            if operation["value"] is not None:
                raise
        if not _same(found, operation["value"]):
            raise PatchFailed("test failed")
        return document
    raise PatchFailed(f"unexpected kind: {name}")


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _pointer(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise PatchFailed(f"bad pointer {path!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _index(items: list[Any], part: str, *, end: bool) -> int:
    if part == "-" and end:
        return len(items)
    if not part.lstrip("-").isdigit():
        raise PatchFailed(f"bad index {part!r}")
    index = int(part)
    if not 0 <= index < len(items) + end:
        raise PatchFailed(f"index {part} out of bounds")
    return index


def _lookup(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(document, part, end=False)]
        else:
            raise PatchFailed(f"missing path {part!r}")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _lookup(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(_index(parent, last, end=True), value)
    else:
        raise PatchFailed(f"missing path {last!r}")
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    parent, last = _lookup(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent[_index(parent, last, end=False)] = value
    else:
        parent[last] = value
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        raise PatchFailed("cannot remove the whole document")
    parent, last = _lookup(document, path[:-1]), path[-1]
    if isinstance(parent, dict) and last in parent:
        return document, parent.pop(last)
    if isinstance(parent, list):
        return document, parent.pop(_index(parent, last, end=False))
    raise PatchFailed(f"missing path {last!r}")


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
