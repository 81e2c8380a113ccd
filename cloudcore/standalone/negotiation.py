"""Bodies in and out: which form the client wants, and reading what it sent within bounds.  Pure.

JSON in and out by msgspec, YAML by PyYAML.  Duplicate keys are looked for only when the client asks to validate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from beehive import protobuf
from cloudcore.standalone.status import bad_request, not_acceptable, unsupported_media_type

Json = dict[str, Any]
MAX_BODY_BYTES = 3 * 1024 * 1024
"""As the API server's limit."""
MAX_DEPTH = 100
"""Nesting of a body.  The deepest of our definitions is at 30."""
AVAILABLE = (
    "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, "
    "application/vnd.kubernetes.protobuf;stream=watch"
)
ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(frozen=True, slots=True)
class Form:
    """How to show an answer.  `shape`: "", Table, PartialObjectMetadata or PartialObjectMetadataList."""

    shape: str = ""
    yaml: bool = False
    aggregated: bool = False


def negotiate(accept: str) -> Form:
    """The first acceptable form.  Raises ApiError (406)."""
    if not accept.strip():
        return Form()
    for choice in accept.split(","):
        kind, *parameters = (part.strip() for part in choice.split(";"))
        options = dict(part.split("=", 1) for part in parameters if "=" in part)
        if kind in ("application/json", "*/*", "application/*"):
            shape = options.get("as", "")
            if shape == "APIGroupDiscoveryList":
                if options.get("v") == "v2":
                    return Form(aggregated=True)
                continue
            if shape in ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
                if shape and (options.get("g") != "meta.k8s.io" or options.get("v") not in ("v1", "v1beta1")):
                    continue
                return Form(shape=shape)
        elif kind == "application/yaml" and "as" not in options:
            return Form(yaml=True)
    raise not_acceptable(AVAILABLE)


class _Loader(yaml.CSafeLoader):
    """YAML as JSON knows it: without timestamps as objects, and with texts as the names of fields."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        return {_name(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


def _name(key: Any) -> str:
    """`true: x` and `1: x` as kubectl turns them into JSON.   Source: sigs.k8s.io/yaml, convertToJSONableObject."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise bad_request(f"error decoding YAML: the name of a field is no text: {str(key)[:64]}")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(data: bytes) -> Any:
    """One document.  Raises ApiError (400)."""
    try:
        # an alias could make a small body a huge object
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=yaml.CSafeLoader)):
            raise bad_request("error decoding YAML: aliases are not accepted")
        return yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise bad_request(f"error decoding YAML: {str(error)[:256]}") from error


def load_object(data: bytes, content_type: str, kind: str, *, duplicates: bool) -> tuple[Json, list[str]]:
    """(object, paths of duplicate fields).  Raises ApiError: 400 malformed, 415 unknown type."""
    media = content_type.partition(";")[0].strip().lower()
    if media in ("application/yaml", "application/x-yaml"):
        value = load_yaml(data)
        found: list[str] = []
    elif media == "application/vnd.kubernetes.protobuf":
        try:
            value, found = protobuf.decode(data), []
        except protobuf.BadProtobuf as error:
            raise bad_request(str(error)) from error
    elif media in ("application/json", ""):
        value, found = _load_json(data, kind, duplicates=duplicates)
    else:
        raise unsupported_media_type(ACCEPTED)
    if not isinstance(value, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: json: cannot unmarshal {_seen(value)} into Go value of type struct"
        )
    check_depth(value)
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise bad_request(
            f"json: cannot unmarshal {_seen(metadata)} into Go struct field {kind}.metadata of type v1.ObjectMeta"
        )
    return value, found


def load_json(data: bytes) -> Any:
    """Any JSON value.  Raises ApiError (400)."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {error}") from error
    check_depth(value)
    return value


def _load_json(data: bytes, kind: str, *, duplicates: bool) -> tuple[Any, list[str]]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error)
        if "truncated" in text:
            text = "unexpected end of JSON input"
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: {text} ({data[:64].decode(errors='replace')})"
        ) from error
    found: list[str] = []
    if duplicates and isinstance(value, dict):
        check_depth(value)
        found = list(_duplicates(json.loads(data, object_pairs_hook=_Pairs), ""))
    return value, found


class _Pairs(dict[str, Any]):
    """An object that remembers which keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: list[str] = []
        if len(self) != len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen and name not in self.twice:
                    self.twice.append(name)
                seen.add(name)


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        for name in value.twice:
            yield path + name
        for name, item in value.items():
            yield from _duplicates(item, f"{path}{name}.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, f"{path.rstrip('.')}[{index}].")


def check_depth(value: Any) -> None:
    """Refuse what is nested too deeply, without recursion.  Raises ApiError (400)."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = (
            [
                item
                for holder in level
                for item in (holder.values() if isinstance(holder, dict) else holder)
                if isinstance(item, dict | list)
            ]
            if isinstance(value, dict | list)
            else []
        )
        if not level:
            return
    raise bad_request(f"the object is nested more than {MAX_DEPTH} levels deep")


def _seen(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "number" if isinstance(value, int | float) else "null"


def dump_yaml(value: Any) -> bytes:
    text: str = yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True)
    return text.encode()
