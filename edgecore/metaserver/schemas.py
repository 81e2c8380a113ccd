"""What a client without a link is told of the kinds' schemas, where the cloud's were never asked for.  Pure.

`kubectl apply`, `edit` and `replace` look there whether the server checks fields itself, and do nothing without an answer.  It
does, once the cloud sees the write, so they are told yes; of the fields nothing is known here, and `kubectl explain` says so.

Source: Kubernetes, /openapi/v3; kubectl, resource.QueryParamVerifierV3."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive.message import UNREADABLE

Json = dict[str, Any]
ROOT = "/openapi/v3"
UNKNOWN = "The fields of this kind are not known on this node: ask once while it can reach the cloud."


def resources_path(path: str) -> str:
    """Where the resources of the group are told whose schema is at `path`; empty for other paths."""
    return path.removeprefix(ROOT) if path.startswith(f"{ROOT}/") else ""


def root(groups: bytes) -> bytes:
    """Where the schema of each group is.   groups: an APIGroupList, as kept.   An unreadable one has no groups."""
    found = ["api/v1"]
    for group in _listed(groups, "groups"):
        found += [f"apis/{version['groupVersion']}" for version in group.get("versions") or ()]
    return msgspec.json.encode({"paths": {path: {"serverRelativeURL": f"{ROOT}/{path}"} for path in found}})


def group(path: str, resources: bytes) -> bytes:
    """The schema of one group.   path: where its resources are.   resources: an APIResourceList, as kept."""
    name, _, version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")
    paths: Json = {}
    schemas: Json = {}
    for row in _listed(resources, "resources"):
        kind, plural = row.get("kind"), row.get("name")
        if not isinstance(kind, str) or not isinstance(plural, str) or "/" in plural:
            continue
        meant = {"group": name, "version": version, "kind": kind}
        where = f"{path}/namespaces/{{namespace}}/{plural}" if row.get("namespaced") else f"{path}/{plural}"
        label = f"{name or 'core'}.{version}.{kind}"
        schemas[label] = {
            "type": "object",
            "description": UNKNOWN,
            "x-kubernetes-group-version-kind": [meant],
        }
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{label}"}}}
        answer = {"200": {"description": "OK", "content": content}}
        paths[where] = {"get": _operation("list", meant, answer), "post": _operation("post", meant, answer)}
        paths[f"{where}/{{name}}"] = {
            "get": _operation("get", meant, answer),
            "patch": _operation("patch", meant, answer),
        }
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "unknown"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def _operation(action: str, meant: Json, answer: Json) -> Json:
    found: Json = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": meant,
        "responses": answer,
    }
    if action in ("post", "patch"):
        check = {
            "name": "fieldValidation",
            "in": "query",
            "schema": {"type": "string", "uniqueItems": True},
        }
        found["parameters"] = [check]
    return found


def _listed(document: bytes, name: str) -> list[Json]:
    try:
        found = msgspec.json.decode(document)
    except UNREADABLE:
        return []
    rows = found.get(name) if isinstance(found, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
