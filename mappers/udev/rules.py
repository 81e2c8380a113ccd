"""Rules that say which hardware is wanted, and the objects made of it.  Pure.

A `HardwareRule` matches on subsystem, vendor, product, serial, driver and so on.  What matches becomes a `DeviceCandidate`;
if the rule has a template, also the Device that the candidate would be.  Rules are tried in order of their names; the first
that matches counts."""

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beehive.errors import ConfigError
from mappers.udev import found as hardware
from mappers.udev.found import Found

API_VERSION = "skerry.dev/v1alpha1"
RULE_LABEL = "skerry.dev/hardware-rule"
CANDIDATE_ANNOTATION = "skerry.dev/candidate"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A piece of hardware that a rule wants.  id: stays the same when it is replugged."""

    id: str
    rule: Rule
    found: Found


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


def _rule(document: dict[str, Any], faults: list[str]) -> Rule:
    metadata = document.get("metadata") or {}
    spec = document.get("spec") or {}
    name = str(metadata.get("name", ""))
    where = f"HardwareRule {name}"
    if document.get("apiVersion") != API_VERSION:
        faults.append(f"{where}: apiVersion is not {API_VERSION}")
    if not name:
        faults.append("a HardwareRule has no name")
    match = dict(spec.get("match") or {})
    attributes = {str(k): str(v) for k, v in (match.pop("attributes", None) or {}).items()}
    properties = {str(k): str(v) for k, v in (match.pop("properties", None) or {}).items()}
    faults += [f"{where}: unknown key spec.match.{key}" for key in match if key not in _PATTERNS]
    faults += [
        f"{where}: spec.match.attributes.{key} is not one of {', '.join(hardware.ATTRIBUTES)}"
        for key in attributes
        if key not in hardware.ATTRIBUTES
    ]
    if "subsystem" not in match:
        faults.append(f"{where}: spec.match.subsystem is missing")
    by = spec.get("identity", "serial")
    if by not in ("serial", "port"):
        faults.append(f"{where}: spec.identity is not serial or port")
    template = spec.get("template")
    if template is not None:
        if (
            not isinstance(template, dict)
            or not template.get("deviceModelRef")
            or not template.get("protocol")
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
        template=template,
        accept=spec.get("accept") is True,
    )


def matches(rule: Rule, found: Found) -> bool:
    """Whether a rule wants a device."""
    known = hardware.facts(found)
    values = {
        "subsystem": found.node.subsystem,
        "devtype": found.node.devtype,
        "name": found.node.name,
        "vendor": known.vendor,
        "product": known.product,
        "serial": known.serial,
        "port": known.port,
    }
    for key, pattern in rule.patterns.items():
        if key == "driver":
            if not any(_like(node.driver, pattern) for node in found.chain):
                return False
        elif not _like(values[key], pattern):
            return False
    return all(
        any(_like(node.attributes[key], pattern) for node in found.chain if key in node.attributes)
        for key, pattern in rule.attributes.items()
    ) and all(_like(found.properties.get(key, ""), pattern) for key, pattern in rule.properties.items())


def _like(value: str, pattern: str) -> bool:
    return value != "" and fnmatch.fnmatchcase(value.lower(), pattern.lower())


def candidate(rules: Iterable[Rule], found: Found) -> Candidate | None:
    """What the first rule that wants it makes of a device."""
    for rule in rules:
        if matches(rule, found):
            return Candidate(id=hardware.identity(found, by=rule.by), rule=rule, found=found)
    return None


def object_name(node: str, candidate: Candidate) -> str:
    """Name of the candidate's objects: the same each time it is plugged in at this node."""
    text = f"{node}\0{candidate.rule.namespace}/{candidate.rule.name}\0{candidate.id}"
    return f"{candidate.rule.name[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def candidate_object(node: str, candidate: Candidate, *, present: bool) -> dict[str, Any]:
    """The DeviceCandidate."""
    known = hardware.facts(candidate.found)
    spec = {
        "nodeName": node,
        "ruleName": candidate.rule.name,
        "identity": candidate.id,
        "subsystem": candidate.found.node.subsystem,
        "devNode": candidate.found.dev_node,
        "vendor": known.vendor,
        "product": known.product,
        "serial": known.serial,
        "model": known.model,
        "driver": known.driver,
        "port": known.port,
        "accepted": candidate.rule.accept,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "DeviceCandidate",
        "metadata": {
            "name": object_name(node, candidate),
            "namespace": candidate.rule.namespace,
            "labels": {RULE_LABEL: candidate.rule.name},
        },
        "spec": {key: value for key, value in spec.items() if value != ""},
        "status": {"phase": "Present" if present else "Absent"},
    }


def device_object(node: str, candidate: Candidate) -> dict[str, Any] | None:
    """The Device that the rule's template makes of the candidate; None without a template."""
    rule = candidate.rule
    if rule.template is None:
        return None
    values = hardware.template_values(candidate.found, candidate.id)
    name = object_name(node, candidate)
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {
            "name": name,
            "namespace": rule.namespace,
            "labels": {RULE_LABEL: rule.name},
            "annotations": {CANDIDATE_ANNOTATION: name},
        },
        "spec": {**_filled(rule.template, values), "nodeName": node},
    }


def _filled(thing: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(thing, str):
        return _VARIABLE.sub(lambda variable: str(values[variable[1]]), thing)
    if isinstance(thing, Mapping):
        return {key: _filled(value, values) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_filled(value, values) for value in thing]
    return thing
