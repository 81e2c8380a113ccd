"""OpenAPI documents for `kubectl explain` and for clients that validate: made on demand, kept on disk.

The shapes are those of coretypes.py, the texts come from `_generated/docs.json.gz`, custom kinds bring their own schemas.
Nothing is kept in memory: a document is asked for once per client and change."""

from __future__ import annotations

import gzip
import hashlib
import logging
from pathlib import Path
from typing import Any

import msgspec

from beehive.mergekeys import MERGE_KEYS, PRIMITIVE_MERGE
from cloudcore.standalone import coretypes, openapi_pb
from cloudcore.standalone.discovery import VERSION
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.mergekeys import (
    APPLY_KEYS,
    ATOMIC_STRUCTS,
    RETAIN_KEYS,
)

log = logging.getLogger(__name__)
Json = dict[str, Any]
_DOCS = Path(__file__).parent / "_generated" / "docs.json.gz"
_SCALARS: dict[str, Json] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "int-or-string": {"type": "string", "format": "int-or-string"},
    "object": {"type": "object"},
    "any": {},
}
_WRITE = ("dryRun", "fieldManager", "fieldValidation")


def _described(row: Kind) -> bool:
    """Measurements are not: nobody writes them."""
    return row.custom or row.model is not None


class OpenApi:
    """`cache` is a folder of ours; it may be emptied at any time."""

    def __init__(self, registry: Registry, cache: Path) -> None:
        self._registry = registry
        self._cache = cache

    def index(self) -> Json:
        paths = {}
        for group, versions in self._registry.group_versions().items():
            for version in versions:
                if not self._rows(group, version):
                    continue
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                tag = self._tag(group, version)
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={tag}"}
        return {"paths": paths}

    def v3(self, path: str) -> tuple[bytes, str] | None:
        """(document, tag) of `api/v1` or `apis/<group>/<version>`."""
        parts = path.strip("/").split("/")
        if len(parts) == 2 and parts[0] == "api":
            group, version = "", parts[1]
        elif len(parts) == 3 and parts[0] == "apis":
            group, version = parts[1], parts[2]
        else:
            return None
        rows = self._rows(group, version)
        if not rows:
            return None
        tag = self._tag(group, version)
        return self._kept(f"v3-{tag}", lambda: self._build_v3(rows)), tag

    def v2(self) -> tuple[bytes, str]:
        rows = [row for row in self._registry if _described(row)]
        tag = hashlib.sha256(repr([self._row_tag(row) for row in rows]).encode()).hexdigest()[:32].upper()
        return self._kept(f"v2-{tag}", lambda: self._build_v2(rows)), tag

    def v2_protobuf(self) -> tuple[bytes, str]:
        """The same document in the form that kubectl reads."""
        data, tag = self.v2()
        return self._kept(f"v2-{tag}-pb", lambda: openapi_pb.encode(msgspec.json.decode(data))), tag

    def _rows(self, group: str, version: str) -> list[Kind]:
        return [
            row for row in self._registry if row.group == group and row.version == version and _described(row)
        ]

    def _tag(self, group: str, version: str) -> str:
        text = repr([self._row_tag(row) for row in self._rows(group, version)])
        return hashlib.sha256(text.encode()).hexdigest()[:32].upper()

    def _row_tag(self, row: Kind) -> tuple[object, ...]:
        schema = hashlib.sha256(msgspec.json.encode(row.schema)).hexdigest() if row.schema else VERSION
        return (row.group, row.version, row.kind, row.plural, row.subresources, schema)

    def _kept(self, name: str, build: Any) -> bytes:
        path = self._cache / name
        try:
            return path.read_bytes()
        except OSError:
            pass
        built = build()
        data: bytes = built if isinstance(built, bytes) else msgspec.json.encode(built)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as error:
            log.warning("Cannot keep %s: %s", path, error)
        return data

    # building ----------------------------------------------------------------------------------------

    def _build_v3(self, rows: list[Kind]) -> Json:
        ref = "#/components/schemas/"
        schemas = _definitions(rows, ref)
        paths: Json = {}
        for row in rows:
            paths.update(_paths(row, ref, v3=True))
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _build_v2(self, rows: list[Kind]) -> Json:
        ref = "#/definitions/"
        paths: Json = {}
        for row in rows:
            paths.update(_paths(row, ref, v3=False))
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "definitions": _definitions(rows, ref),
        }


def definition_name(row: Kind) -> str:
    if row.custom:
        reversed_group = ".".join(reversed(row.group.split(".")))
        return f"{reversed_group}.{row.version}.{row.kind}"
    return _model_name(row.model or row.kind)


def _model_name(model: str) -> str:
    if model == "V1ObjectMeta":
        return "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    prefix = next((p for p in ("CoreV1", "EventsV1", "V1", "V2") if model.startswith(p)), "")
    group = {"CoreV1": "core.v1", "EventsV1": "events.v1", "V2": "v2"}.get(prefix, "v1")
    return f"io.k8s.api.{group}.{model.removeprefix(prefix)}"


def _definitions(rows: list[Kind], ref: str) -> Json:
    docs = msgspec.json.decode(gzip.decompress(_DOCS.read_bytes()))
    shapes = coretypes.shapes()
    found: Json = {}
    wanted = ["V1ObjectMeta"]
    tops = {row.model: row for row in rows if row.model in shapes}
    wanted += [model for model in tops if model]
    while wanted:
        model = wanted.pop()
        name = _model_name(model)
        if name in found:
            continue
        found[name] = _definition(model, docs.get(model, {}), ref)
        for kind in shapes[model]["f"].values():
            inner = kind.lstrip("[]{}")
            if inner in shapes:
                wanted.append(inner)
    for model, row in tops.items():
        if model:
            found[_model_name(model)]["x-kubernetes-group-version-kind"] = [_gvk(row)]
    for row in rows:
        if row.custom and row.schema is not None:
            schema = dict(row.schema)
            properties = dict(schema.get("properties") or {})
            properties["metadata"] = {
                "allOf": [{"$ref": ref + _model_name("V1ObjectMeta")}],
                "description": "Standard object's metadata.",
            }
            properties.setdefault("apiVersion", {"type": "string"})
            properties.setdefault("kind", {"type": "string"})
            schema["properties"] = properties
            schema["x-kubernetes-group-version-kind"] = [_gvk(row)]
            found[definition_name(row)] = schema
    return found


def _definition(model: str, docs: dict[str, str], ref: str) -> Json:
    shape = coretypes.shapes()[model]
    body: Json = {"type": "object"}
    if docs.get(""):
        body["description"] = docs[""]
    if model in ATOMIC_STRUCTS:
        body["x-kubernetes-map-type"] = "atomic"
    if shape["r"]:
        body["required"] = list(shape["r"])
    properties: Json = {}
    for name, kind in shape["f"].items():
        # what stands there in a schema may be of any type; elsewhere an object of no type of its own is one
        value = _type(kind.replace("object", "any") if model == "V1JSONSchemaProps" else kind, ref)
        if docs.get(name):
            value["description"] = docs[name]
        place = (model, name)
        if place in MERGE_KEYS:
            value["x-kubernetes-patch-merge-key"] = MERGE_KEYS[place]
            value["x-kubernetes-patch-strategy"] = "merge,retainKeys" if place in RETAIN_KEYS else "merge"
        elif place in PRIMITIVE_MERGE:
            value["x-kubernetes-patch-strategy"] = "merge"
        elif place in RETAIN_KEYS:
            value["x-kubernetes-patch-strategy"] = "retainKeys"
        if APPLY_KEYS.get(place):
            value["x-kubernetes-list-type"] = "map"
            value["x-kubernetes-list-map-keys"] = list(APPLY_KEYS[place])
        elif kind.startswith("[]"):
            value["x-kubernetes-list-type"] = "set" if place in PRIMITIVE_MERGE else "atomic"
        properties[name] = value
    body["properties"] = properties
    return body


def _type(kind: str, ref: str) -> Json:
    if kind.startswith("[]"):
        return {"type": "array", "items": _type(kind[2:], ref)}
    if kind.startswith("{}"):
        return {"type": "object", "additionalProperties": _type(kind[2:], ref)}
    if kind in coretypes.shapes():
        if ref.startswith("#/components"):
            return {"allOf": [{"$ref": ref + _model_name(kind)}]}
        return {"$ref": ref + _model_name(kind)}
    return dict(_SCALARS.get(kind, {"type": "object"}))


def _gvk(row: Kind) -> Json:
    return {"group": row.group, "version": row.version, "kind": row.kind}


def _paths(row: Kind, ref: str, *, v3: bool) -> Json:
    """Just what clients read: which verbs take which options, and whose schema a path is about."""
    root = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    middle = "/namespaces/{namespace}" if row.namespaced else ""
    whole = f"{root}{middle}/{row.plural}"
    one = f"{whole}/{{name}}"

    def operation(action: str) -> Json:
        scalar: Json = {"schema": {"type": "string"}} if v3 else {"type": "string"}
        parameters = [{"name": name, "in": "query", **scalar} for name in _WRITE]
        target: Json = {"$ref": ref + definition_name(row)}
        answer: Json = {"description": "OK"}
        answer |= {"content": {"application/json": {"schema": target}}} if v3 else {"schema": target}
        return {
            "operationId": f"{action}{row.kind}",
            "parameters": parameters,
            "responses": {"200": answer},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(row),
        }

    found: Json = {}
    if "create" in row.verbs:
        found.setdefault(whole, {})["post"] = operation("post")
    for verb, method in (("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")):
        if verb in row.verbs:
            found.setdefault(one, {})[method] = operation(method)
    return found
