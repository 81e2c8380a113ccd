"""Names, labels, annotations, finalizers and owners of objects of every kind.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudcore.standalone.ids import Key
from cloudcore.standalone.status import (
    Cause,
    invalid_value,
    required,
    too_long,
)
from cloudcore.standalone.validation.names import (
    DNS_1035,
    DNS_1035_TEXT,
    DNS_LABEL,
    DNS_SUBDOMAIN,
    LABEL_TEXT,
    QUALIFIED,
    SUBDOMAIN_TEXT,
    qualified,
)

Json = dict[str, Any]

LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
LABEL_NAMES: frozenset[Key] = frozenset({("", "namespaces")})
DNS_1035_NAMES: frozenset[Key] = frozenset({("", "services")})
PATH_NAMES = frozenset({"rbac.authorization.k8s.io"})
MAX_ANNOTATION_BYTES = 256 * 1024


def on_metadata(key: Key, metadata: Json, *, custom: bool = False) -> Iterator[Cause]:
    """Names, labels, annotations, finalizers and owners."""
    yield from _name(key, metadata)
    for field in ("labels", "annotations"):
        for name, value in (metadata.get(field) or {}).items():
            yield from qualified(f"metadata.{field}", name if field == "labels" else name.lower())
            if field == "labels" and (len(value) > 63 or (value and not QUALIFIED.fullmatch(value))):
                yield invalid_value("metadata.labels", value, LABEL_VALUE_TEXT)
    if sum(len(n) + len(v) for n, v in (metadata.get("annotations") or {}).items()) > MAX_ANNOTATION_BYTES:
        yield too_long("metadata.annotations", MAX_ANNOTATION_BYTES)
    for name in metadata.get("finalizers") or ():
        if "/" not in name and name not in ("orphan", "foregroundDeletion", "kubernetes"):
            yield invalid_value(
                "metadata.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            )
    controllers = 0
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield invalid_value(
                    f"metadata.ownerReferences[{index}].{field}",
                    owner.get(field, ""),
                    f"{field} must not be empty",
                )
        controllers += owner.get("controller") is True
    if controllers > 1:
        yield invalid_value(
            "metadata.ownerReferences", None, "Only one reference can have Controller set to true"
        )


def _name(key: Key, metadata: Json) -> Iterator[Cause]:
    name, field = metadata.get("name", ""), "metadata.name"
    if not name:
        yield required(field, "name or generateName is required")
    elif key[0] in PATH_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            yield invalid_value(field, name, "may not contain '/' or '%'")
    elif key in DNS_1035_NAMES:
        if len(name) > 63:
            yield invalid_value(field, name, "must be no more than 63 characters")
        if not DNS_1035.fullmatch(name):
            yield invalid_value(field, name, DNS_1035_TEXT)
    elif key in LABEL_NAMES:
        if len(name) > 63:
            yield invalid_value(field, name, "must be no more than 63 characters")
        if not DNS_LABEL.fullmatch(name):
            yield invalid_value(field, name, LABEL_TEXT)
    else:
        if len(name) > 253:
            yield invalid_value(field, name, "must be no more than 253 characters")
        if not DNS_SUBDOMAIN.fullmatch(name):
            yield invalid_value(field, name, SUBDOMAIN_TEXT)
