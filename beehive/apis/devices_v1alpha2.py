"""Devices and models of devices.kubeedge.io/v1alpha2, brought to v1beta1.  Pure.

An API server only rewrites the version of such an object and then prunes what v1beta1 does not know, connection and visitors
included; so they are converted before they get there, or where one is read that still has its parts.  Works on parsed documents
of any shape: what is not as v1alpha2 has it is left out.   Source: protocol notes on devices, sections 5.1 to 5.3."""

from collections.abc import Iterable, Mapping
from typing import Any

GROUP = "devices.kubeedge.io"
OLD, NEW = f"{GROUP}/v1alpha2", f"{GROUP}/v1beta1"

_NODE_KEYS = ("kubernetes.io/hostname", "metadata.name", "")
_TYPES = ("int", "float", "double", "string", "boolean", "bytes")
_CUSTOM = "customizedProtocol"


def is_old(document: Any) -> bool:
    """Whether a document is a Device or a DeviceModel of v1alpha2."""
    return (
        isinstance(document, Mapping)
        and document.get("apiVersion") == OLD
        and document.get("kind") in ("Device", "DeviceModel")
    )


def convert(documents: Iterable[Any]) -> list[Any]:
    """Bring the old ones among some documents to v1beta1; the others stay as they are.

    A model's default values become the desired values of those of its devices that are among the documents and set none:
    v1beta1 has no place for them."""
    held = list(documents)
    defaults = {_id(d): _defaults(d) for d in held if is_old(d) and d["kind"] == "DeviceModel"}
    out: list[Any] = []
    for document in held:
        if not is_old(document):
            out.append(document)
        elif document["kind"] == "DeviceModel":
            out.append(model(document))
        else:
            reference = str(_map(_map(document.get("spec")).get("deviceModelRef")).get("name", ""))
            wanted = defaults.get((_id(document)[0], reference), {})
            out.append(device(document, defaults=wanted))
    return out


def model(old: Mapping[str, Any]) -> dict[str, Any]:
    """A DeviceModel."""
    spec = _map(old.get("spec"))
    return {
        "apiVersion": NEW,
        "kind": "DeviceModel",
        "metadata": _map(old.get("metadata")),
        "spec": {
            **({"protocol": str(spec["protocol"])} if spec.get("protocol") else {}),
            "properties": [_model_property(row) for row in _list(spec.get("properties"))],
        },
    }


def _model_property(row: Mapping[str, Any]) -> dict[str, Any]:
    name, details = _type(row)
    out = {"name": str(row.get("name", "")), "type": name.upper()}
    if row.get("description"):
        out["description"] = str(row["description"])
    out["accessMode"] = str(details.get("accessMode") or "ReadWrite")
    for key in ("minimum", "maximum", "unit"):
        if details.get(key) is not None:
            out[key] = text(details[key])
    return out


def _type(row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    kinds = _map(row.get("type"))
    for name in _TYPES:
        if name in kinds:
            return name, _map(kinds[name])
    return "", {}


def _defaults(old: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for row in _list(_map(old.get("spec")).get("properties")):
        _, details = _type(row)
        value = details.get("defaultValue")
        if value not in (None, "") and details.get("accessMode") != "ReadOnly":
            found[str(row.get("name", ""))] = text(value)
    return found


def device(old: Mapping[str, Any], *, defaults: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Device.  defaults: of its model, by property."""
    spec = _map(old.get("spec"))
    properties: dict[str, dict[str, Any]] = {}
    for visitor in _list(spec.get("propertyVisitors")):
        name = str(visitor.get("propertyName", ""))
        properties[name] = {"name": name, "reportToCloud": True, **_visited(visitor)}
    for twin in _list(_map(old.get("status")).get("twins")):
        name = str(twin.get("propertyName", ""))
        row = properties.setdefault(name, {"name": name, "reportToCloud": True})
        desired = _map(twin.get("desired"))
        if desired.get("value") not in (None, ""):
            row["desired"] = {**desired, "value": text(desired["value"])}
    for name, value in (defaults or {}).items():
        if name in properties:
            properties[name].setdefault("desired", {"value": value})
    out: dict[str, Any] = {
        "protocol": _protocol(_map(spec.get("protocol"))),
        "properties": list(properties.values()),
    }
    if spec.get("deviceModelRef"):
        out["deviceModelRef"] = spec["deviceModelRef"]
    node = _node(_map(spec.get("nodeSelector")))
    if node:
        out["nodeName"] = node
    metadata = _map(old.get("metadata"))
    return {"apiVersion": NEW, "kind": "Device", "metadata": metadata, "spec": out}


def _protocol(old: Mapping[str, Any]) -> dict[str, Any]:
    name, own = _block(old, ("modbus", "opcua", "bluetooth"))
    common = _map(old.get("common"))
    data: dict[str, Any] = {}
    for key, value in common.items():
        if key in ("com", "tcp", "customizedValues"):
            data.update(_map(value))
        else:
            data[key] = value
    return {"protocolName": name, "configData": {**data, **own}}


def _visited(visitor: Mapping[str, Any]) -> dict[str, Any]:
    name, own = _block(visitor, ("modbus", "opcua", "bluetooth"))
    out: dict[str, Any] = {}
    for key in ("collectCycle", "reportCycle"):
        cycle = visitor.get(key)
        if isinstance(cycle, int) and cycle > 0:  # nanoseconds; -1 meant never, which v1beta1 cannot say
            out[key] = max(cycle // 1_000_000, 1)
    data = {**_map(visitor.get("customizedValues")), **own}
    if name or data:
        out["visitors"] = {"protocolName": name, "configData": data}
    return out


def _block(old: Mapping[str, Any], known: tuple[str, ...]) -> tuple[str, Mapping[str, Any]]:
    """The one block that says which protocol it is, with its settings."""
    for name in known:
        if isinstance(old.get(name), Mapping):
            return name, _map(old[name])
    custom = _map(old.get(_CUSTOM))
    return str(custom.get("protocolName", "")), _map(custom.get("configData"))


def _node(selector: Mapping[str, Any]) -> str:
    for term in _list(selector.get("nodeSelectorTerms")):
        for expression in _list(term.get("matchExpressions")):
            values = expression.get("values")
            if expression.get("key", "") in _NODE_KEYS and isinstance(values, list) and values:
                return str(values[0])
    return ""


def text(value: Any) -> str:
    """A value as v1beta1 has it: everything is text, numbers without what does not matter."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _id(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = _map(document.get("metadata"))
    return str(metadata.get("namespace") or "default"), str(metadata.get("name", ""))


def _map(value: Any) -> dict[str, Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [_map(item) for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
