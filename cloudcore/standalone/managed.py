"""Who owns which field: metadata.managedFields, and the merge of server-side apply.  Pure.

Ownership is a set of paths as nested maps in the form of FieldsV1 (`f:name`, `k:{...}` for a list item by key,
`v:...` for an item of a set, `.` for the thing itself).
Source: structured-merge-diff and apimachinery, pkg/util/managedfields."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from cloudcore.standalone import coretypes
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.mergekeys import (
    APPLY_KEYS,
    APPLY_SETS,
    ATOMIC_MAPS,
    ATOMIC_STRUCTS,
    KEY_DEFAULTS,
)
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import Cause, apply_conflict, invalid, required

Json = dict[str, Any]
Fields = dict[str, Any]
ENTRY_LIMIT = 10
"""Update entries kept before the oldest are folded into one, as in the API server."""
NOT_OWNED = {
    "apiVersion": None,
    "kind": None,
    "metadata": frozenset(
        {
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "clusterName",
        }
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One apply request: the configuration as sent, and the subresource it was sent to."""

    config: Json
    subresource: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of the type at one place.  One of: a core `model`, a custom `schema`, or nothing."""

    type: str = ""
    schema: Json | None = None
    atomic: bool = False
    keys: tuple[str, ...] | None = None
    is_set: bool = False

    def child(self, name: str) -> Shape:
        if self.schema is not None:
            return _schema_shape((self.schema.get("properties") or {}).get(name), self.schema)
        if self.type.startswith("{}"):
            return _core_shape(self.type[2:], "", "")
        return _core_child(self.type, name)

    def item(self) -> Shape:
        if self.schema is not None:
            return _schema_shape(self.schema.get("items"), None)
        return _core_shape(self.type[2:], "", "") if self.type.startswith("[]") else Shape()


NO_SHAPE = Shape()


@functools.cache  # one entry per field of the core types, whatever clients send
def _core_shape(kind: str, model: str, name: str) -> Shape:
    place = (model, name)
    atomic = kind in ATOMIC_STRUCTS or place in ATOMIC_MAPS
    keys = APPLY_KEYS.get(place)
    return Shape(type=kind, atomic=atomic, keys=keys or None, is_set=place in APPLY_SETS)


@functools.lru_cache(maxsize=16384)  # there are about 3,000 fields; names that are none may be anything
def _core_child(model: str, name: str) -> Shape:
    kind = coretypes.field_type(model, name)
    return NO_SHAPE if kind is None else _core_shape(kind, model, name)


def _schema_shape(schema: Any, parent: Json | None) -> Shape:
    if not isinstance(schema, dict):
        extra = (parent or {}).get("additionalProperties")
        return Shape(schema=extra) if isinstance(extra, dict) else Shape()
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    return Shape(
        schema=schema,
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
        keys=keys if schema.get("x-kubernetes-list-type") == "map" and keys else None,
        is_set=schema.get("x-kubernetes-list-type") == "set",
    )


def root_shape(kind: Kind) -> Shape:
    if kind.schema is not None:
        properties = dict(kind.schema.get("properties") or {})
        properties.pop("metadata", None)
        return Shape(schema={**kind.schema, "properties": properties})
    return Shape(type=kind.model or "")


def _child(kind: Kind, shape: Shape, name: str, *, root: bool) -> Shape:
    if root and name == "metadata":
        return Shape(type="V1ObjectMeta")
    return shape.child(name)


def fields_of(kind: Kind, body: Json) -> Fields:
    """Every field that `body` sets."""
    return _fields(kind, body, root_shape(kind), root=True)


def _fields(kind: Kind, value: Any, shape: Shape, *, root: bool = False, top: str = "") -> Fields:
    if isinstance(value, dict) and not shape.atomic:
        found: Fields = {}
        for name, item in value.items():
            skipped = NOT_OWNED.get(name, ()) if root else ()
            if skipped is None or (top == "metadata" and name in NOT_OWNED["metadata"]):  # type: ignore[operator]
                continue
            inner: Fields = {}
            if isinstance(item, dict | list):
                inner = _fields(kind, item, _child(kind, shape, name, root=root), top=name if root else "")
            if root and name == "metadata" and not inner:
                continue
            found[f"f:{name}"] = inner
        return found
    if isinstance(value, list):
        if shape.keys:
            listed: Fields = {}
            for item in value:
                if isinstance(item, dict):
                    listed[_key(item, shape.keys)] = {".": {}, **_fields(kind, item, shape.item())}
            return listed
        if shape.is_set:
            return {f"v:{json.dumps(item, separators=(',', ':'))}": {} for item in value}
    return {}


def _key(item: Json, keys: tuple[str, ...]) -> str:
    chosen = {key: item.get(key, KEY_DEFAULTS.get(key)) for key in keys}
    present = {key: value for key, value in sorted(chosen.items()) if value is not None}
    return "k:" + msgspec.json.encode(present).decode()


def changed_fields(kind: Kind, old: Json | None, new: Json) -> tuple[Fields, Fields]:
    """(fields that `new` sets to something else than `old`, fields that it no longer has)."""
    if old is None:
        return _with_dots(kind, new, root_shape(kind), root=True), {}
    return (
        _changes(kind, old, new, root_shape(kind), root=True),
        _changes(kind, new, old, root_shape(kind), root=True, only_missing=True),
    )


def _with_dots(kind: Kind, value: Any, shape: Shape, *, root: bool = False, top: str = "") -> Fields:
    """As `_fields`, with the maps and lists themselves, which an update owns when it makes them."""
    fields = _fields(kind, value, shape, root=root, top=top)
    return _dotted(kind, value, shape, fields, root=root)


def _dotted(kind: Kind, value: Any, shape: Shape, fields: Fields, *, root: bool = False) -> Fields:
    found: Fields = {}
    if isinstance(value, dict):
        is_map = not _is_struct(shape, root=root)
        if fields and is_map and "." not in fields:
            found["."] = {}
        for name, inner in fields.items():
            if inner and name.startswith("f:"):
                bare = name[2:]
                found[name] = _dotted(kind, value.get(bare), _child(kind, shape, bare, root=root), inner)
            else:
                found[name] = inner
        return found
    if isinstance(value, list) and shape.keys and fields:
        by_key = {_key(item, shape.keys): item for item in value if isinstance(item, dict)}
        for name, inner in fields.items():
            found[name] = _dotted(kind, by_key[name], shape.item(), inner) if name in by_key else inner
        return {".": {}, **found} if not root and shape.type.startswith("[]") and _dots_list(shape) else found
    if isinstance(value, list) and shape.is_set and fields:
        return {".": {}, **fields}
    return fields


def _dots_list(shape: Shape) -> bool:
    return shape.type not in ("[]V1Container",)


def _is_struct(shape: Shape, *, root: bool) -> bool:
    """Core structs are not owned as a whole; maps and custom objects are."""
    return root or shape.type in coretypes.shapes()


def _changes(
    kind: Kind,
    old: Any,
    new: Any,
    shape: Shape,
    *,
    root: bool = False,
    top: str = "",
    only_missing: bool = False,
) -> Fields:
    found: Fields = {}
    if isinstance(new, dict) and isinstance(old, dict) and not shape.atomic:
        for name, item in new.items():
            skipped = NOT_OWNED.get(name, ()) if root else ()
            if skipped is None or (top == "metadata" and name in NOT_OWNED["metadata"]):  # type: ignore[operator]
                continue
            inner_shape = _child(kind, shape, name, root=root)
            inner_top = name if root else ""
            if name not in old:
                found[f"f:{name}"] = _with_dots(kind, item, inner_shape, top=inner_top)
            elif item != old[name]:
                if _is_composite(item, old[name], inner_shape):
                    inner = _changes(
                        kind, old[name], item, inner_shape, top=inner_top, only_missing=only_missing
                    )
                    if inner:
                        found[f"f:{name}"] = inner
                elif not only_missing:
                    found[f"f:{name}"] = {}
        return found
    if isinstance(new, list) and isinstance(old, list):
        if shape.keys:
            before = {_key(item, shape.keys): item for item in old if isinstance(item, dict)}
            for item in new:
                if not isinstance(item, dict):
                    continue
                name = _key(item, shape.keys)
                if name not in before:
                    found[name] = {".": {}, **_with_dots(kind, item, shape.item())}
                elif item != before[name]:
                    inner = _changes(kind, before[name], item, shape.item(), only_missing=only_missing)
                    if inner:
                        found[name] = inner
        elif shape.is_set:
            for item in new:
                if item not in old:
                    found[f"v:{json.dumps(item, separators=(',', ':'))}"] = {}
    return found


def _is_composite(new: Any, old: Any, shape: Shape) -> bool:
    if isinstance(new, dict) and isinstance(old, dict):
        return not shape.atomic
    return isinstance(new, list) and isinstance(old, list) and (bool(shape.keys) or shape.is_set)


def union(one: Fields, other: Fields) -> Fields:
    merged = dict(one)
    for name, inner in other.items():
        merged[name] = union(merged[name], inner) if name in merged else inner
    return merged


def subtract(one: Fields, other: Fields) -> Fields:
    """`one` without what `other` names.  A name with nothing beneath stands for all beneath it."""
    left: Fields = {}
    for name, inner in one.items():
        if name not in other:
            left[name] = inner
        elif other[name] and inner:
            rest = subtract(inner, other[name])
            if rest and set(rest) != {"."}:
                left[name] = rest
    return left


def _leaves(fields: Fields, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, inner in fields.items():
        if name == ".":
            continue
        if inner and set(inner) != {"."}:
            found += _leaves(inner, (*path, name))
        else:
            found.append((*path, name))
    return found


def stamp_update(
    kind: Kind,
    old: Json | None,
    new: Json,
    options: WriteOptions,
    now: str,
    *,
    subresource: str,
    asked: Json | None = None,
) -> None:
    """Record in `new` that this update owns what it changed.  In place."""
    metadata = new["metadata"]
    if old is not None and "managedFields" in metadata and metadata["managedFields"] == []:
        metadata.pop("managedFields")
        return
    entries = copy.deepcopy((old or {}).get("metadata", {}).get("managedFields") or [])
    if not options.field_manager:
        _set_entries(metadata, entries)
        return
    sets, drops = changed_fields(kind, old, new if old is not None or asked is None else _owned(new, asked))
    if not sets and not drops:
        _set_entries(metadata, entries)
        return
    for entry in entries:
        mine = (
            entry.get("manager") == options.field_manager
            and entry.get("operation") == "Update"
            and entry.get("subresource", "") == subresource
            and entry.get("apiVersion") == kind.api_version
        )
        kept = subtract(entry.get("fieldsV1") or {}, drops)
        entry["fieldsV1"] = kept if mine or entry.get("operation") == "Apply" else subtract(kept, sets)
        if entry.get("operation") == "Apply":
            entry["fieldsV1"] = subtract(kept, sets)
    if sets:
        for entry in entries:
            if (
                entry.get("manager") == options.field_manager
                and entry.get("operation") == "Update"
                and entry.get("subresource", "") == subresource
                and entry.get("apiVersion") == kind.api_version
            ):
                entry["fieldsV1"] = union(entry["fieldsV1"], sets)
                entry["time"] = now
                break
        else:
            fresh = {
                "manager": options.field_manager,
                "operation": "Update",
                "apiVersion": kind.api_version,
                "time": now,
                "fieldsType": "FieldsV1",
                "fieldsV1": sets,
            }
            if subresource:
                fresh["subresource"] = subresource
            entries.append(fresh)
    _set_entries(metadata, entries)


def _owned(new: Json, asked: Json) -> Json:
    """The created object without what the server itself put in (status, allocated addresses, mounted tokens)."""
    return {name: value for name, value in new.items() if name in asked or name == "spec"} | {
        "metadata": asked.get("metadata", {})
    }


def _set_entries(metadata: Json, entries: list[Json]) -> None:
    kept = [entry for entry in entries if entry.get("fieldsV1")]
    updates = [entry for entry in kept if entry.get("operation") == "Update"]
    while len(updates) > ENTRY_LIMIT:
        oldest, second = updates[0], updates[1]
        second["fieldsV1"] = union(oldest["fieldsV1"], second["fieldsV1"])
        second["manager"] = "ancient-changes"
        kept.remove(oldest)
        updates.pop(0)
    kept.sort(
        key=lambda entry: (entry.get("operation") != "Apply", entry.get("time", ""), entry.get("manager", ""))
    )
    if kept:
        metadata["managedFields"] = kept
    else:
        metadata.pop("managedFields", None)


def _mine(entry: Json, options: WriteOptions, subresource: str) -> bool:
    return (
        entry.get("manager") == options.field_manager
        and entry.get("operation") == "Apply"
        and entry.get("subresource", "") == subresource
    )


def merge(kind: Kind, old: Json, applied: Applied, options: WriteOptions) -> Json:
    """`old` with the configuration laid over it; what this manager applied before and left out now goes.

    Raises ApiError (Conflict) when somebody else owns a field that is to change, unless forced."""
    if not options.field_manager:
        raise invalid(
            "PatchOptions", "meta.k8s.io", "", [required("fieldManager", "is required for apply patch")]
        )
    shape = root_shape(kind)
    entries = old["metadata"].get("managedFields") or []
    owned = fields_of(kind, applied.config)
    merged: Json = _lay(kind, old, applied.config, shape, root=True)
    before: Fields = next(
        (entry["fieldsV1"] for entry in entries if _mine(entry, options, applied.subresource)), {}
    )
    others: Fields = {}
    for entry in entries:
        if not _mine(entry, options, applied.subresource):
            others = union(others, entry.get("fieldsV1") or {})
    gone = subtract(before, owned)
    for path in sorted(_leaves(gone), key=len, reverse=True):
        if not _has(others, path) and not _has(owned, path):
            _drop(kind, merged, path, shape)
    if not options.force:
        causes = []
        for entry in entries:
            if _mine(entry, options, applied.subresource):
                continue
            for path in _leaves(owned):
                if _owns(entry.get("fieldsV1") or {}, path) and _at(kind, old, path, shape) != _at(
                    kind, merged, path, shape
                ):
                    causes.append(
                        Cause(
                            reason="FieldManagerConflict",
                            field=_readable(path),
                            text=f"conflict with {_manager(entry)}",
                        )
                    )
        if causes:
            raise apply_conflict(causes, _conflict_text(causes))
    return merged


def _manager(entry: Json) -> str:
    text = f'"{entry.get("manager")}"'
    if entry.get("subresource"):
        text += f' with subresource "{entry["subresource"]}"'
    if entry.get("operation") == "Update":
        text += f" using {entry.get('apiVersion')}"
    return text


def _conflict_text(causes: list[Cause]) -> str:
    if len(causes) == 1:
        return f"Apply failed with 1 conflict: {causes[0].text}: {causes[0].field}"
    lines: dict[str, list[str]] = {}
    for cause in causes:
        lines.setdefault(cause.text, []).append(cause.field)
    body = "\n".join(f"{text}:\n" + "\n".join(f"- {name}" for name in names) for text, names in lines.items())
    return f"Apply failed with {len(causes)} conflicts: {body}"


def stamp_apply(
    kind: Kind, old: Json | None, new: Json, applied: Applied, options: WriteOptions, now: str
) -> None:
    """Record what this apply owns; with force, take it from the others.  In place."""
    if not options.field_manager:
        raise invalid(
            "PatchOptions", "meta.k8s.io", "", [required("fieldManager", "is required for apply patch")]
        )
    entries = copy.deepcopy((old or {}).get("metadata", {}).get("managedFields") or [])
    owned = fields_of(kind, applied.config)
    changed = _changes(kind, old, new, root_shape(kind), root=True) if old is not None else {}
    for entry in entries:
        if not _mine(entry, options, applied.subresource):
            entry["fieldsV1"] = _without_changed(entry.get("fieldsV1") or {}, owned, changed)
    mine = next((entry for entry in entries if _mine(entry, options, applied.subresource)), None)
    if mine is None:
        mine = {
            "manager": options.field_manager,
            "operation": "Apply",
            "apiVersion": kind.api_version,
            "time": now,
            "fieldsType": "FieldsV1",
        }
        if applied.subresource:
            mine["subresource"] = applied.subresource
        entries.append(mine)
    if mine.get("fieldsV1") != owned or changed:
        mine["time"] = now
    mine["fieldsV1"], mine["apiVersion"] = owned, kind.api_version
    _set_entries(new["metadata"], entries)


def _without_changed(theirs: Fields, owned: Fields, changed: Fields) -> Fields:
    """Others lose what this apply changed; what it set to the same value is shared."""
    lost: Fields = {}
    for path in _leaves(owned):
        if _touched(changed, path) and _owns(theirs, path):
            place = lost
            for part in path[:-1]:
                place = place.setdefault(part, {})
            place[path[-1]] = {}
    return subtract(theirs, lost) if lost else theirs


def _touched(fields: Fields, path: tuple[str, ...]) -> bool:
    for part in path:
        if part not in fields:
            return False
        fields = fields[part]
        if not fields:
            return True
    return True


def _has(fields: Fields, path: tuple[str, ...]) -> bool:
    for part in path:
        if part not in fields:
            return False
        fields = fields[part]
    return True


def _owns(fields: Fields, path: tuple[str, ...]) -> bool:
    """Whether `fields` names the path, or something atomic above it."""
    for index, part in enumerate(path):
        if part not in fields:
            return index > 0 and not fields
        fields = fields[part]
    return True


def _readable(path: tuple[str, ...]) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("k:"):
            pairs = ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(part[2:]).items())
            text += f"[{pairs}]"
        else:
            text += f"[={part[2:]}]"
    return text


def _lay(kind: Kind, old: Any, config: Any, shape: Shape, *, root: bool = False) -> Any:
    if isinstance(config, dict) and isinstance(old, dict) and not shape.atomic:
        result = dict(old)
        for name, value in config.items():
            result[name] = (
                _lay(kind, old[name], value, _child(kind, shape, name, root=root))
                if name in old
                else copy.deepcopy(value)
            )
        return result
    if isinstance(config, list) and isinstance(old, list):
        if shape.keys:
            result_list = list(old)
            places = {_key(item, shape.keys): i for i, item in enumerate(old) if isinstance(item, dict)}
            for item in config:
                place = places.get(_key(item, shape.keys)) if isinstance(item, dict) else None
                if place is None:
                    result_list.append(copy.deepcopy(item))
                else:
                    result_list[place] = _lay(kind, old[place], item, shape.item())
            return _config_order(result_list, config, shape.keys)
        if shape.is_set:
            return list(old) + [item for item in config if item not in old]
    return copy.deepcopy(config)


def _config_order(items: list[Any], config: list[Any], keys: tuple[str, ...]) -> list[Any]:
    """Items the configuration names come in its order, within the places they hold together."""
    order = {_key(item, keys): i for i, item in enumerate(config) if isinstance(item, dict)}
    named = sorted(
        (item for item in items if isinstance(item, dict) and _key(item, keys) in order),
        key=lambda item: order[_key(item, keys)],
    )
    source = iter(named)
    return [next(source) if isinstance(item, dict) and _key(item, keys) in order else item for item in items]


def _step(value: Any, part: str, shape: Shape) -> Any:
    if part.startswith("f:"):
        return value.get(part[2:]) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    if part.startswith("k:"):
        return next(
            (i for i in value if isinstance(i, dict) and shape.keys and _key(i, shape.keys) == part), None
        )
    wanted = json.loads(part[2:])
    return wanted if wanted in value else None


def _at(kind: Kind, body: Any, path: tuple[str, ...], shape: Shape) -> Any:
    for index, part in enumerate(path):
        body = _step(body, part, shape)
        shape = _child(kind, shape, part[2:], root=index == 0) if part.startswith("f:") else shape.item()
        if body is None:
            return None
    return body


def _drop(kind: Kind, body: Any, path: tuple[str, ...], shape: Shape) -> None:
    """Remove the field or item at `path`, and containers that this leaves empty (except list items)."""
    trail: list[tuple[Any, str, Shape]] = []
    for index, part in enumerate(path[:-1]):
        trail.append((body, part, shape))
        inner = _step(body, part, shape)
        if inner is None:
            return
        # copied on the way, because the merged object shares parts with the old one
        copied = copy.copy(inner)
        if part.startswith("f:"):
            body[part[2:]] = copied
        else:
            body[body.index(inner)] = copied
        body = copied
        shape = _child(kind, shape, part[2:], root=index == 0) if part.startswith("f:") else shape.item()
    last = path[-1]
    if last.startswith("f:"):
        if isinstance(body, dict):
            body.pop(last[2:], None)
    elif isinstance(body, list):
        item = _step(body, last, shape)
        if item is not None:
            body.remove(item)
    for parent, part, _ in reversed(trail):
        if not body and part.startswith("f:") and part not in ("f:metadata", "f:spec"):
            parent.pop(part[2:], None)
            body = parent
        else:
            break
