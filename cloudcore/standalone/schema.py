"""Structural schemas of custom resources: prune, default and validate.  Pure.

Source: apiextensions, pkg/apiserver/schema/{pruning,defaulting} and kube-openapi's validation; texts from the
recordings.  `x-kubernetes-validations` are evaluated in rules.py."""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from cloudcore.standalone.status import Cause, duplicate, invalid_value, required, show, unsupported

Json = dict[str, Any]
ROOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"


def prune(schema: Json, body: Json) -> tuple[Json, list[str]]:
    """A copy of a whole object without fields the schema does not know, and the paths of those."""
    unknown: list[str] = []
    clean: Json = {name: body[name] for name in ROOT_FIELDS if name in body}
    rest = {name: value for name, value in body.items() if name not in ROOT_FIELDS}
    clean.update(_prune(schema, rest, "", unknown))
    return clean, unknown


def _prune(schema: Json, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        keep = schema.get(PRESERVE) is True
        clean = {}
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            if schema.get(EMBEDDED) and name in ROOT_FIELDS:
                clean[name] = item
            elif name in properties:
                clean[name] = _prune(properties[name], item, where, unknown)
            elif isinstance(extra, dict):
                clean[name] = _prune(extra, item, where, unknown)
            elif keep or extra is True:
                clean[name] = item
            else:
                unknown.append(where)
        return clean
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            return [_prune(items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    return value


def apply_defaults(schema: Json, body: Any) -> None:
    """Fill in defaults, in place.  Nulls of fields that are not nullable and have a default count as absent."""
    if isinstance(body, dict):
        properties = schema.get("properties") or {}
        for name, child in properties.items():
            if not isinstance(child, dict):
                continue
            if body.get(name) is None and name in body and not child.get("nullable"):
                del body[name]
            if name not in body and "default" in child:
                body[name] = copy.deepcopy(child["default"])
            if name in body:
                apply_defaults(child, body[name])
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for name, value in body.items():
                if name not in properties:
                    apply_defaults(extra, value)
    elif isinstance(body, list) and isinstance(schema.get("items"), dict):
        for item in body:
            apply_defaults(schema["items"], item)


def validate(schema: Json, body: Json) -> list[Cause]:
    """Every fault of a whole object; metadata is checked elsewhere."""
    root = {name: value for name, value in schema.items() if name != "properties"}
    root["properties"] = {
        name: child for name, child in (schema.get("properties") or {}).items() if name not in ROOT_FIELDS
    }
    rest = {name: value for name, value in body.items() if name not in ROOT_FIELDS}
    root["required"] = [name for name in schema.get("required") or () if name not in ROOT_FIELDS]
    return list(_validate(root, rest, ""))


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _validate(schema: Json, value: Any, path: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    if schema.get(INT_OR_STRING):
        if _type_of(value) not in ("integer", "string"):
            yield _wrong_type(path, value, "integer,string")
        return
    wanted, seen = schema.get("type"), _type_of(value)
    if wanted and seen != wanted and not (wanted == "number" and seen == "integer"):
        yield _wrong_type(path, value, wanted)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(
            path, value, [item if isinstance(item, str) else show(item) for item in schema["enum"]]
        )
    if seen == "object":
        yield from _object(schema, value, path)
    elif seen == "array":
        yield from _array(schema, value, path)
    elif seen == "string":
        yield from _string(schema, value, path)
    elif seen in ("integer", "number"):
        yield from _number(schema, value, path)
    for child in schema.get("allOf") or ():
        yield from _validate(child, value, path)
    if schema.get("anyOf") and all(
        any(True for _ in _validate(child, value, path)) for child in schema["anyOf"]
    ):
        yield invalid_value(
            path, value if seen != "object" else "", f'"{path}" must validate at least one schema (anyOf)'
        )
    if schema.get("oneOf"):
        good = sum(not any(True for _ in _validate(child, value, path)) for child in schema["oneOf"])
        if good != 1:
            yield invalid_value(
                path,
                value if seen != "object" else "",
                f'"{path}" must validate one and only one schema (oneOf). Found {good or "none"} valid'
                if good
                else f'"{path}" must validate one and only one schema (oneOf). Found none valid',
            )
    if schema.get("not") and not any(True for _ in _validate(schema["not"], value, path)):
        yield invalid_value(
            path, value if seen != "object" else "", f'"{path}" must not validate the schema (not)'
        )


def _wrong_type(path: str, value: Any, wanted: str) -> Cause:
    seen = _type_of(value)
    return Cause(
        reason="FieldValueTypeInvalid",
        field=path,
        text=f'Invalid value: "{seen}": {path} in body must be of type {wanted}: "{seen}"',
    )


def _object(schema: Json, value: Json, path: str) -> Iterator[Cause]:
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for name in schema.get("required") or ():
        if name not in value:
            yield required(f"{path}.{name}" if path else name)
    if len(value) < schema.get("minProperties", 0):
        yield invalid_value(
            path, len(value), f"{path} in body should have at least {schema['minProperties']} properties"
        )
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        yield Cause(
            reason="FieldValueTooMany",
            field=path,
            text=f"Too many: {len(value)}: must have at most {schema['maxProperties']} items",
        )
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if name in properties:
            yield from _validate(properties[name], item, where)
        elif isinstance(extra, dict):
            yield from _validate(extra, item, where)


def _array(schema: Json, value: list[Any], path: str) -> Iterator[Cause]:
    if len(value) < schema.get("minItems", 0):
        yield invalid_value(
            path, len(value), f"{path} in body should have at least {schema['minItems']} items"
        )
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield Cause(
            reason="FieldValueTooMany",
            field=path,
            text=f"Too many: {len(value)}: must have at most {schema['maxItems']} items",
        )
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _validate(items, item, f"{path}[{index}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set" or schema.get("uniqueItems"):
        for index, item in enumerate(value):
            if item in value[:index]:
                yield duplicate(f"{path}[{index}]", item)
    elif kind == "map":
        keys = schema.get("x-kubernetes-list-map-keys") or []
        seen = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                identity = {key: item.get(key) for key in keys}
                if identity in seen:
                    yield duplicate(f"{path}[{index}]", identity)
                seen.append(identity)


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str] | None:
    """A definition's pattern; None when Python cannot read it, and then it is not checked."""
    try:
        return re.compile(text)
    except re.error:
        return None


def _string(schema: Json, value: str, path: str) -> Iterator[Cause]:
    if len(value) < schema.get("minLength", 0):
        yield invalid_value(
            path, value, f"{path} in body should be at least {schema['minLength']} chars long"
        )
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield Cause(
            reason="FieldValueTooLong",
            field=path,
            text=f"Too long: may not be more than {schema['maxLength']} bytes",
        )
        return
    if "pattern" in schema:
        pattern = _pattern(schema["pattern"])
        if pattern is not None and not pattern.search(value):
            yield invalid_value(path, value, f"{path} in body should match '{schema['pattern']}'")
    if "format" in schema and not _has_format(schema["format"], value):
        yield invalid_value(path, value, f"{path} in body must be of type {schema['format']}: {show(value)}")


def _has_format(name: str, value: str) -> bool:
    try:
        if name == "date-time":
            datetime.fromisoformat(value)
        elif name == "date":
            datetime.strptime(value, "%Y-%m-%d")  # noqa: DTZ007 - only the form is of interest
        elif name == "ipv4":
            ipaddress.IPv4Address(value)
        elif name == "ipv6":
            ipaddress.IPv6Address(value)
        elif name == "cidr":
            ipaddress.ip_network(value, strict=False)
        elif name == "uuid":
            return bool(re.fullmatch(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", value))
    except ValueError:
        return False
    return True


def _number(schema: Json, value: float, path: str) -> Iterator[Cause]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        if schema.get("exclusiveMinimum") and value <= low:
            yield invalid_value(path, value, f"{path} in body should be greater than {show(low)}")
        elif value < low:
            yield invalid_value(path, value, f"{path} in body should be greater than or equal to {show(low)}")
    if high is not None:
        if schema.get("exclusiveMaximum") and value >= high:
            yield invalid_value(path, value, f"{path} in body should be less than {show(high)}")
        elif value > high:
            yield invalid_value(path, value, f"{path} in body should be less than or equal to {show(high)}")
    step = schema.get("multipleOf")
    if step and value % step:
        yield invalid_value(path, value, f"{path} in body should be a multiple of {show(step)}")
