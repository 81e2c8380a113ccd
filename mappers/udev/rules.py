"""Which rules want a piece of hardware.  Pure.

The rules themselves, and the objects that are made of what they match, are in `beehive.apis.hardware`.  They are tried in order
of their names; the first that matches counts."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from beehive.apis import hardware as api
from beehive.apis.hardware import API_VERSION, Rule, Seen, parse
from mappers.udev import found as hardware
from mappers.udev.found import Found

__all__ = ["API_VERSION", "Candidate", "Rule", "candidate", "matches", "parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A piece of hardware that a rule wants.  id: stays the same when it is replugged.  former: what it was called before."""

    id: str
    rule: Rule
    found: Found
    former: str = ""

    @property
    def seen(self) -> Seen:
        """It as it is told."""
        known = hardware.facts(self.found)
        texts: dict[str, Any] = {
            "identity": self.id,
            "subsystem": self.found.node.subsystem,
            "dev_node": self.found.dev_node,
            "dev_path": self.found.path,
            "name": self.found.node.name,
            "vendor": known.vendor,
            "product": known.product,
            "serial": known.serial,
            "model": known.model,
            "driver": known.driver,
            "port": known.port,
        }
        return Seen(
            rule_namespace=self.rule.namespace,
            rule_name=self.rule.name,
            **{key: text[: api.MAX_TEXT] for key, text in texts.items()},
            former=self.former[: api.MAX_TEXT],
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
            return Candidate(
                id=hardware.identity(found, by=rule.by),
                rule=rule,
                found=found,
                former=hardware.former(found, by=rule.by),
            )
    return None


def object_name(node: str, candidate: Candidate) -> str:
    """Name of the candidate's objects: the same each time it is plugged in at this node."""
    return api.object_name(node, candidate.seen)


def candidate_object(node: str, candidate: Candidate, *, present: bool) -> dict[str, Any]:
    """The DeviceCandidate."""
    return api.candidate_object(node, candidate.seen, present=present, accepted=candidate.rule.accept)


def device_object(node: str, candidate: Candidate) -> dict[str, Any] | None:
    """The Device that the rule's template makes of the candidate; None without a template."""
    return api.device_object(node, candidate.seen, candidate.rule)
