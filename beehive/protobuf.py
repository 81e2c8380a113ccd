"""Read bodies in Kubernetes' protobuf, which typed Go clients send (kubectl create among them).  Pure.

The control plane in the box reads them, and an edge that keeps a write until the cloud is back.  The answer is the object as
JSON would have it.  We never write protobuf: those clients accept JSON too.
Source: apimachinery, pkg/runtime/serializer/protobuf; protobuf's encoding guide; `_generated/protobuf.json`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]
MAGIC = b"k8s\x00"
MAX_DEPTH = 60
_PATH = Path(__file__).parent / "_generated" / "protobuf.json"
_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_UTIL = "k8s.io.apimachinery.pkg."

POINTERS = frozenset(
    [
        "activeDeadlineSeconds",
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "backoffLimit",
        "backoffLimitPerIndex",
        "blockOwnerDeletion",
        "completions",
        "controller",
        "defaultMode",
        "deletionGracePeriodSeconds",
        "enableServiceLinks",
        "expirationSeconds",
        "failedJobsHistoryLimit",
        "fsGroup",
        "gracePeriodSeconds",
        "hostUsers",
        "immutable",
        "leaseDurationSeconds",
        "leaseTransitions",
        "manualSelector",
        "minReplicas",
        "mode",
        "optional",
        "orphanDependents",
        "parallelism",
        "partition",
        "priority",
        "privileged",
        "procMount",
        "progressDeadlineSeconds",
        "readOnlyRootFilesystem",
        "ready",
        "replicas",
        "restartCount",
        "revisionHistoryLimit",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "serving",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "started",
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "suspend",
        "terminating",
        "terminationGracePeriodSeconds",
        "tolerationSeconds",
        "ttlSecondsAfterFinished",
        "value",
    ]
)
"""Fields where zero or false means something; elsewhere Go sends zeros for what was left out, and JSON omits them."""


EMBEDDED = {
    "ConfigMapEnvSource": "localObjectReference",
    "ConfigMapKeySelector": "localObjectReference",
    "ConfigMapProjection": "localObjectReference",
    "ConfigMapVolumeSource": "localObjectReference",
    "EphemeralContainer": "ephemeralContainerCommon",
    "IngressRule": "ingressRuleValue",
    "PersistentVolumeSpec": "persistentVolumeSource",
    "Probe": "handler",
    "RuleWithOperations": "rule",
    "SecretEnvSource": "localObjectReference",
    "SecretKeySelector": "localObjectReference",
    "SecretProjection": "localObjectReference",
    "Volume": "volumeSource",
}
"""Messages with a struct in them whose fields JSON shows beside those of its holder."""


class BadProtobuf(ValueError):
    """The body is not an object of a kind that is known here."""


@cache
def _table() -> Json:
    value: Json = msgspec.json.decode(_PATH.read_bytes())
    return value


def decode(data: bytes) -> Json:
    """The object in an envelope.  Raises BadProtobuf."""
    if not data.startswith(MAGIC):
        raise BadProtobuf("the body is not in Kubernetes' protobuf envelope")
    try:
        return _decode(memoryview(data)[len(MAGIC) :])
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError, msgspec.DecodeError) as error:
        raise BadProtobuf(f"cannot read protobuf: {error}") from error


def _decode(envelope: memoryview) -> Json:
    version = kind = ""
    raw = memoryview(b"")
    for number, _, value in _fields(envelope):
        if number == 1 and isinstance(value, memoryview):
            for inner, _, text in _fields(value):
                if isinstance(text, memoryview):
                    if inner == 1:
                        version = bytes(text).decode()
                    elif inner == 2:
                        kind = bytes(text).decode()
        elif number == 2 and isinstance(value, memoryview):
            raw = value
    name = _table()["kinds"].get(f"{version}/{kind}")
    if name is None and kind == "DeleteOptions":
        name = _META + "DeleteOptions"
    if name is None:
        raise BadProtobuf(f"{version} {kind} is not known in protobuf")
    return {"kind": kind, "apiVersion": version, **_message(name, raw, 0)}


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise IndexError("truncated field")
            yield number, wire, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                raise IndexError("truncated field")
            yield number, wire, data[at : at + size]
            at += size
        else:
            raise IndexError(f"wire type {wire}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("number too long")


def _message(name: str, data: memoryview, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadProtobuf(f"the object is nested more than {MAX_DEPTH} levels deep")
    special = _SPECIAL.get(name)
    if special is not None:
        return special(data)
    known = _table()["messages"].get(name)
    if known is None:
        raise BadProtobuf(f"{name} is not known in protobuf")
    embedded = EMBEDDED.get(name.rpartition(".")[2])
    found: Json = {}
    for number, _, value in _fields(data):
        entry = known.get(str(number))
        if entry is None:
            raise BadProtobuf(f"{name} has no field {number} here: the client is newer than this server")
        field, kind = entry
        if kind.startswith("{}"):
            key, item = _entry(kind[2:], value, depth)
            found.setdefault(field, {})[key] = item
        elif kind.startswith("[]"):
            found.setdefault(field, []).append(_value(kind[2:], value, depth))
        else:
            item = _value(kind, value, depth)
            if isinstance(item, dict) and field == embedded:
                found.update(item)
            elif item is not None and not _left_out(field, item):
                found[field] = item
    return found


def _left_out(field: str, item: Any) -> bool:
    if item == "":
        return True
    zero = item is False or (isinstance(item, int) and item == 0)
    return zero and field not in POINTERS


def _value(kind: str, value: int | memoryview, depth: int) -> Any:
    if isinstance(value, int):
        if kind == "bool":
            return value != 0
        if kind == "int" and value >= 1 << 63:
            return value - (1 << 64)
        return value
    if kind == "str":
        return bytes(value).decode()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "double":
        return struct.unpack("<d", value)[0]
    return _message(kind, value, depth + 1)


def _entry(kind: str, value: int | memoryview, depth: int) -> tuple[str, Any]:
    key: str = ""
    item: Any = "" if kind in ("str", "bytes") else None
    if isinstance(value, memoryview):
        for number, _, part in _fields(value):
            if number == 1 and isinstance(part, memoryview):
                key = bytes(part).decode()
            elif number == 2:
                item = _value(kind, part, depth)
    return key, item


def _plain(data: memoryview) -> dict[int, int | memoryview]:
    return {number: value for number, _, value in _fields(data)}


def _signed(value: int | memoryview | None) -> int:
    number = value if isinstance(value, int) else 0
    return number - (1 << 64) if number >= 1 << 63 else number


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode() if isinstance(value, memoryview) else ""


def _time(data: memoryview) -> str | None:
    parts = _plain(data)
    seconds = _signed(parts.get(1))
    if seconds <= 0 and not parts.get(2):
        # Go's zero time is far before the epoch
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(data: memoryview) -> str | None:
    parts = _plain(data)
    seconds = _signed(parts.get(1))
    if seconds <= 0:
        return None
    moment = datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=_signed(parts.get(2)) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _quantity(data: memoryview) -> str:
    return _text(_plain(data).get(1))


def _int_or_string(data: memoryview) -> int | str:
    parts = _plain(data)
    return _text(parts.get(3)) if parts.get(1) == 1 else _signed(parts.get(2))


def _raw(data: memoryview) -> Any:
    value = _plain(data).get(1)
    return msgspec.json.decode(value) if isinstance(value, memoryview) and len(value) else None


def _strings(data: memoryview) -> list[str]:
    return [_text(value) for _, _, value in _fields(data)]


_SPECIAL: dict[str, Any] = {
    _META + "Time": _time,
    _META + "MicroTime": _micro_time,
    _META + "FieldsV1": _raw,
    _UTIL + "api.resource.Quantity": _quantity,
    _UTIL + "util.intstr.IntOrString": _int_or_string,
    _UTIL + "runtime.RawExtension": _raw,
    "k8s.io.api.authentication.v1.ExtraValue": _strings,
    "k8s.io.api.authorization.v1.ExtraValue": _strings,
    "k8s.io.api.certificates.v1.ExtraValue": _strings,
}
