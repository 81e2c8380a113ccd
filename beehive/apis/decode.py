"""Read a Kubernetes object of our kinds from JSON, as forgivingly as Go's decoder and no more.  Pure.

Go matches object keys without regard to case and takes `null` for "not given", and manifests and peers in the field depend on
both (`TDEngine` is written in five ways).  So the parsed document is first brought to the spelling of the wanted struct, then
converted.  Unknown keys are ignored.  Maps whose keys belong to the user (labels, configData) keep their keys untouched.

Of two keys that differ only in case the last one counts, as in Go.
Source: encoding/json, Unmarshal; protocol notes on devices, pitfall 11."""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from beehive.errors import ProtocolError

T = TypeVar("T")

MAX_OBJECT_BYTES = 3 * 1024 * 1024  # what a kube-apiserver accepts as one request body

_Fold = Callable[[Any], Any]


class ObjectError(ProtocolError):
    """The peer's object is not what its kind allows; the text names the path."""


def decode(data: bytes | str, kind: type[T]) -> T:
    """Read one object.  Raises: ObjectError."""
    if len(data) > MAX_OBJECT_BYTES:
        raise ObjectError(f"cannot read {kind.__name__}: {len(data)} bytes are more than {MAX_OBJECT_BYTES}")
    try:
        parsed = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ObjectError(f"cannot read {kind.__name__}: {error}") from error
    return convert(parsed, kind)


def convert(parsed: Any, kind: type[T]) -> T:
    """Make a `kind` of already parsed JSON.  Raises: ObjectError."""
    try:
        return msgspec.convert(_folder(cast("Hashable", kind))(parsed), kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise ObjectError(f"cannot read {kind.__name__}: {error}") from error


def _keep(value: Any) -> Any:
    return value


@lru_cache(maxsize=256)
def _folder(kind: Any) -> _Fold:
    """The function that brings a parsed value to the spelling of `kind`."""
    return _build(inspect.type_info(kind))


def _build(info: inspect.Type) -> _Fold:
    if isinstance(info, inspect.StructType):
        return _struct(info)
    if isinstance(info, inspect.ListType):
        return _items(_build(info.item_type))
    if isinstance(info, inspect.DictType):
        return _values(_build(info.value_type))
    if isinstance(info, inspect.UnionType):
        # Our unions are "this or nothing": one member has a shape, the other is None.
        shaped = [fold for fold in map(_build, info.types) if fold is not _keep]
        return shaped[0] if shaped else _keep
    return _keep


def _struct(info: inspect.StructType) -> _Fold:
    fields = {f.encode_name.lower(): (f.encode_name, _build(f.type)) for f in info.fields}

    def fold(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        out: dict[str, Any] = {}
        for key, item in value.items():
            known = fields.get(key.lower())
            if known is None:
                continue
            name, inner = known
            if item is None:
                out.pop(name, None)
            else:
                out[name] = inner(item)
        return out

    return fold


def _items(inner: _Fold) -> _Fold:
    if inner is _keep:
        return _keep
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _values(inner: _Fold) -> _Fold:
    if inner is _keep:
        return _keep
    return lambda value: {k: inner(v) for k, v in value.items()} if isinstance(value, dict) else value
