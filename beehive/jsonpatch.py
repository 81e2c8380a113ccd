"""JSON patch, for the control plane in the box and for an edge that keeps a write until the cloud is back.  Pure: nothing
shared is changed.

Source: RFC 6902; the recordings in tests/vectors/apiserver."""

from __future__ import annotations

import copy
import re
from typing import Any

MAX_OPERATIONS = 10_000
"""As in the API server: a patch of more operations is refused."""


_INDEX = re.compile(r"-?[0-9]{1,9}")


class PatchError(ValueError):
    """The patch has a form that cannot be applied (400)."""


class PatchFailed(ValueError):
    """The patch is well formed but does not fit the object (422)."""


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
    if not _INDEX.fullmatch(part):
        raise PatchFailed(f"bad index {part[:64]!r}")
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
