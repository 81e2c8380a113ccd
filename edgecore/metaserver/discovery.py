"""What a client without a link is told of the kinds that there are.  Pure.

Used only for paths that were never asked for while the cloud could answer; what it answered is kept and better.
Source: Kubernetes, meta/v1 APIVersions, APIGroupList, APIGroup and APIResourceList."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive import kinds

_ROWS = (*kinds.TABLE, *kinds.MEASURED)
_READ = ["get", "list"]
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def document(path: str) -> bytes | None:
    """The discovery document at `path`, or None when the table knows nothing there."""
    parts = path.strip("/").split("/")
    found: dict[str, Any] | None = None
    match parts:
        case ["api"]:
            found = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = sorted({row.group for row in _ROWS} - {""})
            found = {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name) for name in groups],
            }
        case ["apis", name] if any(row.group == name for row in _ROWS):
            found = {"kind": "APIGroup", "apiVersion": "v1"} | _group(name)
        case ["api", version]:
            found = _resources("", version)
        case ["apis", name, version]:
            found = _resources(name, version)
    return msgspec.json.encode(found) if found is not None else None


def _group(name: str) -> dict[str, Any]:
    versions = sorted({row.version for row in _ROWS if row.group == name}, reverse=True)
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(group: str, version: str) -> dict[str, Any] | None:
    rows = [row for row in _ROWS if (row.group, row.version) == (group, version)]
    if not rows:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [
            {
                "name": row.plural,
                "singularName": row.kind.lower(),
                "namespaced": row.namespaced,
                "kind": row.kind,
                "verbs": _READ if group == "metrics.k8s.io" else _VERBS,
                "shortNames": list(row.short),
            }
            for row in rows
        ],
    }
