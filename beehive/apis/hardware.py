"""Hardware that is found: rules that say what is wanted, what an edge has seen, and the objects made of it.  Pure.

A `HardwareRule` says which hardware is wanted and what Device to make of it.  What an edge sees of it is a `Seen`; the cloud
keeps it as a `DeviceCandidate`, and once that is accepted, as a Device.  The names of both come from the node, the rule and the
identity, so they are the same each time the thing is plugged in, and a node can only ever speak of its own."""

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta, Struct, structs, to_builtins

from beehive.errors import ConfigError

API_VERSION = "skerry.dev/v1alpha1"
DEVICE_API_VERSION = "devices.kubeedge.io/v1beta1"
RULE_LABEL = "skerry.dev/hardware-rule"
CANDIDATE_ANNOTATION = "skerry.dev/candidate"
NAME_ANNOTATION = "skerry.dev/known-as"
"""What a thing that announces itself calls itself."""
REPORT = "hardware/seen"
"""Resource of the message in which an edge says what it sees."""
MAX_SEEN = 256
"""Pieces of hardware in one report.  A board has a dozen; a rule that matches everything finds some hundreds."""

MQTT = "mqtt"
"""Subsystem of what announces itself over MQTT, as Home Assistant's discovery has it."""
PLUGGED = "plugged"
MAX_OFFERED = 64
"""Properties of a thing that describes itself."""

# What is read from sysfs of a device and of each above it.  Few and small: some attributes block, or act when read.
ATTRIBUTES = (
    "idVendor",
    "idProduct",
    "serial",
    "manufacturer",
    "product",
    "bInterfaceNumber",
    "vendor",
    "device",
    "address",
    "name",
    "index",
    "label",
    "of_node/compatible",
    "loop/backing_file",
)
_VARIABLE = re.compile(r"\$\{([a-z]+)\}")
_PATTERNS = ("subsystem", "devtype", "name", "vendor", "product", "serial", "driver", "port")
_VARIABLES = frozenset(
    [
        "identity",
        "devnode",
        "devpath",
        "name",
        "subsystem",
        "vendor",
        "product",
        "serial",
        "model",
        "driver",
        "port",
    ]
)
MAX_TEXT = 512
Text = Annotated[str, Meta(max_length=MAX_TEXT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """patterns: shell patterns by fact, compared without regard to case.  attributes: patterns by name, of the device or any
    above it.  by: `serial` or `port`.  template: spec of the Device to make, None for none."""

    name: str
    namespace: str = "default"
    patterns: Mapping[str, str]
    attributes: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    by: str = "serial"
    template: Mapping[str, Any] | None = None
    accept: bool = False


class OfferedProperty(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One property of an `Offer`: the model's row, and how this device addresses it (`config`, the visitor's)."""

    name: Text
    type: Text = "STRING"
    writable: bool = False
    unit: Text = ""
    minimum: Text = ""
    maximum: Text = ""
    description: Text = ""
    config: dict[str, Any] = {}


class OfferedMethod(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    name: Text
    property_names: list[Text] = []


class Offer(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a thing says of itself that can describe itself: enough to make a Device and its model of it.

    left: what it also says and nothing can be made of, each with why."""

    protocol_name: Text
    config_data: dict[str, Any] = {}
    properties: Annotated[list[OfferedProperty], Meta(max_length=MAX_OFFERED)] = []
    methods: Annotated[list[OfferedMethod], Meta(max_length=MAX_OFFERED)] = []
    left: Annotated[list[Text], Meta(max_length=MAX_OFFERED)] = []


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A piece of hardware that a rule wants, as it is plugged in now.  identity: stays the same when it is replugged.
    vendor, product: 4 hex digits.  port: the socket.  name, dev_path: the kernel's.
    former: what its identity was in an earlier version, for edgecore alone, which goes on with that where it is a Device.

    What announces itself over MQTT (subsystem `mqtt`) has an `offer`; its vendor, product, serial and driver are what it says:
    the manufacturer, the model's number, its first identifier and the program that speaks for it."""

    rule_namespace: Text = "default"
    rule_name: Text
    identity: Text
    subsystem: Text = ""
    dev_node: Text = ""
    dev_path: Text = ""
    name: Text = ""
    vendor: Text = ""
    product: Text = ""
    serial: Text = ""
    model: Text = ""
    driver: Text = ""
    port: Text = ""
    former: Text = ""
    offer: Offer | None = None


class Report(Struct, frozen=True, kw_only=True, rename="camel"):
    """All that an edge sees at the moment; what is missing is not there.

    covers: of which sources this is, `plugged` (the kernel's tree) and `mqtt`; nothing stands for all.  Of another nothing is
    known yet."""

    seen: Annotated[list[Seen], Meta(max_length=MAX_SEEN)]
    covers: Annotated[list[Text], Meta(max_length=8)] = []


def source(seen: Seen) -> str:
    """Who tells of it, as in `Report.covers`."""
    return MQTT if seen.subsystem == MQTT else PLUGGED


# --- rules ---------------------------------------------------------------------------------------------------------------


def parse(documents: Iterable[Any]) -> list[Rule]:
    """Read HardwareRules, in the order they are tried.  Other kinds are passed over.  Raises: ConfigError with every fault."""
    faults: list[str] = []
    rules: dict[tuple[str, str], Rule] = {}
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "HardwareRule":
            rule = _rule(document, faults)
            if (rule.namespace, rule.name) in rules:
                faults.append(f"HardwareRule {rule.name}: is there twice")
            rules[rule.namespace, rule.name] = rule
    if faults:
        raise ConfigError(faults)
    return [rules[key] for key in sorted(rules)]


def parse_each(documents: Iterable[Any]) -> tuple[list[Rule], list[str]]:
    """As `parse`, but a rule that is wrong is left out and named instead of stopping the others."""
    rules: list[Rule] = []
    faults: list[str] = []
    for document in documents:
        try:
            rules += parse([document])
        except ConfigError as error:
            faults.append(str(error))
    return sorted(rules, key=lambda rule: (rule.namespace, rule.name)), faults


def _map(value: Any, where: str, faults: list[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append(f"{where} is not a mapping")
        return {}
    return dict(value)


def _rule(document: dict[str, Any], faults: list[str]) -> Rule:
    metadata = _map(document.get("metadata"), "a HardwareRule's metadata", faults)
    name = str(metadata.get("name", ""))
    where = f"HardwareRule {name}"
    spec = _map(document.get("spec"), f"{where}: spec", faults)
    if document.get("apiVersion") != API_VERSION:
        faults.append(f"{where}: apiVersion is not {API_VERSION}")
    if not name:
        faults.append("a HardwareRule has no name")
    match = _map(spec.get("match"), f"{where}: spec.match", faults)
    attributes, properties = (
        {str(k): str(v) for k, v in _map(match.pop(key, None), f"{where}: spec.match.{key}", faults).items()}
        for key in ("attributes", "properties")
    )
    faults += [f"{where}: unknown key spec.match.{key}" for key in match if key not in _PATTERNS]
    faults += [
        f"{where}: spec.match.attributes.{key} is not one of {', '.join(ATTRIBUTES)}"
        for key in attributes
        if key not in ATTRIBUTES
    ]
    if "subsystem" not in match:
        faults.append(f"{where}: spec.match.subsystem is missing")
    by = spec.get("identity", "serial")
    if by not in ("serial", "port"):
        faults.append(f"{where}: spec.identity is not serial or port")
    template = spec.get("template")
    if template is not None:
        whole = match.get("subsystem") != MQTT  # what is announced over MQTT brings the rest itself
        if not isinstance(template, dict) or (
            whole and not (template.get("deviceModelRef") and template.get("protocol"))
        ):
            faults.append(f"{where}: spec.template needs deviceModelRef and protocol")
        faults += [
            f"{where}: spec.template has the unknown variable ${{{name}}}"
            for name in sorted(set(_VARIABLE.findall(repr(template))) - _VARIABLES)
        ]
    return Rule(
        name=name,
        namespace=str(metadata.get("namespace") or "default"),
        patterns={str(k): str(v) for k, v in match.items()},
        attributes=attributes,
        properties=properties,
        by=str(by),
        template=template if isinstance(template, dict) else None,
        accept=spec.get("accept") is True,
    )


def wants(rule: Rule, seen: Seen) -> bool:
    """Whether a rule wants something that has no place in the kernel's tree: by what is said of it alone."""
    texts = {key: value for key, value in structs.asdict(seen).items() if isinstance(value, str)}
    return not (rule.attributes or rule.properties) and all(
        _like(texts.get(key, ""), pattern) for key, pattern in rule.patterns.items()
    )


def _like(value: str, pattern: str) -> bool:
    return value != "" and fnmatch.fnmatchcase(value.lower(), pattern.lower())


# --- objects -------------------------------------------------------------------------------------------------------------


def object_name(node: str, seen: Seen) -> str:
    """Name of the objects made of it: the same each time it is plugged in at this node."""
    text = f"{node}\0{seen.rule_namespace}/{seen.rule_name}\0{seen.identity}"
    return f"{seen.rule_name[:40].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def facts(seen: Seen) -> dict[str, Any]:
    """The spec of its DeviceCandidate, less the node and the acceptance."""
    own = ("rule_namespace", "former")
    said = {key: value for key, value in structs.asdict(seen).items() if key not in own and value}
    if seen.offer is not None:
        said["offer"] = to_builtins(seen.offer)
    names = {"rule_name": "ruleName", "dev_node": "devNode", "dev_path": "devPath"}
    return {names.get(key, key): value for key, value in said.items()}


def candidate_object(node: str, seen: Seen, *, present: bool, accepted: bool | None = None) -> dict[str, Any]:
    """The DeviceCandidate.  accepted: None leaves it to whoever decides later."""
    spec: dict[str, Any] = {"nodeName": node, **facts(seen)}
    if accepted is not None:
        spec["accepted"] = accepted
    return {
        "apiVersion": API_VERSION,
        "kind": "DeviceCandidate",
        "metadata": {
            "name": object_name(node, seen),
            "namespace": seen.rule_namespace,
            "labels": {RULE_LABEL: seen.rule_name},
        },
        "spec": spec,
        "status": {"phase": "Present" if present else "Absent"},
    }


def device_object(node: str, seen: Seen, rule: Rule) -> dict[str, Any] | None:
    """The Device that the rule's template makes of it, or what it offers, or this with what the template says otherwise; None
    without either."""
    name = object_name(node, seen)
    spec = _offered(name, seen.offer) if seen.offer is not None else {}
    if rule.template is not None:
        spec = _over(spec, _filled(rule.template, template_values(seen)))
    if not spec:
        return None
    called = {NAME_ANNOTATION: seen.name} if seen.offer is not None and seen.name else {}
    return {
        "apiVersion": DEVICE_API_VERSION,
        "kind": "Device",
        "metadata": {
            "name": name,
            "namespace": seen.rule_namespace,
            "labels": {RULE_LABEL: seen.rule_name},
            "annotations": {CANDIDATE_ANNOTATION: name, **called},
        },
        "spec": {**spec, "nodeName": node},
    }


def model_object(node: str, seen: Seen, rule: Rule) -> dict[str, Any] | None:
    """The DeviceModel of what it offers; None when it offers nothing, or the rule's template names a model."""
    if seen.offer is None or (rule.template is not None and rule.template.get("deviceModelRef")):
        return None
    name = object_name(node, seen)
    keys = ("unit", "minimum", "maximum", "description")
    return {
        "apiVersion": DEVICE_API_VERSION,
        "kind": "DeviceModel",
        "metadata": {
            "name": name,
            "namespace": seen.rule_namespace,
            "labels": {RULE_LABEL: seen.rule_name},
            "annotations": {CANDIDATE_ANNOTATION: name},
        },
        "spec": {
            "protocol": seen.offer.protocol_name,
            "properties": [
                {
                    "name": row.name,
                    "type": row.type,
                    "accessMode": "ReadWrite" if row.writable else "ReadOnly",
                    **{key: text for key in keys if (text := getattr(row, key))},
                }
                for row in seen.offer.properties
            ],
        },
    }


def _offered(model: str, offer: Offer) -> dict[str, Any]:
    """Spec of the Device of what is offered.  It says at once when it goes, and each minute that it is there."""
    spec: dict[str, Any] = {
        "deviceModelRef": {"name": model},
        "protocol": {"protocolName": offer.protocol_name, "configData": dict(offer.config_data)},
        "stateReport": {"reportToCloud": True, "reportCycle": 60_000},
        "properties": [
            {"name": row.name, "reportToCloud": True, "visitors": {"configData": dict(row.config)}}
            for row in offer.properties
        ],
    }
    if offer.methods:
        spec["methods"] = to_builtins(offer.methods)
    return spec


def _over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another; lists count as one value."""
    out = dict(base)
    for key, value in more.items():
        known = out.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        out[key] = _over(known, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return out


def varying(thing: Any, seen: Seen) -> Any:
    """Of a template only what depends on the hardware, filled in; None when nothing does.  A list counts as one value."""
    if isinstance(thing, Mapping):
        found = {key: value for key, item in thing.items() if (value := varying(item, seen)) is not None}
        return found or None
    return _filled(thing, template_values(seen)) if _VARIABLE.search(repr(thing)) else None


def template_values(seen: Seen) -> dict[str, str]:
    """What `${…}` in a template can be."""
    return {
        key.replace("_", ""): value for key, value in structs.asdict(seen).items() if isinstance(value, str)
    }


def _filled(thing: Any, values: Mapping[str, str]) -> Any:
    if isinstance(thing, str):
        return _VARIABLE.sub(lambda variable: values.get(variable[1], ""), thing)
    if isinstance(thing, Mapping):
        return {key: _filled(value, values) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_filled(value, values) for value in thing]
    return thing
