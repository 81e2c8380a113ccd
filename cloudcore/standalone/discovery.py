"""What the server says it serves: /version, /api, /apis and the lists of resources, also aggregated.  Pure."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cloudcore.standalone.kinds import POD_STREAMS, Kind, Registry

Json = dict[str, Any]
VERSION = "v1.32.0"
"""The Kubernetes whose behaviour is followed; clients compare their own version with it."""
READ_WRITE = ["get", "patch", "update"]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_ODD: dict[str, tuple[str, str, str, list[str]]] = {
    "scale": ("autoscaling", "v1", "Scale", READ_WRITE),
    "binding": ("", "v1", "Binding", ["create"]),
    "eviction": ("policy", "v1", "Eviction", ["create"]),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ["create"]),
    "exec": ("", "v1", "PodExecOptions", ["create", "get"]),
    "attach": ("", "v1", "PodAttachOptions", ["create", "get"]),
    "portforward": ("", "v1", "PodPortForwardOptions", ["create", "get"]),
    "log": ("", "v1", "Pod", ["get"]),
    "finalize": ("", "v1", "Namespace", ["update"]),
    "proxy": ("", "v1", "NodeProxyOptions", ["get"]),
}


def version() -> Json:
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}+skerry",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def core_versions(address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(registry: Registry) -> Json:
    found = [group_body(registry, group, with_kind=False) for group in registry.group_versions() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group_body(registry: Registry, group: str, *, with_kind: bool = True) -> Json | None:
    versions = registry.group_versions().get(group)
    if not versions or not group:
        return None
    listed = [{"groupVersion": f"{group}/{name}", "version": name} for name in versions]
    body: Json = {"kind": "APIGroup", "apiVersion": "v1"} if with_kind else {}
    return {**body, "name": group, "versions": listed, "preferredVersion": listed[0]}


def resources(registry: Registry, group: str, version_name: str) -> Json | None:
    rows = [row for row in registry if row.group == group and row.version == version_name]
    if not rows:
        return None
    listed: list[Json] = []
    for row in sorted(rows, key=lambda item: item.plural):
        listed.append(_resource(row))
        listed += [_subresource(row, name) for name in served_subresources(row)]
    body: Json = {
        "kind": "APIResourceList",
        "groupVersion": f"{group}/{version_name}" if group else version_name,
    }
    if group:
        body["apiVersion"] = "v1"
    return {**body, "resources": listed}


def served_subresources(row: Kind) -> list[str]:
    """Of what the API can have below a kind; only nodes are proxied to, and only to be read."""
    names = [name for name in row.subresources if name != "proxy" or row.plural == "nodes"]
    return names if row.custom else sorted(names)


def _resource(row: Kind) -> Json:
    body: Json = {
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": list(row.verbs),
    }
    if row.short:
        body["shortNames"] = list(row.short)
    if row.categories:
        body["categories"] = list(row.categories)
    if not row.virtual:
        body["storageVersionHash"] = _hash(row)
    return body


def _hash(row: Kind) -> str:
    text = f"{row.group}/{row.storage_version or row.version}/{row.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _subresource(row: Kind, name: str) -> Json:
    group, version_name, kind, verbs = _shape(row, name)
    body: Json = {
        "name": f"{row.plural}/{name}",
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": kind,
        "verbs": verbs,
    }
    if group != row.group and name not in POD_STREAMS:
        body["group"], body["version"] = group, version_name
    return body


def _shape(row: Kind, name: str) -> tuple[str, str, str, list[str]]:
    return _ODD.get(name) or (row.group, row.version, row.kind, READ_WRITE)


def aggregated(registry: Registry, *, core: bool) -> Json:
    items = []
    for group, versions in registry.group_versions().items():
        if (group == "") is not core:
            continue
        listed = [
            {
                "version": name,
                "resources": [
                    _aggregated_resource(row)
                    for row in sorted(registry, key=lambda item: item.plural)
                    if row.group == group and row.version == name
                ],
                "freshness": "Current",
            }
            for name in versions
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(row: Kind) -> Json:
    body: Json = {
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular,
        "verbs": list(row.verbs),
    }
    if row.short:
        body["shortNames"] = list(row.short)
    if row.categories:
        body["categories"] = list(row.categories)
    below = []
    for name in served_subresources(row):
        group, version_name, kind, verbs = _shape(row, name)
        below.append(
            {
                "subresource": name,
                "responseKind": {"group": group, "version": version_name, "kind": kind},
                "verbs": verbs,
            }
        )
    if below:
        body["subresources"] = below
    return body
