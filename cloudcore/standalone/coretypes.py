"""The shapes of the built-in kinds: decode an object as a typed API server would.

Loaded from `_generated/types.json`.  Decoding drops nulls and unknown fields (and names the latter), writes quantities
in canonical form, and refuses a value of the wrong type with the words Go's decoder uses."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from cloudcore.standalone import quantity
from cloudcore.standalone.mergekeys import QUANTITIES

_PATH = Path(__file__).parent / "_generated" / "types.json"


class WrongType(ValueError):
    """A value cannot be of that field's type; the text is Go's."""


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """model → {"f": {field: type}, "r": [required fields]}.  Types: str int bool float datetime bytes object
    int-or-string, a model, `[]T`, `{}T`."""
    raw = msgspec.json.decode(_PATH.read_bytes())
    return {
        sys.intern(model): {
            "f": {sys.intern(name): sys.intern(kind) for name, kind in shape["f"].items()},
            "r": tuple(shape.get("r", ())),
        }
        for model, shape in raw.items()
    }


def field_type(model: str, name: str) -> str | None:
    shape = shapes().get(model)
    return None if shape is None else shape["f"].get(name)


def decode(model: str, value: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A cleaned copy of `value`, and the paths of the fields that `model` does not have.

    Raises WrongType."""
    unknown: list[str] = []
    return _struct(model, value, "", unknown), unknown


def _struct(model: str, value: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
    fields = shapes()[model]["f"]
    clean: dict[str, Any] = {}
    for name, item in value.items():
        kind = fields.get(name)
        if kind is None:
            unknown.append(f"{path}{name}")
            continue
        if item is None:
            continue
        if (model, name) in QUANTITIES:
            clean[name] = _quantities(kind, item, model, f"{path}{name}")
        else:
            clean[name] = _value(kind, item, model, f"{path}{name}", unknown)
    return clean


def _quantities(kind: str, value: Any, model: str, path: str) -> Any:
    if not kind.startswith("{}"):
        return quantity.canonical(value)
    if not isinstance(value, dict):
        raise _mismatch(value, model, path, kind)
    return {name: quantity.canonical(amount) for name, amount in value.items()}


def _value(kind: str, value: Any, model: str, path: str, unknown: list[str]) -> Any:
    if kind == "str" or kind == "bytes" or kind == "datetime":
        if not isinstance(value, str):
            raise _mismatch(value, model, path, kind)
        return value
    if kind.startswith("[]"):
        if not isinstance(value, list):
            raise _mismatch(value, model, path, kind)
        inner = kind[2:]
        return [
            _value(inner, item, model, f"{path}[{index}]", unknown)
            for index, item in enumerate(value)
            if item is not None
        ]
    if kind.startswith("{}"):
        if not isinstance(value, dict):
            raise _mismatch(value, model, path, kind)
        inner = kind[2:]
        return {
            name: "" if item is None else _value(inner, item, model, f"{path}.{name}", unknown)
            for name, item in value.items()
            if item is not None or inner == "str"
        }
    if kind == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
                return int(value)
            raise _mismatch(value, model, path, kind)
        if not -(1 << 63) <= value < 1 << 63:
            raise _mismatch(value, model, path, kind)
        return value
    if kind == "bool":
        if not isinstance(value, bool):
            raise _mismatch(value, model, path, kind)
        return value
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _mismatch(value, model, path, kind)
        return value
    if kind == "int-or-string":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _mismatch(value, model, path, kind)
        return value
    if kind == "object":
        return value
    if not isinstance(value, dict):
        raise _mismatch(value, model, path, kind)
    return _struct(kind, value, path + ".", unknown)


_GO = {
    "str": "string",
    "int": "int32",
    "float": "float64",
    "datetime": "string",
    "bytes": "string",
    "int-or-string": "intstr.IntOrString",
    "object": "interface {}",
}


def _go_type(kind: str) -> str:
    if kind.startswith("[]"):
        return "[]" + _go_type(kind[2:])
    if kind.startswith("{}"):
        return "map[string]" + _go_type(kind[2:])
    return _GO.get(kind) or (f"v1.{short_name(kind)}" if kind in shapes() else kind)


def short_name(model: str) -> str:
    """`V1PodSpec` as `PodSpec`."""
    for prefix in ("V1", "V2", "CoreV1", "EventsV1"):
        if model.startswith(prefix):
            return model.removeprefix(prefix)
    return model


def _mismatch(value: Any, model: str, path: str, kind: str) -> WrongType:
    if isinstance(value, bool):
        seen = "bool"
    elif isinstance(value, str):
        seen = "string"
    elif isinstance(value, int | float):
        seen = "number"
    elif isinstance(value, list):
        seen = "array"
    else:
        seen = "object"
    where = "".join(part.partition("[")[0] + "." for part in path.split(".")).rstrip(".")
    return WrongType(
        f"json: cannot unmarshal {seen} into Go struct field {short_name(model)}.{where} of type {_go_type(kind)}"
    )
